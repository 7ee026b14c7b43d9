"""Classifiers."""

from .distilling_classifier import DistillingClassifier
from .ensemble_classifier import EnsembleClassifier, load_member_weights

__all__ = ['DistillingClassifier', 'EnsembleClassifier', 'load_member_weights']
