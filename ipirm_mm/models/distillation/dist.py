"""Distillation of correlations of class probabilities."""

from __future__ import annotations

from mmpretrain.registry import MODELS
from torch import Tensor

from ipirm_mm.functional import dist_loss, mean_teacher_logits
from ipirm_mm.options import check_not_negative, check_positive

from ..utils import gather_batch
from .logit_loss import SoftmaxLoss, teacher_logits
from .outputs import NetworkOutputs


@MODELS.register_module()
class DIST(SoftmaxLoss):
    """Distillation of correlations (Huang et al., 2022). An addition; the report has none.

    The loss is :func:`~ipirm_mm.functional.dist_loss`. Classes are correlated over the images of
    the batch: in distributed training over those of all GPUs, so that the loss is that of one
    process. (The code of Huang et al. takes the images of each GPU.) With several teachers, the
    target is the mean of their probabilities. The defaults are those of the code of Huang et al.

    Args:
        beta: Weight of the correlation of the classes of an image. Defaults to 1.
        gamma: Weight of the correlation of the images of a class. Defaults to 1.
        temperature: Temperature. Defaults to 1.
        loss_weight: Weight of the loss. Defaults to 1.

    Raises:
        UserError: If an option is out of range, a network has no classifier with softmax, or the
            classes differ.
    """

    key = 'dist'

    def __init__(
        self,
        beta: float = 1.0,
        gamma: float = 1.0,
        temperature: float = 1.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(loss_weight)
        check_not_negative('DIST.beta', beta)
        self.beta = beta
        check_not_negative('DIST.gamma', gamma)
        self.gamma = gamma
        check_positive('DIST.temperature', temperature)
        self.temperature = temperature

    def forward(
        self,
        student: NetworkOutputs,
        teachers: list[NetworkOutputs],
        sample_idx: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of the batch of all ranks; see the base class."""
        assert student.logits is not None
        target = mean_teacher_logits(teacher_logits(teachers), self.temperature)
        return dist_loss(
            gather_batch(student.logits),
            gather_batch(target),
            self.beta,
            self.gamma,
            self.temperature,
        )
