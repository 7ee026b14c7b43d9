"""Pass the epoch on to the transforms whose random draws depend on it."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ..passes import broadcast_epoch, check_steps, is_training, prepare_images


@HOOKS.register_module()
class SetEpochHook(Hook):
    """Pass the epoch and the seed of the run on to the transforms that have ``set_epoch``.

    These are :class:`~ipirm_mm.datasets.SeededTransforms` and
    :class:`~ipirm_mm.datasets.SeededMultiView`. In a loop of iterations, an epoch is a pass over
    the training data. Wrappers of data sets may repeat an image (``RepeatDataset``): then each
    repetition has its own random draws. ``PartitionUpdateHook`` does the same, so a run needs one
    of the two hooks.

    .. code-block:: python

        custom_hooks = [dict(type='SetEpochHook')]

    Raises:
        UserError: Before training, if images have no indices or no step would be made.
    """

    def before_run(self, runner: Runner) -> None:
        """Number the training images."""
        if is_training(runner):
            prepare_images(runner)

    def before_train(self, runner: Runner) -> None:
        """Check that there is something to train."""
        check_steps(runner)

    def before_train_epoch(self, runner: Runner) -> None:
        """Pass the epoch on."""
        broadcast_epoch(runner)
