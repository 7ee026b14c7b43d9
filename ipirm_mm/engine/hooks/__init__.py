"""Hooks, registered in ``mmpretrain.registry.HOOKS``."""

from .knn_hook import KNNHook
from .partition_update_hook import PartitionUpdateHook

__all__ = ['KNNHook', 'PartitionUpdateHook']
