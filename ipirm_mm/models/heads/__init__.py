"""Heads."""

from .base_ipirm_head import BaseIPIRMHead
from .ipirm_contrastive_head import IPIRMContrastiveHead
from .ipirm_latent_head import IPIRMLatentHead
from .ipirm_mixup_head import IPIRMMixUpHead

__all__ = ['BaseIPIRMHead', 'IPIRMContrastiveHead', 'IPIRMLatentHead', 'IPIRMMixUpHead']
