"""Models, heads and losses, registered in ``mmpretrain.registry.MODELS``."""

from .backbones import SmallConvNet
from .classifiers import DistillingClassifier, EnsembleClassifier
from .distillation import CRD, DIST, DKD, OFD, FeatureKL, LogitKL
from .heads import (
    IPIRMContrastiveHead,
    IPIRMCrossCorrelationHead,
    IPIRMLatentHead,
    IPIRMMixUpHead,
    IPIRMMoCoV3Head,
)
from .selfsup import (
    IPIRMBYOL,
    IPIRMBarlowTwins,
    IPIRMMoCoV3,
    IPIRMSimCLR,
    IPIRMSimCLRMixUp,
    IPIRMSimSiam,
)
from .tta import ScoreMergingTTA
from .utils import CheckedPretrained, load_weights, plain_classifier
from .views import BatchedViews, ClsBatchedViews

__all__ = [
    'CRD',
    'DIST',
    'DKD',
    'OFD',
    'BatchedViews',
    'ClsBatchedViews',
    'CheckedPretrained',
    'DistillingClassifier',
    'EnsembleClassifier',
    'FeatureKL',
    'IPIRMBYOL',
    'IPIRMBarlowTwins',
    'IPIRMContrastiveHead',
    'IPIRMCrossCorrelationHead',
    'IPIRMLatentHead',
    'IPIRMMixUpHead',
    'IPIRMMoCoV3',
    'IPIRMMoCoV3Head',
    'IPIRMSimCLR',
    'IPIRMSimCLRMixUp',
    'IPIRMSimSiam',
    'LogitKL',
    'ScoreMergingTTA',
    'SmallConvNet',
    'load_weights',
    'plain_classifier',
]
