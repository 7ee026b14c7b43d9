"""Refuse a training that would make no step."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ..passes import check_steps, say_lost_gradients


@HOOKS.register_module()
class RequireStepsHook(Hook):
    """Refuse a training that would make no step, before it writes checkpoints.

    ``tools/train.py`` adds it to every run. The other hooks of ipirm_mm check the same.

    Raises:
        UserError: Before training, if there are fewer images than a batch, or nothing is left to
            do after a resume.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Check that there is something to train, and that a resume loses no gradients."""
        check_steps(runner)
        say_lost_gradients(runner)
