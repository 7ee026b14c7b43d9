"""What several models share."""

from .classes import (
    as_names,
    class_names,
    class_order,
    common_classes,
    config_class_names,
    dataset_class_names,
    say_unknown,
)
from .classifier_config import load_classifier, plain_classifier, student_alone
from .gather import gather_batch, own_rows
from .head_logits import SCORE_KINDS, describe_output, head_logits, score_kind
from .input_shapes import candidate_channels, candidate_sizes, input_channels
from .label_rules import (
    LabelRule,
    is_distribution,
    label_rule,
    merge_samples,
    single_labels,
    stack_scores,
    wrong_labels,
)
from .momentum_encoder import MomentumEncoder
from .pooling import pool_last, pooled_feature, run_wrapped_classifier, whole_images
from .publishing import published_checkpoint, published_config
from .sample_indices import sample_indices
from .weights import (
    CheckedPretrained,
    load_state,
    load_weights,
    plain_state,
    refuse_non_finite,
    unwrapped_state,
)

__all__ = [
    'SCORE_KINDS',
    'CheckedPretrained',
    'LabelRule',
    'MomentumEncoder',
    'as_names',
    'candidate_channels',
    'candidate_sizes',
    'class_names',
    'class_order',
    'common_classes',
    'config_class_names',
    'dataset_class_names',
    'describe_output',
    'gather_batch',
    'head_logits',
    'input_channels',
    'is_distribution',
    'label_rule',
    'load_classifier',
    'load_state',
    'load_weights',
    'merge_samples',
    'own_rows',
    'plain_classifier',
    'plain_state',
    'published_checkpoint',
    'published_config',
    'refuse_non_finite',
    'pool_last',
    'pooled_feature',
    'run_wrapped_classifier',
    'sample_indices',
    'say_unknown',
    'score_kind',
    'stack_scores',
    'student_alone',
    'unwrapped_state',
    'single_labels',
    'whole_images',
    'wrong_labels',
]
