"""Refuse a training that would make no step."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.models.utils import refuse_non_finite

from ..averaging import unwrap
from ..passes import check_steps, say_lost_gradients
from ..resuming import check_resumable, say_other_batch
from ..schedules import check_schedules


@HOOKS.register_module()
class RequireStepsHook(Hook):
    """Refuse a training that would make no step, before it writes checkpoints.

    ``tools/train.py`` adds it to every run. The other hooks of ipirm_mm check the same.

    Raises:
        UserError: Before training, if there are fewer images than a batch, a schedule cannot be
            meant (``T_max=0``), nothing is left to do after a resume, a checkpoint has no weights
            of the model or weights that are not finite, or one that is resumed is not of this
            model and a training.
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check that a checkpoint has something of the model, of which MMEngine only warns.

        Args:
            runner: The runner of the training.
            checkpoint: Content of the checkpoint.
        """
        state = checkpoint.get('state_dict', checkpoint)
        model = unwrap(runner.model)
        own = model.state_dict()
        weights = {
            key.removeprefix('module.'): value
            for key, value in state.items()
            if isinstance(key, str) and isinstance(value, Tensor)
        }
        if not weights.keys() & own.keys():
            raise UserError(
                f'load_from: none of the weights in {runner._load_from} is one of the model: it '
                f'has {next(iter(state), "nothing")}, ..., and the model {next(iter(own))}, ...: '
                'give a checkpoint of this model, or start the backbone from it by '
                "model.backbone.init_cfg=dict(type='Pretrained', checkpoint=...)"
            )
        path = str(runner._load_from)
        refuse_non_finite(
            {name: (value, own[name]) for name, value in weights.items() if name in own}, path
        )
        if runner._resume:
            check_resumable(model, weights, checkpoint, path)
            say_other_batch(runner, checkpoint)

    def before_train(self, runner: Runner) -> None:
        """Check that there is something to train, and that a resume loses no gradients."""
        check_steps(runner)
        check_schedules(runner)
        say_lost_gradients(runner)
