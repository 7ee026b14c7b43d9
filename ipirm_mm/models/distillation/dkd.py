"""Decoupled distillation of class probabilities."""

from __future__ import annotations

from mmpretrain.registry import MODELS
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.functional import dkd_loss, mean_teacher_logits
from ipirm_mm.options import check_not_negative, check_positive

from .logit_loss import SoftmaxLoss, teacher_logits
from .outputs import NetworkOutputs


@MODELS.register_module()
class DKD(SoftmaxLoss):
    """Decoupled knowledge distillation (Zhao et al., 2022). An addition; the report has none.

    The loss is :func:`~ipirm_mm.functional.dkd_loss`. It needs the class of each image, so images
    must not be mixed (Mixup, CutMix), nor have several labels or weights of classes. Label
    smoothing of the head is no obstacle. With several teachers, the target is the mean of their
    probabilities. Their warm-up of the loss is left out.

    Args:
        alpha: Weight of the divergence of the class against the rest (TCKD). Defaults to 1.
        beta: Weight of the divergence within the rest (NCKD). Defaults to 8, as Zhao et al. have
            for CIFAR-100; for ImageNet they have 0.5.
        temperature: Temperature. Defaults to 4, as they have for CIFAR-100; for ImageNet they have
            1.
        loss_weight: Weight of the loss. Defaults to 1.

    Raises:
        UserError: If an option is out of range, a network has no classifier with softmax, the
            classes differ or there is one only, or an image of a batch does not have one class.
    """

    key = 'dkd'
    allows_mixing = False
    why_no_mixing = 'needs the class of each image'
    reads_labels = True

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(loss_weight)
        check_not_negative('DKD.alpha', alpha)
        self.alpha = alpha
        check_not_negative('DKD.beta', beta)
        self.beta = beta
        check_positive('DKD.temperature', temperature)
        self.temperature = temperature

    def build(self, student: NetworkOutputs, teachers: list[NetworkOutputs]) -> None:
        """Check that there are at least two classes; see the base class."""
        super().build(student, teachers)
        assert student.logits is not None
        if student.logits.shape[1] < 2:
            raise UserError(
                'DKD compares the class of an image with the others, but the student has one '
                'class: set model.head.num_classes to at least 2'
            )

    def forward(
        self,
        student: NetworkOutputs,
        teachers: list[NetworkOutputs],
        sample_idx: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss; see the base class."""
        assert student.logits is not None
        if student.labels is None:
            raise UserError(
                'DKD needs the class of each image, but an image of the batch has no gt_label of '
                'one class, or a gt_score: use labels of one class per image, or LogitKL'
            )
        target = mean_teacher_logits(teacher_logits(teachers), self.temperature)
        return dkd_loss(
            student.logits, target, student.labels, self.alpha, self.beta, self.temperature
        )
