"""Classifiers."""

from .distilling_classifier import DistillingClassifier
from .ensemble_classifier import EnsembleClassifier, check_order, load_member_weights

__all__ = ['DistillingClassifier', 'EnsembleClassifier', 'check_order', 'load_member_weights']
