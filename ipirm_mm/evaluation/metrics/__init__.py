"""Metrics for the evaluators of a config, and the one that ``tools/test.py --out`` adds."""

from .disentanglement_metric import DisentanglementMetric
from .dump_predictions import DumpPredictions
from .knn_accuracy import KNNAccuracy
from .teacher_accuracy import TeacherAccuracy

__all__ = ['DisentanglementMetric', 'DumpPredictions', 'KNNAccuracy', 'TeacherAccuracy']
