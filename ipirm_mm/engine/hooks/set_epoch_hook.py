"""Pass the epoch on to the transforms whose random draws depend on it."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ipirm_mm.datasets import base_dataset


@HOOKS.register_module()
class SetEpochHook(Hook):
    """Pass the epoch and the seed of the run on to the transforms that have ``set_epoch``.

    These are :class:`~ipirm_mm.datasets.SeededTransforms` and
    :class:`~ipirm_mm.datasets.SeededMultiView`. ``PartitionUpdateHook`` does the same, so a run
    needs one of the two hooks.

    .. code-block:: python

        custom_hooks = [dict(type='SetEpochHook')]

    Raises:
        UserError: Before an epoch, if ``sample_idx`` may stand for several images.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Pass the epoch on."""
        broadcast_epoch(runner)


def broadcast_epoch(runner: Runner, draw: int = 0) -> None:
    """Pass epoch and seed of a run on to the transforms of its training pipeline.

    Args:
        runner: The runner.
        draw: Number of the augmentation within the epoch. Defaults to 0, that of the training.

    Raises:
        UserError: If ``sample_idx`` may stand for several images.
    """
    dataset = base_dataset(runner.train_dataloader.dataset)
    for transform in dataset.pipeline.transforms:
        if hasattr(transform, 'set_epoch'):
            transform.set_epoch(runner.epoch, runner.seed, draw)
