"""The accuracy of the teacher, reported with the student's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmpretrain.evaluation import Accuracy
from mmpretrain.registry import METRICS

from ipirm_mm.errors import UserError


@METRICS.register_module()
class TeacherAccuracy(Accuracy):
    """MMPretrain's ``Accuracy`` of the predictions of a ``DistillingClassifier``'s teachers.

    Needs ``predict_teacher=True`` in the model. Takes the arguments of ``Accuracy``.
    """

    default_prefix = 'teacher'

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the teachers' scores of a batch.

        Args:
            data_batch: Not used.
            data_samples: The predictions, one ``dict`` per image.

        Raises:
            UserError: If the model does not predict with its teachers, or an image has several
                labels.
        """
        for sample in data_samples:
            if 'teacher_score' not in sample:
                raise UserError(
                    'TeacherAccuracy needs the predictions of the teacher: set '
                    'model.predict_teacher=True, or remove it from the evaluator'
                )
            if 'gt_label' not in sample:
                raise UserError(
                    'TeacherAccuracy needs one label per image, but the evaluated data set has '
                    'images without: remove it from the evaluator'
                )
            if sample['gt_label'].numel() != 1:
                raise UserError(
                    'TeacherAccuracy needs one label per image, but an image has '
                    f'{sample["gt_label"].tolist()}: remove it from the evaluator'
                )
            self.results.append(
                dict(pred_score=sample['teacher_score'].cpu(), gt_label=sample['gt_label'].cpu())
            )
