"""Step 1 of IP-IRM for methods without negatives: cosine risks of subsets, for SimSiam."""

from __future__ import annotations

import torch
from torch import Tensor

from ._common import at_least_float32
from .contrastive import SubsetRisks


def cosine_risks(
    anchors: tuple[Tensor, Tensor],
    targets: tuple[Tensor, Tensor],
    subset_ids: Tensor,
    num_subsets: int,
) -> SubsetRisks:
    r"""Cosine loss and invariance penalty of every subset.

    Each anchor :math:`p_i` is compared with the target :math:`t_i` of the other view of its image.
    The report gives no equation for SimSiam, and the code of Wang et al. has no SimSiam. Here a
    dummy :math:`\theta` scales the anchor in a squared distance. At one, this is SimSiam's loss
    plus one:

    .. math::
        L(\theta) = \frac{1}{2m} \sum_i \tfrac12 \lVert \theta p_i - t_i \rVert^2, \quad
        L(1) = \frac{1}{2m} \sum_i (1 - p_i t_i) = \frac{\partial L}{\partial \theta}(1)

    So the penalty is the square of the loss.

    Args:
        anchors: Predictions of the two views, each ``(B, D)``, rows of unit norm.
        targets: Projections of the two views, each ``(B, D)``, rows of unit norm. The caller stops
            their gradient (SimSiam does).
        subset_ids: Number of each image's subset in each partition, ``(P, B)`` long. The subsets
            of all partitions share one numbering.
        num_subsets: Number *S* of subsets of all partitions together.

    Returns:
        :class:`SubsetRisks` with fields of shape ``(S,)``, zero where ``size < 2``; in float32 or,
        for float64 inputs, float64.
    """
    with torch.autocast(device_type=anchors[0].device.type, enabled=False):
        p1, p2 = (at_least_float32(view) for view in anchors)
        t1, t2 = (at_least_float32(view) for view in targets)
        distance = 1 - ((p1 * t2).sum(1) + (p2 * t1).sum(1)) / 2  # (B,)
    partitions = len(subset_ids)
    flat = subset_ids.flatten()
    size = torch.zeros(num_subsets, dtype=torch.long, device=flat.device)
    size = size.index_add(0, flat, torch.ones_like(flat))
    total = distance.new_zeros(num_subsets).index_add(0, flat, distance.repeat(partitions))
    loss = torch.where(size >= 2, total / size.clamp(min=1), 0.0)
    return SubsetRisks(loss, loss.square(), size)
