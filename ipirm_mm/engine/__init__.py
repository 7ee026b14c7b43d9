"""Hooks of MMEngine's runner."""

from .hooks import (
    CheckClassesHook,
    CheckWeightsHook,
    CRDMemoryHook,
    KNNHook,
    PartitionUpdateHook,
    RequireStepsHook,
    SetEpochHook,
)
from .passes import check_end, no_step_message

__all__ = [
    'CRDMemoryHook',
    'CheckClassesHook',
    'CheckWeightsHook',
    'KNNHook',
    'PartitionUpdateHook',
    'RequireStepsHook',
    'SetEpochHook',
    'check_end',
    'no_step_message',
]
