"""Base of the distillation losses."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod

from mmengine.model import BaseModule
from torch import Tensor, nn

from ipirm_mm.errors import UserError
from ipirm_mm.options import check_not_negative, check_whole

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
        check_not_negative(f'{type(self).__name__}.loss_weight', loss_weight)
        self.loss_weight = loss_weight
        self.teacher = teacher

    def build(self, student: NetworkOutputs, teachers: list[NetworkOutputs]) -> None:
        """Build the layers whose shapes depend on the networks, and check that shapes match.

        Args:
            student: Outputs of the student for a dry run.
            teachers: Outputs of each teacher for a dry run.

        Raises:
            UserError: If student and teacher cannot be compared.
        """
        check_whole(f'{type(self).__name__}.teacher', self.teacher, 0, len(teachers) - 1)

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
