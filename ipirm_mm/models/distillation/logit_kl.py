"""Distillation of class probabilities."""

from __future__ import annotations

from mmpretrain.registry import MODELS
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.functional import (
    binary_kl_divergence,
    kl_divergence,
    mean_teacher_binary_logits,
    mean_teacher_logits,
)
from ipirm_mm.options import check_one_of, check_positive

from ..utils import SCORE_KINDS
from .logit_loss import LogitLoss, describe_kind, teacher_logits
from .outputs import NetworkOutputs


@MODELS.register_module()
class LogitKL(LogitLoss):
    r"""Divergence of class probabilities (report Eq. 4; Table 4, row "KL loss, Logits").

    The loss is :func:`~ipirm_mm.functional.kl_divergence`, of the teacher to the student,
    :math:`KL(p^t \| p^s)`, times the square of the temperature; of several labels per image,
    :func:`~ipirm_mm.functional.binary_kl_divergence`. With several teachers, the target is the
    mean of their probabilities. Heads with a margin (ArcFace) are compared without it.

    Args:
        temperature: Temperature. Defaults to 1; the report gives none.
        loss_weight: Weight of the loss. Defaults to 1.
        kind: ``'softmax'`` (one label per image) or ``'sigmoid'`` (several labels). Defaults to
            None: as the heads of student and teachers turn logits into scores.

    Raises:
        UserError: If an option is out of range, or a teacher has no classifier or other classes.
    """

    key = 'kl'

    def __init__(
        self, temperature: float = 1.0, loss_weight: float = 1.0, kind: str | None = None
    ) -> None:
        super().__init__(loss_weight)
        check_positive('LogitKL.temperature', temperature)
        self.temperature = temperature
        check_one_of('LogitKL.kind', kind, (*SCORE_KINDS, None))
        self.kind = kind

    def build(self, student: NetworkOutputs, teachers: list[NetworkOutputs]) -> None:
        """Check that all teachers have the student's classes; see the base class."""
        super().build(student, teachers)
        if self.kind is None:
            self.kind = self._common_kind(student, teachers)

    def _common_kind(self, student: NetworkOutputs, teachers: list[NetworkOutputs]) -> str:
        """How the heads of student and teachers turn logits into scores."""
        for number, teacher in enumerate(teachers):
            if teacher.kind != student.kind:
                raise UserError(
                    f'the student scores its logits by {describe_kind(student.kind)}, but teacher '
                    f"{number} by {describe_kind(teacher.kind)}: set LogitKL.kind to 'softmax' or "
                    "'sigmoid', or use heads of one kind"
                )
        if student.kind is None:
            raise UserError(
                "the student's head scores its logits neither by softmax nor by sigmoid: set "
                "LogitKL.kind to 'softmax' or 'sigmoid'"
            )
        return student.kind

    def forward(
        self,
        student: NetworkOutputs,
        teachers: list[NetworkOutputs],
        sample_idx: Tensor | None = None,
    ) -> Tensor:
        """Compute the divergence; see the base class."""
        assert student.logits is not None
        if self.kind == 'sigmoid':
            target = mean_teacher_binary_logits(teacher_logits(teachers), self.temperature)
            return binary_kl_divergence(student.logits, target, self.temperature)
        target = mean_teacher_logits(teacher_logits(teachers), self.temperature)
        return kl_divergence(student.logits, target, self.temperature)
