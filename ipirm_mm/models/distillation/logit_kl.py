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

from ..utils import SCORE_KINDS
from .base import DistillationLoss, positive
from .outputs import NetworkOutputs


@MODELS.register_module()
class LogitKL(DistillationLoss):
    """Divergence of class probabilities (report Eq. 4; Table 4, row "KL loss, Logits").

    The loss is :func:`~ipirm_mm.functional.kl_divergence`; of several labels per image,
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
    compares_classes = True

    def __init__(
        self, temperature: float = 1.0, loss_weight: float = 1.0, kind: str | None = None
    ) -> None:
        super().__init__(loss_weight)
        self.temperature = positive(self, 'temperature', temperature)
        if kind is not None and kind not in SCORE_KINDS:
            raise UserError(f'LogitKL.kind must be one of {SCORE_KINDS} or None, but is {kind!r}')
        self.kind = kind

    def build(self, student: NetworkOutputs, teachers: list[NetworkOutputs]) -> None:
        """Check that all teachers have the student's classes; see the base class."""
        if student.logits is None:
            raise UserError(
                f'LogitKL needs classes, but the student {student.no_logits}: use FeatureKL, OFD '
                'or CRD'
            )
        for number, teacher in enumerate(teachers):
            if teacher.logits is None:
                mend = 'fine-tune it first, or use' if 'encoder' in teacher.no_logits else 'use'
                raise UserError(
                    f'LogitKL needs classes, but teacher {number} {teacher.no_logits}: {mend} '
                    'FeatureKL, OFD or CRD'
                )
            if teacher.logits.shape != student.logits.shape:
                raise UserError(
                    f'teacher {number} has {teacher.logits.shape[1]} classes, but the student '
                    f'{student.logits.shape[1]}: LogitKL needs the same classes'
                )
        if self.kind is None:
            self.kind = self._common_kind(student, teachers)

    def _common_kind(self, student: NetworkOutputs, teachers: list[NetworkOutputs]) -> str:
        """How the heads of student and teachers turn logits into scores."""
        for number, teacher in enumerate(teachers):
            if teacher.kind != student.kind:
                raise UserError(
                    f'the student scores its logits by {_describe(student.kind)}, but teacher '
                    f"{number} by {_describe(teacher.kind)}: set LogitKL.kind to 'softmax' or "
                    "'sigmoid', or use heads of one kind"
                )
        if student.kind is None:
            raise UserError(
                "the student's head scores its logits neither by softmax nor by sigmoid: set "
                "LogitKL.kind to 'softmax' or 'sigmoid'"
            )
        return student.kind

    def compared(self, student: NetworkOutputs) -> dict[str, Tensor]:
        """Name the logits; see the base class."""
        assert student.logits is not None
        return {'logits': student.logits}

    def forward(
        self,
        student: NetworkOutputs,
        teachers: list[NetworkOutputs],
        sample_idx: Tensor | None = None,
    ) -> Tensor:
        """Compute the divergence; see the base class."""
        logits = [teacher.logits for teacher in teachers if teacher.logits is not None]
        assert student.logits is not None
        if self.kind == 'sigmoid':
            target = mean_teacher_binary_logits(logits, self.temperature)
            return binary_kl_divergence(student.logits, target, self.temperature)
        return kl_divergence(
            student.logits, mean_teacher_logits(logits, self.temperature), self.temperature
        )


def _describe(kind: str | None) -> str:
    """Say how logits become scores."""
    labels = {'softmax': 'softmax (one label per image)', 'sigmoid': 'sigmoid (several labels)'}
    return labels[kind] if kind else 'neither softmax nor sigmoid'
