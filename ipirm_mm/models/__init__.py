"""Models, heads and losses, registered in ``mmpretrain.registry.MODELS``."""

from .backbones import SmallConvNet
from .classifiers import DistillingClassifier, EnsembleClassifier
from .distillation import CRD, OFD, FeatureKL, LogitKL
from .heads import (
    IPIRMContrastiveHead,
    IPIRMCrossCorrelationHead,
    IPIRMLatentHead,
    IPIRMMoCoV3Head,
)
from .selfsup import IPIRMBYOL, IPIRMBarlowTwins, IPIRMMoCoV3, IPIRMSimCLR, IPIRMSimSiam
from .tta import ScoreMergingTTA
from .utils import CheckedPretrained, load_weights, plain_classifier
from .views import BatchedViews, ClsBatchedViews

__all__ = [
    'CRD',
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
    'IPIRMMoCoV3',
    'IPIRMMoCoV3Head',
    'IPIRMSimCLR',
    'IPIRMSimSiam',
    'LogitKL',
    'ScoreMergingTTA',
    'SmallConvNet',
    'load_weights',
    'plain_classifier',
]
