"""The method as pure functions of tensors: PyTorch only, no state, no input or output."""

from ._common import unit_rows
from .contrastive import SubsetRisks, contrastive_risks, subset_contrastive_risks
from .cosine import cosine_risks
from .crd import ClassIndex, crd_constants, crd_index, crd_loss, crd_scores, index_classes
from .dist import dist_loss
from .dkd import dkd_loss
from .information import mutual_information, normalized_mutual_information
from .kd import (
    binary_kl_divergence,
    kl_divergence,
    mean_teacher_binary_logits,
    mean_teacher_logits,
)
from .mixup import mean_lam, mix_images, mixup_lam, mixup_partners, mixup_risks
from .mixup_partition import soft_mixup_objective
from .ofd import ofd_distance, ofd_margin
from .partition import soft_partition_objective
from .scores import merge_label_scores, merge_scores, select_labels, yes_and_no

__all__ = [
    'ClassIndex',
    'SubsetRisks',
    'binary_kl_divergence',
    'contrastive_risks',
    'cosine_risks',
    'crd_constants',
    'crd_index',
    'crd_loss',
    'crd_scores',
    'dist_loss',
    'dkd_loss',
    'index_classes',
    'kl_divergence',
    'mean_lam',
    'mean_teacher_binary_logits',
    'mean_teacher_logits',
    'merge_label_scores',
    'merge_scores',
    'mix_images',
    'mixup_lam',
    'mixup_partners',
    'mixup_risks',
    'mutual_information',
    'normalized_mutual_information',
    'ofd_distance',
    'ofd_margin',
    'select_labels',
    'soft_mixup_objective',
    'soft_partition_objective',
    'subset_contrastive_risks',
    'unit_rows',
    'yes_and_no',
]
