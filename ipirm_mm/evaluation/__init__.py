"""Features, k-NN and linear probe; files of predictions, and ensembles of them."""

from .bootstrap import bootstrap_interval, format_interval
from .ensembles import disagreement, fit_weights
from .features import build_loader, extract_features
from .knn import knn_accuracy, knn_predict
from .linear_probe import LinearProbe
from .metrics import DumpPredictions, KNNAccuracy, TeacherAccuracy
from .predictions import (
    Predictions,
    check_disjoint,
    check_same_images,
    load_predictions,
    save_predictions,
    save_submission,
)

__all__ = [
    'DumpPredictions',
    'KNNAccuracy',
    'LinearProbe',
    'Predictions',
    'TeacherAccuracy',
    'bootstrap_interval',
    'build_loader',
    'check_disjoint',
    'check_same_images',
    'disagreement',
    'extract_features',
    'fit_weights',
    'format_interval',
    'knn_accuracy',
    'knn_predict',
    'load_predictions',
    'save_predictions',
    'save_submission',
]
