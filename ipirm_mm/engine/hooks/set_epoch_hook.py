"""Tells transforms the epoch, which their draws depend on."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ipirm_mm.datasets import base_dataset


@HOOKS.register_module()
class SetEpochHook(Hook):
    """Tell the epoch and the seed of the run to the transforms that ask for it (``set_epoch``).

    :class:`~ipirm_mm.datasets.SeededTransforms` and
    :class:`~ipirm_mm.datasets.SeededMultiView` do. Not needed beside ``PartitionUpdateHook``.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Tell them."""
        tell_epoch(runner, runner.seed)


def tell_epoch(runner: Runner, seed: int) -> None:
    """Tell the transforms of the training pipeline that ask for it epoch and seed."""
    dataset = base_dataset(runner.train_dataloader.dataset)
    for transform in dataset.pipeline.transforms:
        if hasattr(transform, 'set_epoch'):
            transform.set_epoch(runner.epoch, seed)
