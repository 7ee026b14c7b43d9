"""Algorithms, heads, backbones and distillers, registered in ``mmpretrain.registry.MODELS``."""

from .backbones import SmallConvNet
from .distillers import CRD, OFD, DistillingClassifier, FeatureKL, LogitKL
from .heads import IPIRMContrastiveHead, IPIRMLatentHead
from .selfsup import IPIRMSimCLR, IPIRMSimSiam
from .weights import CheckedPretrained, load_weights

__all__ = [
    'CRD',
    'OFD',
    'CheckedPretrained',
    'DistillingClassifier',
    'FeatureKL',
    'IPIRMContrastiveHead',
    'IPIRMLatentHead',
    'IPIRMSimCLR',
    'IPIRMSimSiam',
    'LogitKL',
    'SmallConvNet',
    'load_weights',
]
