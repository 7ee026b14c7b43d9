"""What a resumed training does otherwise than the one that it goes on with."""

from __future__ import annotations

from typing import Any

from mmengine.dist import get_world_size
from mmengine.runner import Runner

from ipirm_mm.evaluation import saved_setting


def say_other_batch(runner: Runner, checkpoint: dict[str, Any]) -> None:
    """Warn if a run is resumed with another batch size than its checkpoint was trained with.

    It may be meant, but it changes the number of steps per epoch and what a learning rate does, and
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
