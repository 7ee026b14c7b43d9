"""Step 2 of IP-IRM: the objective of a soft partition (report Eq. 3).

The objective needs only sums of ``exp(S)`` over weighted columns. So for all subsets at once it is
a few products of one precomputed similarity block with the weights.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ._common import at_least_float32, check_views, exponentials

BALANCES = ('relaxed', 'strict', 'none')
# The smallest share and scale of weights that count; its inverse is still finite in float32.
_TINY = 1e-30
# If all other images of a subset together weigh less than this share of one image, that image is
# alone. The gradient contains the square of the inverse, which must be finite in float32.
_ALONE = 1e-15
# Bytes of similarities that are computed at once: what stays in a core's cache, or enough for a
# GPU to be busy.
_TILE_BYTES = {'cpu': 2**21, 'other': 2**29}
# Images whose rows are summed at once, by whether they come before or after a column's image: a
# product with a mask for each, of which a GPU wants few.
_TILE_IMAGES = {'cpu': 128, 'other': 1024}


class SimilarityBlock(NamedTuple):
    """Precomputed similarities of a block of B images with two views each.

    Rows are anchors: view 1 of all images, then view 2. "Summed over views" means that a column
    adds up the two views of an image. Each ``exp`` is shifted by the maximum of its row, which
    cancels in every ratio.

    Attributes:
        positive: Similarity of each anchor with its positive, ``(2B,)``.
        shift: Shift of the loss's exponents, ``(2B,)``.
        exp_positive: ``exp`` of the positive's logit, ``(2B,)``.
        exp: ``exp`` of the logits, zero for the own image, summed over views, ``(2B, B)``.
        irm_exp_positive: ``exp_positive`` at the penalty's temperature, ``(2B,)``.
        irm_exp: ``exp`` at the penalty's temperature, ``(2B, B)``.
        weighted: For the scalar dummy: ``s exp(s)`` at the penalty's temperature, zero for the own
            image, summed over views, ``(2B, B)``. None for the vector dummy.
        weighted_views: For the vector dummy: ``s exp(s)`` with each view, ``(2, B, 2, B)``: view
            and image of the anchor, view and image of the column. None for the scalar dummy.
        temperature: Temperature of the loss.
        irm_temperature: Temperature of the penalty.
    """

    positive: Tensor
    shift: Tensor
    exp_positive: Tensor
    exp: Tensor
    irm_exp_positive: Tensor
    irm_exp: Tensor
    weighted: Tensor | None
    weighted_views: Tensor | None
    temperature: float
    irm_temperature: float

    def risks(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Losses and penalties, see :func:`block_risks`."""
        return block_risks(self, weights)


