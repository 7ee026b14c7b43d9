"""What is registered in ``mmpretrain.registry.MODELS``."""

from .backbones import SmallConvNet
from .distillers import CRD, OFD, DistillingClassifier, FeatureKL, LogitKL
from .heads import IPIRMContrastiveHead, IPIRMLatentHead
from .selfsup import IPIRMSimCLR, IPIRMSimSiam
from .tta import EnsembleClassifier, MemberViews, ScoreMergingTTA
from .weights import CheckedPretrained, load_weights

__all__ = [
    'CRD',
    'OFD',
    'CheckedPretrained',
    'DistillingClassifier',
    'EnsembleClassifier',
    'FeatureKL',
    'IPIRMContrastiveHead',
    'IPIRMLatentHead',
    'IPIRMSimCLR',
    'IPIRMSimSiam',
    'LogitKL',
    'MemberViews',
    'ScoreMergingTTA',
    'SmallConvNet',
    'load_weights',
]
