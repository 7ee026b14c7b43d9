"""Hooks of MMEngine's runner."""

from .hooks import (
    CheckClassesHook,
    CheckWeightsHook,
    CRDMemoryHook,
    KNNHook,
    NonFiniteGuardHook,
    PartitionUpdateHook,
    RequireStepsHook,
    SetEpochHook,
    TolerateReportsHook,
)
from .passes import check_end, no_step_message

__all__ = [
    'CRDMemoryHook',
    'CheckClassesHook',
    'CheckWeightsHook',
    'KNNHook',
    'NonFiniteGuardHook',
    'PartitionUpdateHook',
    'RequireStepsHook',
    'SetEpochHook',
    'TolerateReportsHook',
    'check_end',
    'no_step_message',
]
