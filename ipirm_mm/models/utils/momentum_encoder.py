"""The momentum encoder of MoCo v3 and BYOL."""

from __future__ import annotations

import math

import torch
from mmengine.logging import MessageHub
from mmpretrain.models.utils import CosineEMA
from torch import nn


class MomentumEncoder(CosineEMA):
    r"""Exponential moving average of a network whose momentum falls to 0 by a cosine.

    The equations and the state dict are those of MMPretrain's ``CosineEMA``: the first update is a
    copy; in step *t* of *T*, the share of the new weights is :math:`m (1 + \cos(\pi t / T)) / 2`.
    The statistics of batch normalization are copied in every step. Outside of a run, whose length
    MMEngine's message hub gives, the share stays *m*.

    Fault bridged: MMPretrain's reads the number of steps back from the device, once per step and
    once per parameter, so that the processor waits for the device each time. Here it stays there.

    Args:
        model: The network.
        momentum: Share *m* of the new weights in the first update, between 0 and 1.
    """

    def __init__(self, model: nn.Module, momentum: float) -> None:
        super().__init__(model, momentum=momentum)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move towards the weights of a network, and copy its buffers.

        Args:
            model: The network, with the layers of the one that this began with.
        """
        total = MessageHub.get_current_instance().get_info('max_iters') or math.inf
        pairs = list(zip(self.module.parameters(), model.parameters()))
        angle = math.pi * self.steps / total  # in the default dtype, as in MMPretrain's
        if pairs[0][0].dtype == torch.float64:
            angle = angle.double()
        share = self.momentum * (torch.cos(angle) + 1) / 2
        share = torch.where(self.steps == 0, 1.0, share)
        for average, new in pairs:
            average.lerp_(new, share.to(average.dtype))
        for copy, source in zip(self.module.buffers(), model.buffers()):
            copy.copy_(source)
        self.steps += 1
