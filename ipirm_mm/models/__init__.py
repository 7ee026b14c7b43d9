"""Models, heads and losses, registered in ``mmpretrain.registry.MODELS``."""

from .backbones import SmallConvNet
from .classifiers import DistillingClassifier, EnsembleClassifier
from .distillation import CRD, DIST, DKD, OFD, FeatureKL, LogitKL
from .heads import IPIRMContrastiveHead, IPIRMLatentHead, IPIRMMixUpHead
from .selfsup import IPIRMSimCLR, IPIRMSimCLRMixUp, IPIRMSimSiam
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
    'IPIRMContrastiveHead',
    'IPIRMLatentHead',
    'IPIRMMixUpHead',
    'IPIRMSimCLR',
    'IPIRMSimCLRMixUp',
    'IPIRMSimSiam',
    'LogitKL',
    'ScoreMergingTTA',
    'SmallConvNet',
    'load_weights',
    'plain_classifier',
]
