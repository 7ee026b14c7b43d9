"""Self-supervised algorithms."""

from .base_ipirm import BaseIPIRM
from .ipirm_simclr import IPIRMSimCLR
from .ipirm_simclr_mixup import IPIRMSimCLRMixUp
from .ipirm_simsiam import IPIRMSimSiam

__all__ = ['BaseIPIRM', 'IPIRMSimCLR', 'IPIRMSimCLRMixUp', 'IPIRMSimSiam']
