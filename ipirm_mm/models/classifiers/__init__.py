"""Classifiers."""

from .distilling_classifier import DistillingClassifier
from .ensemble_classifier import EnsembleClassifier
from .member_weights import (
    MemberWeights,
    load_member_weights,
    match_members,
    member_names,
    model_name,
)

__all__ = [
    'DistillingClassifier',
    'EnsembleClassifier',
    'MemberWeights',
    'load_member_weights',
    'match_members',
    'member_names',
    'model_name',
]
