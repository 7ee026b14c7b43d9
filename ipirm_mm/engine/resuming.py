"""What a resumed training does otherwise than the one that it goes on with."""

from __future__ import annotations

from typing import Any

from mmengine.dist import get_world_size
from mmengine.runner import Runner
from torch import Tensor, nn

from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import saved_setting


def check_resumable(
    model: nn.Module, weights: dict[str, Tensor], checkpoint: dict[str, Any], path: str
) -> None:
    """Check that a training can go on from a checkpoint, of which MMEngine only warns.

    Args:
        model: The model.
        weights: The weights in the checkpoint, by the names of the model's.
        checkpoint: Content of the checkpoint.
        path: The file, for messages.

    Raises:
        UserError: If it has only weights, lacks a parameter, or has one in another shape.
    """
    meta = checkpoint.get('meta')
    counts = [meta.get(name) if isinstance(meta, dict) else None for name in ('epoch', 'iter')]
    if not all(isinstance(count, int) for count in counts) or 'message_hub' not in checkpoint:
        raise UserError(
            f'{path} cannot be resumed: it has weights, but not the epoch and iteration of a '
            'training; start a new one from it by load_from, without --resume'
        )
    for name, parameter in model.named_parameters():
        found = weights.get(name)
        if found is None or found.shape != parameter.shape:
            what = 'it lacks' if found is None else f'it has {tuple(found.shape)} for'
            raise UserError(
                f'{path} cannot be resumed, because it is not of this model: {what} {name}, of '
                f'the shape {tuple(parameter.shape)}; give the config of its training, or start a '
                'new training from it by load_from, without --resume'
            )


def say_other_batch(runner: Runner, checkpoint: dict[str, Any]) -> None:
    """Warn if a run is resumed with another batch size than its checkpoint was trained with.

    It may be meant, but it changes the number of steps per epoch and what a learning rate does.
    MMEngine says nothing of it.

    Args:
        runner: The runner, about to resume.
        checkpoint: Content of the checkpoint, whose config has the batch size of then.
    """
    meta = checkpoint.get('meta')
    loader = saved_setting(meta.get('cfg') if isinstance(meta, dict) else None, 'train_dataloader')
    before = loader.get('batch_size') if isinstance(loader, dict) else None
    now = runner.train_dataloader.batch_size
    if isinstance(before, int) and now is not None and before != now:
        runner.logger.warning(
            f'The checkpoint was trained with train_dataloader.batch_size={before}, and the run '
            f'is resumed with {now} on {get_world_size()} process(es): steps per epoch, and what '
            'the learning rate does, differ from here on'
        )
