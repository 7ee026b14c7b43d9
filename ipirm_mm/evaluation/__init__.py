"""Features, k-NN, probes and disentanglement; files of predictions, and ensembles of them."""

from .bootstrap import bootstrap_interval, format_interval
from .disentanglement import DCI, IRS, Modularity, dci, explicitness, irs, modularity
from .disentanglement_scores import check_factors, disentanglement_scores, missing_factor
from .ensembles import disagreement, fit_weights
from .features import build_loader, extract_features, labels_as_of
from .knn import knn_accuracy, knn_predict
from .linear_probe import LinearProbe
from .matching import check_disjoint, check_same_images, map_classes, shared_images, split_root
from .metrics import DisentanglementMetric, DumpPredictions, KNNAccuracy, TeacherAccuracy
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
from .shifted_probe import shifted_probe, tied_rows
from .sparse_probe import SparseProbe

__all__ = [
    'DCI',
    'IRS',
    'NEED_LABELS',
    'DisentanglementMetric',
    'DumpPredictions',
    'KNNAccuracy',
    'LinearProbe',
    'ModelSource',
    'Modularity',
    'PredictionEvaluator',
    'Predictions',
    'SparseProbe',
    'TeacherAccuracy',
    'bootstrap_interval',
    'build_loader',
    'check_disjoint',
    'check_not_trained_on',
    'check_factors',
    'check_same_images',
    'dci',
    'disagreement',
    'disentanglement_scores',
    'explicitness',
    'extract_features',
    'fit_weights',
    'format_interval',
    'has_label',
    'irs',
    'is_path',
    'knn_accuracy',
    'knn_predict',
    'label_f1',
    'labels_as_of',
    'load_predictions',
    'map_classes',
    'missing_factor',
    'modularity',
    'save_predictions',
    'save_submission',
    'shared_images',
    'shifted_probe',
    'split_root',
    'tied_rows',
]
