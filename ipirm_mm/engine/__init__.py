"""Hooks of MMEngine's runner."""

from typing import Any

from .checkpoint_files import (
    keep_until_replaced,
    newest_checkpoint,
    resume_the_newest,
    write_whole_files,
)
from .hooks import (
    CheckClassesHook,
    CheckWeightsHook,
    CRDMemoryHook,
    EncoderFilesHook,
    ExactResumeHook,
    KNNHook,
    NonFiniteGuardHook,
    PartitionUpdateHook,
    RequireStepsHook,
    SetEpochHook,
    TolerateReportsHook,
    TrainingPageHook,
)
from .loaders import mend_loaders
from .logs import logged_records
from .passes import check_end, no_step_message
from .positions import go_on_within_epochs

__all__ = [
    'CRDMemoryHook',
    'CheckClassesHook',
    'CheckWeightsHook',
    'EncoderFilesHook',
    'ExactResumeHook',
    'KNNHook',
    'NonFiniteGuardHook',
    'PartitionUpdateHook',
    'RequireStepsHook',
    'SetEpochHook',
    'TolerateReportsHook',
    'TrainingPageHook',
    'add_training_hooks',
    'apply_bridges',
    'check_end',
    'logged_records',
    'newest_checkpoint',
    'no_step_message',
]


def add_training_hooks(runner: Any) -> None:
    """Add the hooks that every training has, unless the config has them.

    Args:
        runner: The runner of the training.
    """
    runner.register_hook(RequireStepsHook())
    for kind in (ExactResumeHook, NonFiniteGuardHook, TolerateReportsHook):
        if not any(isinstance(hook, kind) for hook in runner.hooks):
            runner.register_hook(kind())


def apply_bridges() -> None:
    """Mend what loses or ends trainings in MMEngine. A second call changes nothing more."""
    write_whole_files()
    keep_until_replaced()
    resume_the_newest()
    go_on_within_epochs()
    mend_loaders()
