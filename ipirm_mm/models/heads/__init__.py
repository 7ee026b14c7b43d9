"""Heads."""

from .base_ipirm_head import BaseIPIRMHead
from .base_predicting_head import BasePredictingHead
from .ipirm_contrastive_head import IPIRMContrastiveHead
from .ipirm_cross_correlation_head import IPIRMCrossCorrelationHead
from .ipirm_latent_head import IPIRMLatentHead
from .ipirm_mixup_head import IPIRMMixUpHead
from .ipirm_mocov3_head import IPIRMMoCoV3Head

__all__ = [
    'BaseIPIRMHead',
    'BasePredictingHead',
    'IPIRMContrastiveHead',
    'IPIRMCrossCorrelationHead',
    'IPIRMLatentHead',
    'IPIRMMixUpHead',
    'IPIRMMoCoV3Head',
]
