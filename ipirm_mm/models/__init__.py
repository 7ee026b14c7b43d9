"""Algorithms, heads and backbones, registered in ``mmpretrain.registry.MODELS``."""

from .backbones import SmallConvNet
from .heads import IPIRMContrastiveHead
from .selfsup import IPIRMSimCLR

__all__ = ['IPIRMContrastiveHead', 'IPIRMSimCLR', 'SmallConvNet']
