"""The IRM-penalised contrastive head."""

from __future__ import annotations

from mmpretrain.registry import MODELS
from torch import Tensor

from ipirm_mm.functional import SubsetRisks, group_contrastive_risks

from .base_ipirm_head import BaseIPIRMHead, Views


@MODELS.register_module()
class IPIRMContrastiveHead(BaseIPIRMHead):
    """SimCLR's contrastive loss over the batch and its subsets, with the invariance penalty.

    The risk of a subset is that of :func:`ipirm_mm.functional.subset_contrastive_risks`; the
    method's own loss is the risk of the batch. Arguments are those of :class:`BaseIPIRMHead`.
    """

    def risks(
        self, anchors: Views, targets: Views, groups: Tensor, num_groups: int
    ) -> SubsetRisks:
        """See :meth:`BaseIPIRMHead.risks`."""
        return group_contrastive_risks(
            *anchors,
            groups,
            num_groups,
            self.temperature,
            self.irm_temperature,
            self.penalty,
            targets=None if targets is anchors else targets,
        )

    def own_loss(self, anchors: Views, targets: Views, risks: SubsetRisks) -> Tensor:
        """The risk of the batch."""
        return risks.loss[0]
