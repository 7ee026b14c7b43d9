"""The set of partitions and the solver that adds to it."""

from .partition_set import MAX_SUBSETS, PartitionSet
from .solver import PartitionResult, PartitionSolver

__all__ = ['MAX_SUBSETS', 'PartitionResult', 'PartitionSet', 'PartitionSolver']
