"""The teacher's accuracy, beside the student's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmpretrain.evaluation import Accuracy
from mmpretrain.registry import METRICS

from ipirm_mm.errors import UserError


@METRICS.register_module()
class TeacherAccuracy(Accuracy):
    """MMPretrain's ``Accuracy`` of what a ``DistillingClassifier``'s teachers predict.

    Needs ``predict_teacher=True`` in the model. Arguments are those of ``Accuracy``.
    """

    default_prefix = 'teacher'

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Process a batch of predictions."""
        for sample in data_samples:
            if 'teacher_score' not in sample:
                raise UserError(
                    'TeacherAccuracy needs what the teacher predicts: set '
                    'model.predict_teacher=True, or remove it from the evaluator'
                )
            self.results.append(
                dict(pred_score=sample['teacher_score'].cpu(), gt_label=sample['gt_label'].cpu())
            )
