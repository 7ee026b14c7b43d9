"""IP-IRM on BYOL."""

from __future__ import annotations

from typing import Any

from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor

from .base_momentum_ipirm import BaseMomentumIPIRM


@MODELS.register_module()
class IPIRMBYOL(BaseMomentumIPIRM):
    """BYOL trained for similarities that hold in every subset of every partition.

    Before the first partition, and without a penalty, the loss is that of MMPretrain's ``BYOL``.
    The head is an ``IPIRMLatentHead``, as for SimSiam; it holds the predictor.

    Args:
        backbone: Config of the backbone.
        neck: Config of the projector.
        head: Config of the head.
        base_momentum: Share of the new weights in the first update of the target network.
            Defaults to 0.004, as in MMPretrain.
        **kwargs: Further arguments of :class:`BaseIPIRM`.

    Raises:
        UserError: If ``base_momentum`` or ``num_subsets`` is out of range.
    """

    encoder_name = 'target_net'

    def __init__(
        self, backbone: dict, neck: dict, head: dict, base_momentum: float = 0.004, **kwargs: Any
    ) -> None:
        super().__init__(backbone, neck, head, base_momentum, **kwargs)

    def loss(
        self, inputs: list[Tensor], data_samples: list[DataSample], **kwargs: Any
    ) -> dict[str, Tensor]:
        """Compute the loss of a batch, see :meth:`BaseIPIRM.loss`.

        BYOL's loss is four times that of SimSiam: twice the sum over the two views. The factor
        multiplies the whole loss, penalties included, so ``irm_weight`` has the same meaning as
        with SimSiam. Only ``loss`` has it, the other values for the log do not.
        """
        losses = super().loss(inputs, data_samples, **kwargs)
        return {**losses, 'loss': 4 * losses['loss']}
