"""The latent head with the invariance penalty, for SimSiam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.registry import MODELS
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.functional import SubsetRisks, contrastive_risks, cosine_risks, unit_rows

from .base_ipirm_head import BaseIPIRMHead, TwoViews

SIMILARITIES = ('contrast', 'cosine')


@MODELS.register_module()
class IPIRMLatentHead(BaseIPIRMHead):
    r"""SimSiam's loss of the batch, and risks of its subsets with the invariance penalty.

    The report builds IP-IRM on SimSiam without an equation, and the code of Wang et al. has no
    SimSiam. For the whole batch the loss is SimSiam's, :math:`-\cos(p_i, t_i)`, of the predictions
    *p* and the projections *t* of the other view. The head owns the predictor and the
    stop-gradient of the projections, see :meth:`predict_views`. In the subsets of the partitions:

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
        super().__init__(**kwargs)
        if similarity not in SIMILARITIES:
            raise UserError(
                f'model.head.similarity must be one of {SIMILARITIES}, but is {similarity!r}'
            )
        self.similarity = similarity
        self.risk_equals_base_loss = similarity == 'cosine'
        self.predictor = MODELS.build(predictor)

    def predict_views(self, projections: Sequence[Tensor]) -> tuple[TwoViews, TwoViews]:
        """Predict the projections of one view from those of the other.

        It runs on the batch of one rank, before the batches are gathered, because the predictor
        may have batch normalization.

        Args:
            projections: Projections of the two views, each ``(B, D)``.

        Returns:
            Anchors (predictions) and targets (projections without gradient), two views each,
            ``(B, D)``, rows of unit norm.
        """
        p1, p2 = (unit_rows(self.predictor([z])[0]) for z in projections)
        t1, t2 = (unit_rows(z.detach()) for z in projections)
        return (p1, p2), (t1, t2)

    def risks(
        self, anchors: TwoViews, targets: TwoViews | None, subset_ids: Tensor, num_subsets: int
    ) -> SubsetRisks:
        """Compute risks and penalties by ``similarity``; see :meth:`BaseIPIRMHead.risks`."""
        assert targets is not None
        if self.similarity == 'cosine':
            return cosine_risks(anchors, targets, subset_ids, num_subsets)
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
        """Compute SimSiam's loss: minus the mean cosine of predictions and projections."""
        assert targets is not None
        (p1, p2), (t1, t2) = anchors, targets
        return -((p1 * t2).sum(1) + (p2 * t1).sum(1)).mean() / 2

    def loss(
        self,
        anchors: TwoViews,
        targets: TwoViews | None,
        assignments: Tensor,
        num_subsets: int,
    ) -> dict[str, Tensor]:
        r"""Compute the loss, see :meth:`BaseIPIRMHead.loss`; logs ``feature_std`` too.

        ``feature_std`` is the standard deviation of the projections over the batch, averaged over
        their *D* entries. It is near :math:`1 / \sqrt D` for projections that are spread over the
        sphere, and 0 if they have collapsed to one point.
        """
        assert targets is not None
        losses = super().loss(anchors, targets, assignments, num_subsets)
        return {**losses, 'feature_std': torch.cat(targets).std(0).mean()}
