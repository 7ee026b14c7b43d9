"""The method as pure functions of tensors: torch only, no state, no input or output."""

from .contrastive import (
    SubsetRisks,
    gather_batch,
    group_contrastive_risks,
    subset_contrastive_risks,
)
from .information import mutual_information, normalized_mutual_information
from .latent import group_cosine_risks
from .partition import soft_partition_objective

__all__ = [
    'SubsetRisks',
    'gather_batch',
    'group_contrastive_risks',
    'group_cosine_risks',
    'mutual_information',
    'normalized_mutual_information',
    'soft_partition_objective',
    'subset_contrastive_risks',
]
