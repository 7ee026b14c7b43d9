"""The IRM-penalised latent head, for SimSiam."""

from __future__ import annotations

from typing import Any

import torch
from mmpretrain.registry import MODELS
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.functional import SubsetRisks, group_contrastive_risks, group_cosine_risks

from .base_ipirm_head import BaseIPIRMHead, Views

SIMILARITIES = ('contrast', 'cosine')


@MODELS.register_module()
class IPIRMLatentHead(BaseIPIRMHead):
    r"""SimSiam's loss over the batch, and risks of its subsets with the invariance penalty.

    The report builds IP-IRM on SimSiam without an equation, and the authors' code has none. Over
    the batch the loss is SimSiam's, :math:`-\cos(p_i, t_i)` of predictions *p* and projections *t*
    of the other view, without gradient. In the subsets of the partitions:

    * ``similarity='contrast'`` (default): the contrastive risk of
      :func:`ipirm_mm.functional.subset_contrastive_risks` with logits
      :math:`s_{ij} = \cos(p_i, t_j) / \tau`, anchors of both views. It has negatives, as SimSiam
      does not: ``penalise_batch=True`` without partitions is the control for their effect.
    * ``similarity='cosine'``: that of :func:`ipirm_mm.functional.group_cosine_risks`, without
      temperature or negatives.

    Args:
        predictor: Config of the predictor, as in MMPretrain's ``LatentPredictHead``.
        similarity: ``'contrast'`` or ``'cosine'``. Defaults to ``'contrast'``.
        **kwargs: Arguments of :class:`BaseIPIRMHead`.

    Raises:
        UserError: If an option has a value that does not exist.
    """

    def __init__(self, predictor: dict, similarity: str = 'contrast', **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if similarity not in SIMILARITIES:
            raise UserError(
                f'model.head.similarity must be one of {SIMILARITIES}, but is {similarity!r}'
            )
        self.similarity = similarity
        self.risk_is_own_loss = similarity == 'cosine'
        self.predictor = MODELS.build(predictor)

    def risks(
        self, anchors: Views, targets: Views, groups: Tensor, num_groups: int
    ) -> SubsetRisks:
        """See :meth:`BaseIPIRMHead.risks`."""
        if self.similarity == 'cosine':
            return group_cosine_risks(anchors, targets, groups, num_groups)
        return group_contrastive_risks(
            *anchors,
            groups,
            num_groups,
            self.temperature,
            self.irm_temperature,
            self.penalty,
            targets=(targets[0].detach(), targets[1].detach()),
        )

    def own_loss(self, anchors: Views, targets: Views, risks: SubsetRisks) -> Tensor:
        """SimSiam's: minus the mean cosine of predictions and the other view's projections."""
        (p1, p2), (t1, t2) = anchors, (targets[0].detach(), targets[1].detach())
        return -((p1 * t2).sum(1) + (p2 * t1).sum(1)).mean() / 2

    def loss(
        self, anchors: Views, targets: Views, assignments: Tensor, num_subsets: int
    ) -> dict[str, Tensor]:
        r"""See :meth:`BaseIPIRMHead.loss`; logs ``feature_std`` too.

        That is the standard deviation over the batch of the projections, averaged over their
        *D* entries: near :math:`1 / \sqrt D` as long as they do not collapse, 0 if they have.
        """
        losses = super().loss(anchors, targets, assignments, num_subsets)
        return {**losses, 'feature_std': torch.cat(targets).detach().std(0).mean()}
