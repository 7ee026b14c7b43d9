"""The latent head with the invariance penalty, for SimSiam and BYOL."""

from __future__ import annotations

from typing import Any

from mmpretrain.registry import MODELS
from torch import Tensor

from ipirm_mm.functional import SubsetRisks, cosine_risks
from ipirm_mm.options import check_one_of

from .base_ipirm_head import TwoViews
from .base_predicting_head import BasePredictingHead

SIMILARITIES = ('contrast', 'cosine')


@MODELS.register_module()
class IPIRMLatentHead(BasePredictingHead):
    r"""SimSiam's loss of the batch, and risks of its subsets with the invariance penalty.

    The report builds IP-IRM on SimSiam without an equation, and the code of Wang et al. has no
    SimSiam. For the whole batch the loss is SimSiam's, :math:`-\cos(p_i, t_i)`, of the predictions
    *p* and the targets *t* of the other view: the projections in SimSiam, those of the momentum
    encoder in BYOL. In the subsets of the partitions:

    * ``similarity='contrast'`` (default): the contrastive risk of
      :func:`ipirm_mm.functional.subset_contrastive_risks` with logits
      :math:`s_{ij} = \cos(p_i, t_j) / \tau` and anchors of both views. Unlike SimSiam, it has
      negatives: ``penalize_batch=True`` without partitions is the control for their effect.
    * ``similarity='cosine'``: the risk of :func:`ipirm_mm.functional.cosine_risks`, without
      temperature or negatives.

    Args:
        predictor: Config of the predictor, as in MMPretrain's ``LatentPredictHead``.
        similarity: ``'contrast'`` or ``'cosine'``. Defaults to ``'contrast'``.
        **kwargs: Arguments of :class:`BaseIPIRMHead`.

    Raises:
        UserError: If an option has a value that is unknown or out of range.
    """

    def __init__(self, predictor: dict, similarity: str = 'contrast', **kwargs: Any) -> None:
        check_one_of('model.head.similarity', similarity, SIMILARITIES)
        super().__init__(predictor, **kwargs)
        self.similarity = similarity
        self.risk_equals_base_loss = similarity == 'cosine'

    def risks(
        self, anchors: TwoViews, targets: TwoViews | None, subset_ids: Tensor, num_subsets: int
    ) -> SubsetRisks:
        """Compute risks and penalties by ``similarity``; see :meth:`BaseIPIRMHead.risks`."""
        if self.similarity == 'contrast':
            return super().risks(anchors, targets, subset_ids, num_subsets)
        assert targets is not None
        return cosine_risks(anchors, targets, subset_ids, num_subsets)

    def base_loss(self, anchors: TwoViews, targets: TwoViews | None, risks: SubsetRisks) -> Tensor:
        """Compute SimSiam's loss: minus the mean cosine of predictions and targets."""
        assert targets is not None
        (p1, p2), (t1, t2) = anchors, targets
        return -((p1 * t2).sum(1) + (p2 * t1).sum(1)).mean() / 2
