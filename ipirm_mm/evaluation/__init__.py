"""Features, probes and disentanglement; files of predictions, and ensembles of them."""

from .augmentation_response import (
    augmentation_response,
    mean_difference,
    probe_parts,
    random_parts,
    split_dimensions,
)
from .bootstrap import bootstrap_interval, format_interval
from .disentanglement import DCI, IRS, Modularity, dci, explicitness, irs, modularity
from .disentanglement_scores import check_factors, disentanglement_scores, missing_factor
from .encoders import EncoderFiles, encoder_files, load_encoder
from .ensembles import disagreement, fit_weights
from .features import build_loader, extract_features, labels_as_of
from .filter_clusters import ChosenFilters, choose_filters
from .guided_backprop import (
    GuidedReLUs,
    evaluation_mode,
    filter_maps,
    guided_backpropagation,
)
from .knn import knn_accuracy, knn_predict
from .layers import find_layers, last_stages
from .linear_probe import LinearProbe
from .matching import check_disjoint, check_same_images, map_classes, shared_images, split_root
from .measured_response import MeasuredResponse, image_numbers, measure_response, part_of_loader
from .metrics import DisentanglementMetric, DumpPredictions, KNNAccuracy, TeacherAccuracy
from .model_source import ModelSource, check_not_trained_on, saved_setting
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
    'ChosenFilters',
    'DumpPredictions',
    'EncoderFiles',
    'GuidedReLUs',
    'KNNAccuracy',
    'LinearProbe',
    'ModelSource',
    'Modularity',
    'MeasuredResponse',
    'PredictionEvaluator',
    'Predictions',
    'SparseProbe',
    'TeacherAccuracy',
    'augmentation_response',
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
    'choose_filters',
    'encoder_files',
    'evaluation_mode',
    'extract_features',
    'filter_maps',
    'find_layers',
    'fit_weights',
    'format_interval',
    'guided_backpropagation',
    'has_label',
    'irs',
    'image_numbers',
    'is_path',
    'knn_accuracy',
    'knn_predict',
    'label_f1',
    'labels_as_of',
    'last_stages',
    'load_encoder',
    'load_predictions',
    'map_classes',
    'missing_factor',
    'modularity',
    'save_predictions',
    'save_submission',
    'saved_setting',
    'shared_images',
    'shifted_probe',
    'mean_difference',
    'measure_response',
    'part_of_loader',
    'probe_parts',
    'random_parts',
    'split_dimensions',
    'split_root',
    'tied_rows',
]
