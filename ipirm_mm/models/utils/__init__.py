"""What several models share."""

from .classifier_config import load_classifier, plain_classifier
from .gather import gather_batch
from .pooling import pool_last, pooled_feature
from .sample_indices import sample_indices
from .weights import CheckedPretrained, load_weights

__all__ = [
    'CheckedPretrained',
    'gather_batch',
    'load_classifier',
    'load_weights',
    'plain_classifier',
    'pool_last',
    'pooled_feature',
    'sample_indices',
]
