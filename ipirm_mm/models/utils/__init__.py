"""What several models share."""

from .classifier_config import load_classifier, plain_classifier
from .gather import gather_batch
from .head_logits import SCORE_KINDS, describe_output, head_logits, score_kind
from .input_shapes import candidate_channels, candidate_sizes, input_channels
from .pooling import pool_last, pooled_feature, run_wrapped_classifier
from .sample_indices import sample_indices
from .weights import CheckedPretrained, load_weights

__all__ = [
    'SCORE_KINDS',
    'CheckedPretrained',
    'candidate_channels',
    'candidate_sizes',
    'describe_output',
    'gather_batch',
    'head_logits',
    'input_channels',
    'load_classifier',
    'load_weights',
    'plain_classifier',
    'pool_last',
    'pooled_feature',
    'run_wrapped_classifier',
    'sample_indices',
    'score_kind',
]
