"""Hooks into MMEngine's runner."""

from .hooks import CRDMemoryHook, KNNHook, PartitionUpdateHook

__all__ = ['CRDMemoryHook', 'KNNHook', 'PartitionUpdateHook']
