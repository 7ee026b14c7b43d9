"""Hooks of MMEngine's runner."""

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
    ExactResumeHook,
    KNNHook,
    NonFiniteGuardHook,
    PartitionUpdateHook,
    RequireStepsHook,
    SetEpochHook,
    TolerateReportsHook,
)
from .passes import check_end, drop_as_one_process, no_step_message
from .positions import go_on_within_epochs
from .signals import keep_workers_at_sigterm

__all__ = [
    'CRDMemoryHook',
    'CheckClassesHook',
    'CheckWeightsHook',
    'ExactResumeHook',
    'KNNHook',
    'NonFiniteGuardHook',
    'PartitionUpdateHook',
    'RequireStepsHook',
    'SetEpochHook',
    'TolerateReportsHook',
    'apply_bridges',
    'check_end',
    'newest_checkpoint',
    'no_step_message',
]


def apply_bridges() -> None:
    """Mend what loses trainings in MMEngine. A second call changes nothing more."""
    write_whole_files()
    keep_until_replaced()
    resume_the_newest()
    go_on_within_epochs()
    drop_as_one_process()
    keep_workers_at_sigterm()
