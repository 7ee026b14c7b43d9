"""Self-supervised algorithms."""

from .base_ipirm import BaseIPIRM
from .base_momentum_ipirm import BaseMomentumIPIRM
from .ipirm_barlowtwins import IPIRMBarlowTwins
from .ipirm_byol import IPIRMBYOL
from .ipirm_mocov3 import IPIRMMoCoV3
from .ipirm_simclr import IPIRMSimCLR
from .ipirm_simclr_mixup import IPIRMSimCLRMixUp
from .ipirm_simsiam import IPIRMSimSiam

__all__ = [
    'BaseIPIRM',
    'BaseMomentumIPIRM',
    'IPIRMBYOL',
    'IPIRMBarlowTwins',
    'IPIRMMoCoV3',
    'IPIRMSimCLR',
    'IPIRMSimCLRMixUp',
    'IPIRMSimSiam',
]
