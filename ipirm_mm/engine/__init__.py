"""Hooks into MMEngine's runner."""

from .hooks import KNNHook, PartitionUpdateHook

__all__ = ['KNNHook', 'PartitionUpdateHook']
