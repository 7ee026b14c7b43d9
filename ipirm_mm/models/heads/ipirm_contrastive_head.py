"""The contrastive head with the invariance penalty, for SimCLR."""

from __future__ import annotations

from mmpretrain.registry import MODELS
from torch import Tensor

from ipirm_mm.functional import SubsetRisks, contrastive_risks

from .base_ipirm_head import BaseIPIRMHead, TwoViews


@MODELS.register_module()
class IPIRMContrastiveHead(BaseIPIRMHead):
    """SimCLR's contrastive loss of the batch and its subsets, with the invariance penalty.

    The risk of a subset is that of :func:`ipirm_mm.functional.subset_contrastive_risks` (report
    Eq. 1 and 2). The method's own loss is the risk of the whole batch. The arguments are those of
    :class:`BaseIPIRMHead`.
    """

    def risks(
        self, anchors: TwoViews, targets: TwoViews | None, subset_ids: Tensor, num_subsets: int
    ) -> SubsetRisks:
        """Compute contrastive risks and penalties; see :meth:`BaseIPIRMHead.risks`."""
        return contrastive_risks(
            *anchors,
            subset_ids,
            num_subsets,
            self.temperature,
            self.irm_temperature,
            self.current_penalty,
            targets=targets,
        )

    def base_loss(self, anchors: TwoViews, targets: TwoViews | None, risks: SubsetRisks) -> Tensor:
        """Return the risk of the whole batch; see :meth:`BaseIPIRMHead.base_loss`."""
        return risks.loss[0]
