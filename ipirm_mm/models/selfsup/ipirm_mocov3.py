"""IP-IRM on MoCo v3."""

from __future__ import annotations

from typing import Any

from mmpretrain.registry import MODELS

from .base_momentum_ipirm import BaseMomentumIPIRM


@MODELS.register_module()
class IPIRMMoCoV3(BaseMomentumIPIRM):
    """MoCo v3 trained for similarities that hold in every subset of every partition.

    Before the first partition, and without a penalty, the loss is that of MMPretrain's ``MoCoV3``.
    The head is an ``IPIRMMoCoV3Head``, which holds the predictor.

    Args:
        backbone: Config of the backbone.
        neck: Config of the projector.
        head: Config of the head.
        base_momentum: Share of the new weights in the first update of the momentum encoder.
            Defaults to 0.01, as in MMPretrain.
        **kwargs: Further arguments of :class:`BaseIPIRM`.

    Raises:
        UserError: If ``base_momentum`` or ``num_subsets`` is out of range.
    """

    encoder_name = 'momentum_encoder'

    def __init__(
        self, backbone: dict, neck: dict, head: dict, base_momentum: float = 0.01, **kwargs: Any
    ) -> None:
        super().__init__(backbone, neck, head, base_momentum, **kwargs)
