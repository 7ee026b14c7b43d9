"""Test-time augmentation and ensembles."""

from .ensemble_classifier import EnsembleClassifier, load_member_weights
from .score_merging_tta import VIEW_POLICIES, ScoreMergingTTA
from .views import CROPS, MemberViews, plain_classifier, tta_pipeline

__all__ = [
    'CROPS',
    'VIEW_POLICIES',
    'EnsembleClassifier',
    'MemberViews',
    'ScoreMergingTTA',
    'load_member_weights',
    'plain_classifier',
    'tta_pipeline',
]
