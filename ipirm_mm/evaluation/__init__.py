"""k-NN, linear probe and the features they work on; predictions, and ensembles of them."""

from .ensembles import disagreement, fit_weights
from .features import extract_features
from .knn import knn_accuracy, knn_predict
from .knn_metric import KNNAccuracy
from .linear_probe import LinearProbe, bootstrap_interval
from .predictions import (
    DumpPredictions,
    Predictions,
    check_apart,
    check_match,
    load_predictions,
    save_predictions,
    save_submission,
    write_whole,
)
from .progress import ProgressBar
from .teacher_accuracy import TeacherAccuracy

__all__ = [
    'DumpPredictions',
    'KNNAccuracy',
    'LinearProbe',
    'Predictions',
    'ProgressBar',
    'TeacherAccuracy',
    'bootstrap_interval',
    'check_apart',
    'check_match',
    'disagreement',
    'extract_features',
    'fit_weights',
    'knn_accuracy',
    'knn_predict',
    'load_predictions',
    'save_predictions',
    'save_submission',
    'write_whole',
]
