"""Bases of the distillation losses that compare logits."""

from __future__ import annotations

from torch import Tensor

from ipirm_mm.errors import UserError

from .base import DistillationLoss
from .outputs import NetworkOutputs


class LogitLoss(DistillationLoss):
    """Base of the losses that compare the logits of the classes.

    They compare all teachers together, so ``teacher`` of the base class has no meaning for them.

    Args:
        loss_weight: Weight of the loss. Defaults to 1.

    Raises:
        UserError: If an option is out of range.
    """

    compares_classes = True

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)

    def build(self, student: NetworkOutputs, teachers: list[NetworkOutputs]) -> None:
        """Check that all teachers have the student's classes; see the base class."""
        name = type(self).__name__
        if student.logits is None:
            raise UserError(
                f'{name} needs classes, but the student {student.no_logits}: use FeatureKL, OFD '
                'or CRD'
            )
        for number, teacher in enumerate(teachers):
            if teacher.logits is None:
                mend = 'fine-tune it first, or use' if 'encoder' in teacher.no_logits else 'use'
                raise UserError(
                    f'{name} needs classes, but teacher {number} {teacher.no_logits}: {mend} '
                    'FeatureKL, OFD or CRD'
                )
            if teacher.logits.shape != student.logits.shape:
                raise UserError(
                    f'teacher {number} has {teacher.logits.shape[1]} classes, but the student '
                    f'{student.logits.shape[1]}: {name} needs the same classes'
                )

    def compared(self, student: NetworkOutputs) -> dict[str, Tensor]:
        """Name the logits; see the base class."""
        assert student.logits is not None
        return {'logits': student.logits}


class SoftmaxLoss(LogitLoss):
    """Base of the losses that compare probabilities of one class per image, by a softmax."""

    def build(self, student: NetworkOutputs, teachers: list[NetworkOutputs]) -> None:
        """Check that student and teachers score their logits by softmax; see the base class."""
        super().build(student, teachers)
        names = ['the student', *(f'teacher {number}' for number in range(len(teachers)))]
        for name, outputs in zip(names, (student, *teachers)):
            if outputs.kind != 'softmax':
                raise UserError(
                    f'{type(self).__name__} compares probabilities of one label per image, by '
                    f'softmax, but {name} scores its logits by {describe_kind(outputs.kind)}: use '
                    'LogitKL, or heads with softmax'
                )


def teacher_logits(teachers: list[NetworkOutputs]) -> list[Tensor]:
    """Get the logits of the teachers, all of which have some after :meth:`LogitLoss.build`.

    Args:
        teachers: Outputs of each teacher.

    Returns:
        ``(N, C)`` of each.
    """
    return [teacher.logits for teacher in teachers if teacher.logits is not None]


def describe_kind(kind: str | None) -> str:
    """Say how logits become scores.

    Args:
        kind: As in :class:`NetworkOutputs`.

    Returns:
        For a message, after "by".
    """
    labels = {'softmax': 'softmax (one label per image)', 'sigmoid': 'sigmoid (several labels)'}
    return labels[kind] if kind else 'neither softmax nor sigmoid'
