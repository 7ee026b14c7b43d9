"""What several models share."""

from .classes import (
    as_names,
    class_names,
    class_order,
    common_classes,
    config_class_names,
    say_unknown,
)
from .classifier_config import load_classifier, plain_classifier
from .gather import gather_batch
from .label_rules import LabelRule, is_distribution, label_rule, merge_samples, stack_scores
from .pooling import pool_last, pooled_feature
from .sample_indices import sample_indices
from .weights import CheckedPretrained, load_weights

__all__ = [
    'CheckedPretrained',
    'LabelRule',
    'as_names',
    'class_names',
    'class_order',
    'common_classes',
    'config_class_names',
    'gather_batch',
    'is_distribution',
    'label_rule',
    'load_classifier',
    'load_weights',
    'merge_samples',
    'plain_classifier',
    'pool_last',
    'pooled_feature',
    'sample_indices',
    'say_unknown',
    'stack_scores',
]
