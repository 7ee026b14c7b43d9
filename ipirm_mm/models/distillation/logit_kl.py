"""Distillation of class probabilities."""

from __future__ import annotations

from mmpretrain.registry import MODELS
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.functional import kl_divergence, mean_teacher_logits

from .base import DistillationLoss, positive
from .outputs import NetworkOutputs


@MODELS.register_module()
class LogitKL(DistillationLoss):
    """Divergence of class probabilities (report Eq. 4; Table 4, row "KL loss, Logits").

    The loss is :func:`~ipirm_mm.functional.kl_divergence`. With several teachers, the target is
    the mean of their probabilities.

    Args:
        temperature: Temperature. Defaults to 1; the report gives none.
        loss_weight: Weight of the loss. Defaults to 1.

    Raises:
        UserError: If an option is out of range, or a teacher has no classifier or other classes.
    """

    key = 'kl'

    def __init__(self, temperature: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        self.temperature = positive(self, 'temperature', temperature)

    def build(self, student: NetworkOutputs, teachers: list[NetworkOutputs]) -> None:
        """Check that all teachers have the student's classes; see the base class."""
        assert student.logits is not None
        for number, teacher in enumerate(teachers):
            if teacher.logits is None:
                raise UserError(
                    f'LogitKL needs classes, but teacher {number} is an encoder without a '
                    'classifier: fine-tune it first, or use FeatureKL, OFD or CRD'
                )
            if teacher.logits.shape != student.logits.shape:
                raise UserError(
                    f'teacher {number} has {teacher.logits.shape[1]} classes, but the student '
                    f'{student.logits.shape[1]}: LogitKL needs the same classes'
                )

    def forward(
        self,
        student: NetworkOutputs,
        teachers: list[NetworkOutputs],
        sample_idx: Tensor | None = None,
    ) -> Tensor:
        """Compute the divergence; see the base class."""
        logits = [teacher.logits for teacher in teachers if teacher.logits is not None]
        assert student.logits is not None
        return kl_divergence(
            student.logits, mean_teacher_logits(logits, self.temperature), self.temperature
        )
