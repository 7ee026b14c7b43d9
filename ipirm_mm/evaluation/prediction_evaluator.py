"""The evaluator of ``tools/test.py``: scores in the order of the data set's classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import DumpResults, Evaluator
from mmengine.logging import print_log
from mmpretrain.evaluation import (
    Accuracy,
    AveragePrecision,
    ConfusionMatrix,
    MultiLabelMetric,
    SingleLabelMetric,
)
from torch import Tensor

from ipirm_mm.errors import UserError

from .metrics import KNNAccuracy

NEED_LABELS = (
    Accuracy,
    AveragePrecision,
    ConfusionMatrix,
    KNNAccuracy,
    MultiLabelMetric,
    SingleLabelMetric,
)


class PredictionEvaluator(Evaluator):
    """MMEngine's ``Evaluator`` for a classifier and a data set that do not quite match.

    Scores are put into the order of the data set's classes. Metrics that need labels are set
    aside, with one line, where the data set has none.

    Args:
        metrics: The metrics.
        order: Where each class of the data set is among the classes of the classifier,
            ``(C,)`` long. Defaults to None: the order is the same.
    """

    def __init__(self, metrics: Any, order: Tensor | None = None) -> None:
        super().__init__(metrics)
        self.order = order

    def set_aside(self, metric: Any) -> None:
        """Leave out a metric that needs labels, and say so."""
        self.metrics.remove(metric)
        print_log(
            f'the test set has no labels: {type(metric).__name__} is not computed',
            logger='current',
        )

    def process(self, data_samples: Sequence[Any], data_batch: Any = None) -> None:
        """Hand the predictions of a batch to the metrics.

        Args:
            data_samples: The predictions, and the labels of the images. They are changed in place
                if the order of the classes is another.
            data_batch: The batch. Defaults to None.

        Raises:
            UserError: If some images have labels, and others none.
        """
        for sample in data_samples:
            self._reorder(sample)
        records = [s if isinstance(s, dict) else s.to_dict() for s in data_samples]
        labeled = [has_label(record) for record in records]
        if any(labeled) and not all(labeled):
            where = records[labeled.index(False)].get('img_path', 'one without a path')
            raise UserError(
                f'{labeled.count(False)} of {len(labeled)} images of a batch have no label, such '
                f'as {where}: give all images of the test set labels, or none'
            )
        for metric in list(self.metrics):
            try:
                metric.process(data_batch, records)
            except Exception:
                if labeled[0] or isinstance(metric, DumpResults):
                    raise
                self.set_aside(metric)

    def evaluate(self, size: int) -> dict:
        """Compute the metrics, as MMEngine's evaluator does; files are written first.

        Args:
            size: Number of images of the data set.

        Returns:
            The metrics.
        """
        self.metrics.sort(key=lambda metric: not isinstance(metric, DumpResults))
        return super().evaluate(size)

    def _reorder(self, sample: Any) -> None:
        """Put the scores and labels that are predicted into the order of the data set."""
        if self.order is None:
            return
        for key in ('pred_score', 'teacher_score'):
            if key in sample:
                score = sample.get(key)
                _set(sample, key, score[self.order.to(score.device)])
        if 'pred_label' in sample:
            label = sample.get('pred_label')
            _set(sample, 'pred_label', self.order.argsort().to(label.device)[label])


def _set(sample: Any, key: str, value: Tensor) -> None:
    if isinstance(sample, dict):
        sample[key] = value
    else:
        sample.set_field(value, key)


def has_label(record: dict) -> bool:
    """Whether a record of an image has a label, or several, or soft ones.

    Args:
        record: Record of a data set, or of a sample.
    """
    return any(record.get(key) is not None for key in ('gt_label', 'gt_score'))
