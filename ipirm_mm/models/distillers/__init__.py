"""Stage II: distilling classifier, teachers and losses."""

from .distillation_losses import CRD, OFD, DistillationLoss, FeatureKL, LogitKL, Responses
from .distilling_classifier import DistillingClassifier
from .taps import PreActivationTap, Stage, find_stages
from .teacher import FrozenTeacher

__all__ = [
    'CRD',
    'OFD',
    'DistillationLoss',
    'DistillingClassifier',
    'FeatureKL',
    'FrozenTeacher',
    'LogitKL',
    'PreActivationTap',
    'Responses',
    'Stage',
    'find_stages',
]
