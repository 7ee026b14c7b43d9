"""Heads."""

from .base_ipirm_head import BaseIPIRMHead
from .ipirm_contrastive_head import IPIRMContrastiveHead
from .ipirm_latent_head import IPIRMLatentHead

__all__ = ['BaseIPIRMHead', 'IPIRMContrastiveHead', 'IPIRMLatentHead']
