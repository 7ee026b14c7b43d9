"""k-NN, linear probe, and the features they work on."""

from .features import extract_features, pool_last, pooled_feature
from .knn import knn_accuracy, knn_predict
from .knn_metric import KNNAccuracy
from .linear_probe import LinearProbe, bootstrap_interval
from .progress import ProgressBar
from .teacher_accuracy import TeacherAccuracy

__all__ = [
    'KNNAccuracy',
    'LinearProbe',
    'ProgressBar',
    'TeacherAccuracy',
    'bootstrap_interval',
    'extract_features',
    'knn_accuracy',
    'knn_predict',
    'pool_last',
    'pooled_feature',
]
