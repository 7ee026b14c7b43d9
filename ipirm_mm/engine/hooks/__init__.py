"""Hooks, registered in ``mmpretrain.registry.HOOKS``."""

from .check_classes_hook import CheckClassesHook
from .check_weights_hook import CheckWeightsHook
from .crd_memory_hook import CRDMemoryHook
from .encoder_files_hook import EncoderFilesHook
from .exact_resume_hook import ExactResumeHook
from .knn_hook import KNNHook
from .non_finite_guard_hook import NonFiniteGuardHook
from .partition_update_hook import PartitionUpdateHook
from .require_steps_hook import RequireStepsHook
from .set_epoch_hook import SetEpochHook
from .tolerate_reports_hook import TolerateReportsHook
from .training_page_hook import TrainingPageHook

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
]
