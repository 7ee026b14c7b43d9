"""Hooks, registered in ``mmpretrain.registry.HOOKS``."""

from .check_classes_hook import CheckClassesHook
from .check_weights_hook import CheckWeightsHook
from .crd_memory_hook import CRDMemoryHook
from .exact_resume_hook import ExactResumeHook
from .knn_hook import KNNHook
from .non_finite_guard_hook import NonFiniteGuardHook
from .partition_update_hook import PartitionUpdateHook
from .require_steps_hook import RequireStepsHook
from .set_epoch_hook import SetEpochHook
from .tolerate_reports_hook import TolerateReportsHook

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
]
