"""Distillation of pooled features by a divergence."""

from __future__ import annotations

from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ipirm_mm.functional import kl_divergence
from ipirm_mm.options import check_positive

from .base import DistillationLoss
from .outputs import NetworkOutputs


@MODELS.register_module()
class FeatureKL(DistillationLoss):
    """Divergence of pooled features (report Table 4, row "KL loss, Feature").

    The features of student and teacher take the place of the logits in
    :func:`~ipirm_mm.functional.kl_divergence`. If their widths differ, a linear layer, the
    connector, projects the student's features to the teacher's width.

    Args:
        temperature: Temperature. Defaults to 1; the report gives none.
        loss_weight: Weight of the loss. Defaults to 1.
        teacher: Number of the teacher to compare with, counted from 0. Defaults to 0.

    Raises:
        UserError: If an option is out of range.
    """

    key = 'feature_kl'

    def __init__(
        self, temperature: float = 1.0, loss_weight: float = 1.0, teacher: int = 0
    ) -> None:
        super().__init__(loss_weight, teacher)
        check_positive('FeatureKL.temperature', temperature)
        self.temperature = temperature
        self.connector: nn.Module = nn.Identity()

    def build(self, student: NetworkOutputs, teachers: list[NetworkOutputs]) -> None:
        """Build the connector if widths differ; see the base class."""
        super().build(student, teachers)
        narrow, wide = student.feature.shape[1], teachers[self.teacher].feature.shape[1]
        if narrow != wide:
            self.connector = nn.Linear(narrow, wide)

    def forward(
        self,
        student: NetworkOutputs,
        teachers: list[NetworkOutputs],
        sample_idx: Tensor | None = None,
    ) -> Tensor:
        """Compute the divergence; see the base class."""
        mapped = self.connector(student.feature)
        return kl_divergence(mapped, teachers[self.teacher].feature, self.temperature)
