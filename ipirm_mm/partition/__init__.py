"""The set of partitions and the solver that adds to it."""

from .mixing import Mixing, mixing_groups
from .partition_set import MAX_SUBSETS, PartitionSet
from .solver import PartitionResult, PartitionSolver

__all__ = [
    'MAX_SUBSETS',
    'Mixing',
    'PartitionResult',
    'PartitionSet',
    'PartitionSolver',
    'mixing_groups',
]