class Block(Protocol):
    """Similarities of a block of images, mixed or not."""

    def risks(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Losses and penalties ``(K,)`` of the subsets of a soft partition ``(B, K)``."""
        ...


def similarity_block(
    z1: Tensor,
    z2: Tensor,
    temperature: float = 0.5,
    irm_temperature: float | None = None,
    penalty: str = 'vector',
) -> SimilarityBlock:
    """Compute the similarities of a block of images.

    Args:
        z1: Projections of the first view, ``(B, D)``, rows of unit norm.
        z2: Projections of the second view, ``(B, D)``, rows of unit norm.
        temperature: Temperature of the loss. Defaults to 0.5 (report).
        irm_temperature: Temperature of the penalty. Defaults to None, which means ``temperature``.
        penalty: ``'vector'`` or ``'scalar'``. Defaults to ``'vector'``.

    Returns:
        The block, in float32 or, for float64 inputs, float64.

    Raises:
        ValueError: If shapes do not match, or an option has an unknown value.
    """
    irm_temperature = check_views(z1, z2, temperature, irm_temperature, penalty)
    with torch.autocast(device_type=z1.device.type, enabled=False):
        views = at_least_float32(torch.stack((z1, z2)))  # (2, B, D)
        batch = views.shape[1]
        positive = (views[0] * views[1]).sum(1).repeat(2)
        halves = (2, batch, batch)
        exp_sums = views.new_empty(halves)
        irm_exp_sums = exp_sums if irm_temperature == temperature else views.new_empty(halves)
        weighted = views.new_empty(halves if penalty == 'scalar' else (2, batch, 2, batch))
        by_anchor = views.new_empty(3, 2, batch)  # shift, and exp of the positive's logit
        limit = _TILE_BYTES.get(views.device.type, _TILE_BYTES['other'])
        rows = max(1, limit // (4 * batch * views.element_size()))
        for first in range(0, batch, rows):
            images = slice(first, first + rows)
            logits, exp, *anchors = _similarity_rows(views, positive, images, temperature)
            exp_sums[:, images] = exp[:, :, 0] + exp[:, :, 1]
            by_anchor[:2, :, images] = torch.stack(anchors)
            if irm_temperature != temperature:
                logits, exp, *anchors = _similarity_rows(views, positive, images, irm_temperature)
                irm_exp_sums[:, images] = exp[:, :, 0] + exp[:, :, 1]
            by_anchor[2, :, images] = anchors[1]
            product = logits * exp
            weighted[:, images] = (
                product[:, :, 0] + product[:, :, 1] if penalty == 'scalar' else product
            )
        shift, exp_positive, irm_exp_positive = by_anchor.flatten(1)
    return SimilarityBlock(
        positive,
        shift,
        exp_positive,
        exp_sums.flatten(0, 1),
        irm_exp_positive,
        irm_exp_sums.flatten(0, 1),
        weighted.flatten(0, 1) if penalty == 'scalar' else None,
        weighted if penalty == 'vector' else None,
        temperature,
        irm_temperature,
    )


def _similarity_rows(
    views: Tensor, positive: Tensor, images: slice, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits of some images as anchors, ``(2, R, 2, B)``, and their :func:`exponentials`.

    Args:
        views: Projections of both views, ``(2, B, D)``.
        positive: Similarity of each anchor with its positive, ``(2B,)``.
        images: The images.
        temperature: Temperature.

    Returns:
        Logits and exponentials, ``(2, R, 2, B)``; shift and exponential of the positive's logit,
        ``(2, R)``.
    """
    anchors = views[:, images] / temperature
    own = positive.view(2, -1)[:, images] / temperature
    logits = anchors.flatten(0, 1) @ views.flatten(0, 1).T
    shift, exp, exp_positive = exponentials(logits, own.flatten(), images.start)
    shape = (*own.shape, *views.shape[:2])
    return logits.view(shape), exp.view(shape), shift.view_as(own), exp_positive.view_as(own)


def _column_sums(responsibility: Tensor, weighted: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the columns of ``s exp(s)`` over the anchors after a column's image, and before it.

    Args:
        responsibility: Weight of each anchor in each subset, ``(K, 2B)``.
        weighted: ``SimilarityBlock.weighted_views``, ``(2, B, 2, B)``.

    Returns:
        Both sums, ``(K, 2, B)`` each, by the column's view and image.
    """
    batch = weighted.shape[1]
    column = torch.arange(batch, device=weighted.device)
    after = before = responsibility.new_zeros(())
    step = _TILE_IMAGES.get(weighted.device.type, _TILE_IMAGES['other'])
    for first in range(0, batch, step):
        last = min(first + step, batch)
        for view in range(2):
            anchors = responsibility[:, view * batch + first : view * batch + last]
            rows = weighted[view, first:last]  # (R, 2, B)
            sums = (anchors @ rows.flatten(1)).view(-1, 2, batch)
            after = after + sums * (column < first)
            before = before + sums * (column >= last)
            # The images of the rows themselves, some of them before and some after an anchor.
            own = rows[..., first:last]
            is_after = (column[first:last, None] > column[first:last])[:, None]
            pad = (first, batch - last)
            after = after + F.pad(torch.einsum('kr,rvc->kvc', anchors, own * is_after), pad)
            before = before + F.pad(torch.einsum('kr,rvc->kvc', anchors, own * ~is_after), pad)
    return after, before


def block_risks(block: SimilarityBlock, weights: Tensor) -> tuple[Tensor, Tensor]:
    r"""Loss and penalty of each subset of a soft partition of a block.

    Args:
        block: The block of B images.
        weights: Weight of each image in each subset, ``(B, K)``.

    Returns:
        Losses ``(K,)`` and penalties ``(K,)``. For a subset without weight, or with all of its
        weight on one image, both are zero, and so are their gradients.
    """
    batch = len(weights)
    # One contiguous row per subset: products with the few columns of (B, K) weights run at a third
    # of the speed.
    weights = weights.T.contiguous()  # (K, B)
    # What follows depends only on the ratios of a subset's weights. So it works for a subset whose
    # weights are all nearly zero, too.
    largest, image = weights.detach().max(1, keepdim=True)
    weights = weights / largest.clamp(min=_TINY)
    # Near a subset of one image the quotients below have no limit. Such a subset is computed with
    # equal weights and masked out of the result, so its gradient is zero and not arbitrary.
    others = weights.detach().scatter(1, image, 0).sum(1)
    alone = (largest[:, 0] <= _TINY) | (others <= _ALONE)  # (K,)
    weights = torch.where(alone[:, None], 1.0, weights)
    weight = weights.repeat(1, 2)  # (K, 2B), of the anchors
    total = weights.sum(1, keepdim=True).clamp(min=_ALONE)
    # Weight of all other images, by prefix and suffix sums; total - weight would cancel digits.
    zero = weights.new_zeros(len(weights), 1)
    prefix = torch.cat((zero, weights[:, :-1].cumsum(1)), 1)
    suffix = torch.cat((weights[:, 1:].flip(1).cumsum(1).flip(1), zero), 1)
    rest = (prefix + suffix).clamp(min=_ALONE).repeat(1, 2)
    share = weight / (2 * total)  # (K, 2B), sums to 1 over the anchors
    negatives = batch - 1

    def partition_function(exp: Tensor, exp_positive: Tensor) -> Tensor:
        others = F.linear(weights, exp) / rest * negatives
        return (exp_positive + others).clamp(min=torch.finfo(exp.dtype).tiny)

    denominator = partition_function(block.exp, block.exp_positive)
    anchor_loss = denominator.log() + (block.shift - block.positive / block.temperature)
    loss = (share * anchor_loss).sum(1).masked_fill(alone, 0)

    if block.irm_temperature != block.temperature:
        denominator = partition_function(block.irm_exp, block.irm_exp_positive)
    positive_logit = block.positive / block.irm_temperature
    positive_share = block.irm_exp_positive / denominator
    if block.weighted is not None:
        others = F.linear(weights, block.weighted) / rest * negatives
        mean_logit = positive_logit * positive_share + others / denominator
        gradient = (share * (mean_logit - positive_logit)).sum(1)
        return loss, gradient.square().masked_fill(alone, 0)

    assert block.weighted_views is not None
    first = (share * positive_logit * (positive_share - 1)).sum(1)
    responsibility = share / rest * negatives / denominator  # (K, 2B)
    # Column c of a view: image c for the anchors after it, image c + 1 for the others.
    after, before = _column_sums(responsibility, block.weighted_views)
    after, before = after * weights[:, None], before * weights[:, None]
    column = after[..., :-1] + before[..., 1:]  # the last image has no column of its own
    return loss, (first.square() + column.square().sum((1, 2))).masked_fill(alone, 0)


def block_objective(block: Block, weights: Tensor, irm_weight: float) -> Tensor:
    """Objective of a soft partition of a block, without the balance term (report Eq. 3).

    It is the mean loss plus the weighted mean penalty of the subsets.

    Args:
        block: The block of B images.
        weights: Weight of each image in each subset, ``(B, K)``.
        irm_weight: Weight of the penalty, lambda 2 of the report.

    Returns:
        Scalar.
    """
    loss, penalty = block.risks(weights)
    return loss.mean() + irm_weight * penalty.mean()


def entropy_bound(num_subsets: int) -> float:
    """Entropy below which ``balance='relaxed'`` penalizes a partition, in nats.

    It is the entropy when one subset is twice as large as each other subset. For two subsets that
    is ``H(1/3, 2/3) = 0.6365``. The code of Wang et al. uses this number for every K.

    Args:
        num_subsets: Number of subsets *K*.

    Returns:
        The bound, in nats.
    """
    share = 1 / (num_subsets + 1)
    return -(num_subsets - 1) * share * math.log(share) - 2 * share * math.log(2 * share)


def balance_term(mean_weights: Tensor, balance: str) -> Tensor:
    """Balance term of the objective (code of Wang et al.).

    Args:
        mean_weights: Share of each subset, ``(K,)``, sums to 1; or several, ``(..., K)``.
        balance: ``'relaxed'`` subtracts the amount by which the entropy of the shares falls short
            of :func:`entropy_bound`; ``'strict'`` adds the entropy; ``'none'`` adds nothing.

    Returns:
        One value per row of shares, a scalar for ``(K,)``, in nats.

    Raises:
        ValueError: If ``balance`` has an unknown value.
    """
    if balance not in BALANCES:
        raise ValueError(f'balance must be one of {BALANCES}, but is {balance!r}')
    if balance == 'none':
        return mean_weights.new_zeros(mean_weights.shape[:-1])
    # x log x has no finite gradient at 0; below _TINY it is constant.
    share = mean_weights.clamp(min=_TINY)
    entropy = -(share * share.log()).sum(-1)
    if balance == 'strict':
        return entropy
    return -torch.relu(entropy_bound(mean_weights.shape[-1]) - entropy)


def soft_partition_objective(
    z1: Tensor,
    z2: Tensor,
    weights: Tensor,
    temperature: float = 0.5,
    irm_temperature: float | None = None,
    irm_weight: float = 0.5,
    penalty: str = 'vector',
    balance: str = 'relaxed',
) -> Tensor:
    r"""Objective of a soft partition, to be maximized (report Eq. 3).

    For subset *k* and anchor *i*, let :math:`s` be the logits, and let :math:`\hat w` be the
    weights of the anchor's negatives, normalized to sum to the number of negatives:

    .. math::
        \ell_{ik} = \log\Big(e^{s_{i+}} + \sum_{neg} \hat w_{jk} e^{s_{ij}}\Big) - s_{i+}, \quad
        L_k = \frac{\sum_i W_{ik} \ell_{ik}}{\sum_i W_{ik}}

    The objective is :math:`\frac1K \sum_k L_k + \lambda_2 \frac1K \sum_k \Omega_k` plus
    :func:`balance_term`. The penalty :math:`\Omega_k` is the squared gradient norm of :math:`L_k`
    at a dummy of one, ``'vector'`` or ``'scalar'`` as in
    :func:`~ipirm_mm.functional.subset_contrastive_risks`.

    Args:
        z1: Projections of the first view, ``(N, D)``, rows of unit norm.
        z2: Projections of the second view, ``(N, D)``, rows of unit norm.
        weights: Weight of each image in each subset, ``(N, K)``, rows sum to 1.
        temperature: Temperature of the loss. Defaults to 0.5 (report).
        irm_temperature: Temperature of the penalty. Defaults to None, which means ``temperature``.
        irm_weight: :math:`\lambda_2`. Defaults to 0.5 (report).
        penalty: ``'vector'`` (code of Wang et al.) or ``'scalar'`` (report). Defaults to
            ``'vector'``.
        balance: ``'relaxed'`` (default), ``'strict'`` or ``'none'``.

    Returns:
        Scalar, differentiable in all tensors.

    Raises:
        ValueError: If shapes do not match, or an option has an unknown value.
    """
    if weights.ndim != 2 or len(weights) != len(z1):
        raise ValueError(
            f'weights must be ({len(z1)}, subsets), but its shape is {tuple(weights.shape)}'
        )
    block = similarity_block(z1, z2, temperature, irm_temperature, penalty)
    with torch.autocast(device_type=z1.device.type, enabled=False):
        weights = weights.to(block.exp.dtype)
        balanced = balance_term(weights.mean(0), balance)
        return block_objective(block, weights, irm_weight) + balanced
