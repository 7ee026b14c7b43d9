"""Hooks of MMEngine's runner."""

from .hooks import CheckClassesHook, CRDMemoryHook, KNNHook, PartitionUpdateHook, SetEpochHook

__all__ = ['CRDMemoryHook', 'CheckClassesHook', 'KNNHook', 'PartitionUpdateHook', 'SetEpochHook']
