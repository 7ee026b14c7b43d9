"""Features, k-NN and linear probe; files of predictions, and ensembles of them."""

from .bootstrap import bootstrap_interval, format_interval
from .ensembles import disagreement, fit_weights
from .features import build_loader, extract_features, labels_as_of
from .knn import knn_accuracy, knn_predict
from .linear_probe import LinearProbe
from .matching import check_disjoint, check_same_images, map_classes, shared_images, split_root
from .metrics import DumpPredictions, KNNAccuracy, TeacherAccuracy
from .model_source import ModelSource, check_not_trained_on
from .prediction_evaluator import NEED_LABELS, PredictionEvaluator, has_label
from .predictions import (
    Predictions,
    is_path,
    label_f1,
    load_predictions,
    save_predictions,
    save_submission,
)

__all__ = [
    'NEED_LABELS',
    'DumpPredictions',
    'KNNAccuracy',
    'LinearProbe',
    'ModelSource',
    'PredictionEvaluator',
    'Predictions',
    'TeacherAccuracy',
    'bootstrap_interval',
    'build_loader',
    'check_disjoint',
    'check_not_trained_on',
    'check_same_images',
    'disagreement',
    'extract_features',
    'fit_weights',
    'format_interval',
    'has_label',
    'is_path',
    'knn_accuracy',
    'knn_predict',
    'label_f1',
    'labels_as_of',
    'load_predictions',
    'map_classes',
    'save_predictions',
    'save_submission',
    'shared_images',
    'split_root',
]
