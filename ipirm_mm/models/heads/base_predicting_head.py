"""What the heads of IP-IRM with a predictor share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.registry import MODELS
from torch import Tensor

from ipirm_mm.functional import unit_rows

from .base_ipirm_head import BaseIPIRMHead, TwoViews


class BasePredictingHead(BaseIPIRMHead):
    """Base of the heads that predict the targets of one view from the projections of the other.

    The head owns the predictor and the stop-gradient of the targets, see :meth:`predict_views`.

    Args:
        predictor: Config of the predictor, as in MMPretrain's ``LatentPredictHead`` and
            ``MoCoV3Head``.
        **kwargs: Arguments of :class:`BaseIPIRMHead`.

    Raises:
        UserError: If an option has a value that is unknown or out of range.
    """

    def __init__(self, predictor: dict, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.predictor = MODELS.build(predictor)

    def predict_views(
        self, projections: Sequence[Tensor], targets: Sequence[Tensor] | None = None
    ) -> tuple[TwoViews, TwoViews]:
        """Predict the targets of one view from the projections of the other.

        It runs on the batch of one rank, before the batches are gathered, because the predictor
        may have batch normalization.

        Args:
            projections: Projections of the two views, each ``(B, D)``.
            targets: What is predicted, each ``(B, D)``: for methods with a momentum encoder, its
                projections. Defaults to None: the projections themselves, as in SimSiam.

        Returns:
            Anchors (predictions) and targets (without gradient), two views each, ``(B, D)``, rows
            of unit norm.
        """
        p1, p2 = (unit_rows(self.predictor([z])[0]) for z in projections)
        t1, t2 = (unit_rows(z.detach()) for z in (projections if targets is None else targets))
        return (p1, p2), (t1, t2)

    def loss(
        self,
        anchors: TwoViews,
        targets: TwoViews | None,
        assignments: Tensor,
        num_subsets: int,
    ) -> dict[str, Tensor]:
        r"""Compute the loss, see :meth:`BaseIPIRMHead.loss`; logs ``feature_std`` too.

        ``feature_std`` is the standard deviation of the targets over the batch, averaged over
        their *D* entries. It is near :math:`1 / \sqrt D` for targets that are spread over the
        sphere, and 0 if they have collapsed to one point.
        """
        assert targets is not None
        losses = super().loss(anchors, targets, assignments, num_subsets)
        return {**losses, 'feature_std': torch.cat(targets).std(0).mean()}
