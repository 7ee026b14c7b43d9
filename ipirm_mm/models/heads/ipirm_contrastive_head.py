"""The contrastive head with the invariance penalty, for SimCLR."""

from __future__ import annotations

from mmpretrain.registry import MODELS
from torch import Tensor

from ipirm_mm.functional import SubsetRisks

from .base_ipirm_head import BaseIPIRMHead, TwoViews


@MODELS.register_module()
class IPIRMContrastiveHead(BaseIPIRMHead):
    """SimCLR's contrastive loss of the batch and its subsets, with the invariance penalty.

    The risk of a subset is that of :func:`ipirm_mm.functional.subset_contrastive_risks` (report
    Eq. 1 and 2). The method's own loss is the risk of the whole batch. The arguments are those of
    :class:`BaseIPIRMHead`.
    """

    def base_loss(self, anchors: TwoViews, targets: TwoViews | None, risks: SubsetRisks) -> Tensor:
        """Return the risk of the whole batch; see :meth:`BaseIPIRMHead.base_loss`."""
        return risks.loss[0]
