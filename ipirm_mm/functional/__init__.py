"""The method as pure functions of tensors: torch only, no state, no input or output."""

from .contrastive import (
    SubsetRisks,
    gather_batch,
    group_contrastive_risks,
    subset_contrastive_risks,
)
from .distillation import (
    ClassIndex,
    crd_constants,
    crd_index,
    crd_loss,
    crd_scores,
    index_classes,
    kl_divergence,
    mean_teacher_logits,
    ofd_distance,
    ofd_margin,
)
from .information import mutual_information, normalized_mutual_information
from .latent import group_cosine_risks
from .partition import soft_partition_objective
from .scores import merge_scores

__all__ = [
    'ClassIndex',
    'SubsetRisks',
    'crd_constants',
    'crd_index',
    'crd_loss',
    'crd_scores',
    'gather_batch',
    'group_contrastive_risks',
    'group_cosine_risks',
    'index_classes',
    'kl_divergence',
    'mean_teacher_logits',
    'merge_scores',
    'mutual_information',
    'normalized_mutual_information',
    'ofd_distance',
    'ofd_margin',
    'soft_partition_objective',
    'subset_contrastive_risks',
]
