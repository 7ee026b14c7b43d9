"""Hooks of MMEngine's runner."""

from .hooks import CRDMemoryHook, KNNHook, PartitionUpdateHook, SetEpochHook

__all__ = ['CRDMemoryHook', 'KNNHook', 'PartitionUpdateHook', 'SetEpochHook']
