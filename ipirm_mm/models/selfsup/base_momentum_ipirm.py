"""Base of the self-supervised methods with a momentum encoder that IP-IRM builds on."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ipirm_mm.errors import UserError

from ..heads.base_ipirm_head import TwoViews
from ..utils import MomentumEncoder
from .base_ipirm import BaseIPIRM


class BaseMomentumIPIRM(BaseIPIRM):
    """Base of the methods that predict the projections of a momentum encoder.

    The encoder follows backbone and projector once per training step, as MMPretrain's does, see
    ``MomentumEncoder``. It is in checkpoints under :attr:`encoder_name`. Partitions are found by
    the projections of the network that trains. The head holds the predictor.

    Args:
        backbone: Config of the backbone.
        neck: Config of the projector.
        head: Config of the head.
        base_momentum: Share of the new weights in the first update, between 0 and 1; it falls to 0
            at the end of training by a cosine.
        **kwargs: Further arguments of :class:`BaseIPIRM`.

    Raises:
        UserError: If ``base_momentum`` or ``num_subsets`` is out of range.
    """

    #: Name of the momentum encoder, as in MMPretrain's method.
    encoder_name: str

    def __init__(
        self, backbone: dict, neck: dict, head: dict, base_momentum: float, **kwargs: Any
    ) -> None:
        if not 0 < base_momentum < 1:
            raise UserError(
                f'model.base_momentum must be between 0 and 1, but is {base_momentum}: it is the '
                'share of the new weights'
            )
        super().__init__(backbone, neck, head, **kwargs)
        network = nn.Sequential(self.backbone, self.neck)
        self.add_module(self.encoder_name, MomentumEncoder(network, base_momentum))

    def project_views(self, inputs: TwoViews) -> tuple[TwoViews, TwoViews]:
        """Update the momentum encoder and predict; see :meth:`BaseIPIRM.project_views`.

        The views pass one after the other, and the encoder is updated between the projections and
        the targets, as in MMPretrain's ``MoCoV3`` and ``BYOL``.
        """
        projections = [self.neck(self.backbone(view))[0] for view in inputs]
        encoder = self.get_submodule(self.encoder_name)
        with torch.no_grad():
            encoder.update_parameters(nn.Sequential(self.backbone, self.neck))
            targets = [encoder(view)[0] for view in inputs]
        return self.head.predict_views(projections, targets)
