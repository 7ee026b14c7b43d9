"""Heads."""

from .ipirm_contrastive_head import IPIRMContrastiveHead

__all__ = ['IPIRMContrastiveHead']
