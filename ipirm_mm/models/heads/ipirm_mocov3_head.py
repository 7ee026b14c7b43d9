"""The head of MoCo v3 with the invariance penalty."""

from __future__ import annotations

from mmpretrain.registry import MODELS
from torch import Tensor

from ipirm_mm.functional import SubsetRisks

from .base_ipirm_head import TwoViews
from .base_predicting_head import BasePredictingHead


@MODELS.register_module()
class IPIRMMoCoV3Head(BasePredictingHead):
    r"""MoCo v3's loss of the batch and its subsets, with the invariance penalty.

    Neither the report nor Wang et al. build on MoCo v3. Here the risk of a subset is MoCo v3's
    loss with the subset as the batch: each prediction of one view against the targets of the
    momentum encoder of the other view, of the images of the subset. With *m* images and
    :math:`s_{ij} = \cos(p_i, t_j) / \tau`, where *j* is of the other view than *i*:

    .. math:: L_k = \frac{1}{2m} \sum_i \Big(\log \sum_j e^{s_{ij}} - s_{i+}\Big)

    The method's own loss is that of the whole batch. The total is multiplied by :math:`4 \tau`:
    MoCo v3 adds up two views, each with a factor of :math:`2 \tau` (``loss_weight`` in the configs
    of MMPretrain). The factor is outside the penalty, so ``irm_weight`` has the same meaning as
    with SimCLR. The arguments are those of :class:`BasePredictingHead`.
    """

    negatives = 'other_view'

    def base_loss(self, anchors: TwoViews, targets: TwoViews | None, risks: SubsetRisks) -> Tensor:
        """Return the risk of the whole batch; see :meth:`BaseIPIRMHead.base_loss`."""
        return risks.loss[0]

    def loss(
        self,
        anchors: TwoViews,
        targets: TwoViews | None,
        assignments: Tensor,
        num_subsets: int,
    ) -> dict[str, Tensor]:
        r"""Compute the loss, see :meth:`BasePredictingHead.loss`.

        Only ``loss`` has the factor :math:`4 \tau`, the other values for the log do not.
        """
        losses = super().loss(anchors, targets, assignments, num_subsets)
        return {**losses, 'loss': 4 * self.temperature * losses['loss']}
