"""Base of the distillation losses."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod

from mmengine.model import BaseModule
from torch import Tensor, nn

from ipirm_mm.errors import UserError

from .outputs import NetworkOutputs


class DistillationLoss(BaseModule, metaclass=ABCMeta):
    """Base of the distillation losses of a ``DistillingClassifier`` (report Eq. 5).

    Args:
        loss_weight: Weight of the loss, beta in report Eq. 5. Defaults to 1.
        teacher: Number of the teacher to compare with, counted from 0. Defaults to 0.

    Raises:
        UserError: If an option is out of range.
    """

    # Name in the log: loss_<key>.
    key = ''
    # Whether the loss needs `NetworkOutputs.stages`.
    reads_stages = False
    # Whether the loss works with mixed images (Mixup, CutMix), whose labels are mixed too.
    allows_mixing = True
    # What it does instead, for the message that refuses them.
    why_no_mixing = 'compares whole images'
    # Whether the loss needs `NetworkOutputs.labels` of the student.
    reads_labels = False
    # Whether class c of the student is compared with class c of every teacher.
    compares_classes = False

    def __init__(self, loss_weight: float = 1.0, teacher: int = 0) -> None:
        super().__init__()
        self.loss_weight = not_negative(self, 'loss_weight', loss_weight)
        self.teacher = teacher

    def build(self, student: NetworkOutputs, teachers: list[NetworkOutputs]) -> None:
        """Build the layers whose shapes depend on the networks, and check that shapes match.

        Args:
            student: Outputs of the student for a dry run.
            teachers: Outputs of each teacher for a dry run.

        Raises:
            UserError: If student and teacher cannot be compared.
        """
        if not 0 <= self.teacher < len(teachers):
            raise UserError(
                f'{type(self).__name__}.teacher must be from 0 to {len(teachers) - 1}, but is '
                f'{self.teacher}'
            )

    def teacher_loaded(self, teacher: nn.Module) -> None:
        """Read what the loss needs from its teacher's weights, once they are loaded.

        Args:
            teacher: The network of the teacher.
        """

    def compared(self, student: NetworkOutputs) -> dict[str, Tensor]:
        """Name what the loss compares of the student, to check that a gradient arrives there.

        Args:
            student: Outputs of the student.

        Returns:
            Tensors by name. Defaults to the pooled feature.
        """
        return {'pooled feature': student.feature}

    def check_reach(self, student: NetworkOutputs) -> None:
        """Check that the gradient of the loss reaches weights of the student.

        Args:
            student: Outputs of the student in a training step.

        Raises:
            UserError: If it cannot.
        """
        compared = self.compared(student)
        if not any(tensor.requires_grad for tensor in compared.values()):
            raise UserError(
                f"{type(self).__name__} cannot reach the student's weights: no gradient passes "
                f'its {", ".join(compared)}, since every layer before is frozen or runs without '
                'gradient. Unfreeze some (backbone.frozen_stages, requires_grad), or remove the '
                'loss'
            )

    @abstractmethod
    def forward(
        self, student: NetworkOutputs, teachers: list[NetworkOutputs], sample_idx: Tensor | None
    ) -> Tensor:
        """Compute the loss of a batch.

        Args:
            student: Outputs of the student.
            teachers: Outputs of each teacher, without gradient.
            sample_idx: Indices of the images in the training set, ``(N,)`` long; None if unknown.

        Returns:
            Scalar, not multiplied by ``loss_weight``.
        """


def positive(loss: DistillationLoss, name: str, value: float) -> float:
    """Check that an option of a loss is positive.

    Args:
        loss: The loss, for the message.
        name: Name of the option.
        value: Value of the option.

    Returns:
        The value.

    Raises:
        UserError: If it is not positive.
    """
    if not value > 0:
        raise UserError(f'{type(loss).__name__}.{name} must be positive, but is {value}')
    return value


def not_negative(loss: DistillationLoss, name: str, value: float) -> float:
    """Check that an option of a loss is not negative.

    Args:
        loss: The loss, for the message.
        name: Name of the option.
        value: Value of the option.

    Returns:
        The value.

    Raises:
        UserError: If it is negative.
    """
    if not value >= 0:
        raise UserError(f'{type(loss).__name__}.{name} must not be negative, but is {value}')
    return value
