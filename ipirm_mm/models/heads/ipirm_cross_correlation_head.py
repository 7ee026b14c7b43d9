"""The head of Barlow Twins with the invariance penalty."""

from __future__ import annotations

from typing import Any

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ipirm_mm.functional import SubsetRisks, unit_rows
from ipirm_mm.functional._common import at_least_float32

from .base_ipirm_head import BaseIPIRMHead, TwoViews


@MODELS.register_module()
class IPIRMCrossCorrelationHead(BaseIPIRMHead):
    """Barlow Twins' loss of the batch, and risks of its subsets with the invariance penalty.

    Neither the report nor Wang et al. build on Barlow Twins. For the whole batch the loss is that
    of MMPretrain's ``LatentCrossCorrelationHead``. The choice here for the subsets is the
    contrastive risk of :func:`ipirm_mm.functional.subset_contrastive_risks` on the projections in
    unit rows: a subset often has far fewer images than the projections have entries, too few to
    estimate a cross-correlation. Unlike Barlow Twins, this risk has negatives:
    ``penalize_batch=True`` without partitions is the control for their effect.

    Unlike other heads it takes the projections as they are. The batch normalization before the
    cross-correlation is over the (global) batch. With several processes this is the loss of one
    process; that of MMPretrain has the statistics of each process apart.

    Args:
        in_channels: Width *D* of the projections.
        loss: Config of the loss of a cross-correlation matrix. Defaults to MMPretrain's
            ``CrossCorrelationLoss``.
        **kwargs: Arguments of :class:`BaseIPIRMHead`.

    Raises:
        UserError: If an option has a value that is unknown or out of range.
    """

    risk_equals_base_loss = False

    def __init__(self, in_channels: int, loss: dict | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bn = nn.BatchNorm1d(in_channels, affine=False)
        self.loss_module = MODELS.build(loss or dict(type='CrossCorrelationLoss'))

    def risks(
        self, anchors: TwoViews, targets: TwoViews | None, subset_ids: Tensor, num_subsets: int
    ) -> SubsetRisks:
        """Compute contrastive risks of the unit rows; see :meth:`BaseIPIRMHead.risks`."""
        z1, z2 = anchors
        return super().risks((unit_rows(z1), unit_rows(z2)), targets, subset_ids, num_subsets)

    def base_loss(self, anchors: TwoViews, targets: TwoViews | None, risks: SubsetRisks) -> Tensor:
        """Compute the loss of the cross-correlation of the views, in at least float32."""
        with torch.autocast(device_type=anchors[0].device.type, enabled=False):
            z1, z2 = (self.bn(at_least_float32(view)) for view in anchors)
            return self.loss_module(z1.T @ z2 / len(z1))
