"""Algorithms, heads and backbones, registered in ``mmpretrain.registry.MODELS``."""

from .backbones import SmallConvNet
from .heads import IPIRMContrastiveHead, IPIRMLatentHead
from .selfsup import IPIRMSimCLR, IPIRMSimSiam

__all__ = [
    'IPIRMContrastiveHead',
    'IPIRMLatentHead',
    'IPIRMSimCLR',
    'IPIRMSimSiam',
    'SmallConvNet',
]
