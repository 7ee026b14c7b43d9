"""Self-supervised algorithms."""

from .ipirm_simclr import IPIRMSimCLR

__all__ = ['IPIRMSimCLR']
