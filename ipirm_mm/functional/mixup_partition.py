"""MixUp for Step 2 of IP-IRM: the objective of a soft partition with mixed queries.

As without MixUp, the objective needs only sums of ``exp(S)`` over weighted columns, so that all
subsets are a few products of one block of queries by keys with the weights.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ._common import at_least_float32, check_views
from .partition import _ALONE, _TINY, balance_term, block_objective

#: Weight of a query: that of its image, or the product of its image's and its partner's.
QUERY_WEIGHTS = ('own', 'pair')
# Keys that together weigh less than this share of the largest weight are no negatives. Sums in
# double precision leave an error of less.
_NO_NEGATIVES = 1e-9


class MixedBlock(NamedTuple):
    """Precomputed similarities of a block of B mixed queries with B keys.

    Each ``exp`` is shifted by the maximum of its row, which cancels in every ratio. "Targets" are
    the query's own key and that of its partner; an image that is its own partner has one.

    Attributes:
        partners: Place of each image's partner in the block, ``(B,)`` long.
        own_partner: Whether an image is its own partner, ``(B,)`` bool.
        labels: Shares of the two targets, ``(B, 2)``; 1 and 0 for an image's own partner.
        target: Logits of the targets, weighted by ``labels``, ``(B,)``.
        shift: Shift of the loss's exponents, ``(B,)``.
        exp_target: ``exp`` of the targets' logits, summed, ``(B,)``.
        exp: ``exp`` of the logits, zero for the targets, ``(B, B)``.
        irm_logits: Logits of the targets at the penalty's temperature, ``(B, 2)``.
        irm_exp_targets: ``exp`` of them, ``(B, 2)``.
        irm_exp: ``exp`` at the penalty's temperature, ``(B, B)``.
        weighted: ``s exp(s)`` at the penalty's temperature, zero for the targets, ``(B, B)``;
            None where only the loss is asked for.
        penalty: ``'vector'`` or ``'scalar'``.
        same_temperature: Whether loss and penalty have the same temperature.
        query_weight: ``'own'`` or ``'pair'``.
    """

    partners: Tensor
    own_partner: Tensor
    labels: Tensor
    target: Tensor
    shift: Tensor
    exp_target: Tensor
    exp: Tensor
    irm_logits: Tensor
    irm_exp_targets: Tensor
    irm_exp: Tensor
    weighted: Tensor | None
    penalty: str
    same_temperature: bool
    query_weight: str

    def risks(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Losses and penalties, see :func:`mixed_block_risks`."""
        return mixed_block_risks(self, weights)


def mixed_block(
    queries: Tensor,
    keys: Tensor,
    partners: Tensor,
    lam: Tensor,
    temperature: float = 0.2,
    irm_temperature: float | None = None,
    penalty: str = 'vector',
    query_weight: str = 'own',
) -> MixedBlock:
    """Compute the similarities of a block of images.

    Args:
        queries: Projections of the mixed first views, ``(B, D)``, rows of unit norm.
        keys: Projections of the second view, ``(B, D)``, rows of unit norm.
        partners: Place of each image's partner in the block, ``(B,)`` long.
        lam: Share of the own image in each query, ``(B,)``.
        temperature: Temperature of the loss. Defaults to 0.2 (commands of Wang et al. with MixUp).
        irm_temperature: Temperature of the penalty. Defaults to None, which means ``temperature``.
        penalty: ``'vector'`` or ``'scalar'``. Defaults to ``'vector'``.
        query_weight: ``'own'`` or ``'pair'``, see :func:`soft_mixup_objective`. Defaults to
            ``'own'``.

    Returns:
        The block, in float32 or, for float64 inputs, float64.

    Raises:
        ValueError: If shapes do not match, or an option has an unknown value.
    """
    irm_temperature = check_views(queries, keys, temperature, irm_temperature, penalty)
    for name, tensor in (('partners', partners), ('lam', lam)):
        if tensor.shape != queries.shape[:1]:
            raise ValueError(
                f'{name} must be ({len(queries)},), one per query, but its shape is '
                f'{tuple(tensor.shape)}'
            )
    if query_weight not in QUERY_WEIGHTS:
        raise ValueError(f'query_weight must be one of {QUERY_WEIGHTS}, but is {query_weight!r}')
    with torch.autocast(device_type=queries.device.type, enabled=False):
        similarity = at_least_float32(queries) @ at_least_float32(keys).T
        own = torch.arange(len(keys), device=keys.device)
        own_partner = partners == own
        lam = lam.to(similarity).masked_fill(own_partner, 1)
        labels = torch.stack((lam, 1 - lam), 1)
        targets = torch.stack((own, partners), 1)

        def exponentials(temperature: float) -> tuple[Tensor, ...]:
            """Logits, those of the targets, shift, exp of the targets and of all others."""
            logits = similarity / temperature
            shift = logits.detach().amax(1)
            exp = (logits - shift[:, None]).exp()
            of_targets = exp.gather(1, targets)
            second = of_targets[:, 1].masked_fill(own_partner, 0)
            of_targets = torch.stack((of_targets[:, 0], second), 1)
            return logits, logits.gather(1, targets), shift, of_targets, exp.scatter(1, targets, 0)

        same = irm_temperature == temperature
        at_loss = exponentials(temperature)
        logits, irm_logits, _, irm_exp_targets, irm_exp = (
            at_loss if same else exponentials(irm_temperature)
        )
        _, target_logits, shift, exp_targets, exp = at_loss
        return MixedBlock(
            partners,
            own_partner,
            labels,
            (labels * target_logits).sum(1),
            shift,
            exp_targets.sum(1),
            exp,
            irm_logits,
            irm_exp_targets,
            irm_exp,
            logits * irm_exp,
            penalty,
            same,
            query_weight,
        )


def mixed_block_risks(block: MixedBlock, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and penalty of each subset of a soft partition of a block of mixed queries.

    Args:
        block: The block of B images.
        weights: Weight of each image in each subset, ``(B, K)``.

    Returns:
        Losses ``(K,)`` and penalties ``(K,)``, see :func:`soft_mixup_objective`. For a subset
        without weight, with all of its weight on one image, or without queries (``'pair'``), both
        are zero, and so are their gradients.
    """
    negatives = len(weights) - 2 + block.own_partner.to(weights.dtype)  # (B,)
    weights = weights.T.contiguous()  # (K, B)
    # Only the ratios of a subset's weights matter.
    largest, image = weights.detach().max(1, keepdim=True)
    weights = weights / largest.clamp(min=_TINY)
    query = weights if block.query_weight == 'own' else weights * weights[:, block.partners]
    total = query.sum(1, keepdim=True)
    others = weights.detach().scatter(1, image, 0).sum(1)
    empty = (others <= _ALONE) | (total.detach()[:, 0] <= _ALONE)
    share = query / total.clamp(min=_ALONE)  # (K, B), sums to 1
    # Double precision: the difference cancels digits where a pair has most of the weight.
    exact = weights.double()
    rest = exact.sum(1, keepdim=True) - exact
    rest = rest - exact[:, block.partners].masked_fill(block.own_partner, 0)
    without = rest.detach() <= _NO_NEGATIVES
    scale = (negatives / rest.masked_fill(without, 1)).masked_fill(without, 0).to(weights.dtype)

    def partition_function(exp: Tensor, exp_target: Tensor) -> Tensor:
        total = exp_target + F.linear(weights, exp) * scale
        return total.clamp(min=torch.finfo(exp.dtype).tiny)

    denominator = partition_function(block.exp, block.exp_target)
    query_loss = denominator.log() + (block.shift - block.target)
    loss = (share * query_loss).sum(1).masked_fill(empty, 0)

    if not block.same_temperature:
        denominator = partition_function(block.irm_exp, block.irm_exp_targets.sum(1))
    assert block.weighted is not None
    error = block.irm_exp_targets / denominator[..., None] - block.labels
    error = share[..., None] * block.irm_logits * error  # (K, B, 2)
    responsibility = share * scale / denominator
    if block.penalty == 'scalar':
        others = (responsibility * F.linear(weights, block.weighted)).sum(1)
        return loss, (error.sum((1, 2)) + others).square().masked_fill(empty, 0)
    # One dummy per key: as a negative, as the own key, as the key of partners.
    column = weights * (responsibility @ block.weighted) + error[..., 0]
    column = column.index_add(1, block.partners, error[..., 1])
    return loss, column.square().sum(1).masked_fill(empty, 0)


def soft_mixup_objective(
    queries: Tensor,
    keys: Tensor,
    partners: Tensor,
    lam: Tensor,
    weights: Tensor,
    temperature: float = 0.2,
    irm_temperature: float | None = None,
    irm_weight: float = 0.5,
    penalty: str = 'vector',
    balance: str = 'relaxed',
    query_weight: str = 'own',
) -> Tensor:
    r"""Objective of a soft partition with MixUp, to be maximized.

    It is Eq. 3 of the report (:func:`~ipirm_mm.functional.soft_partition_objective`) with the
    risk of Step 1 with MixUp (:func:`~ipirm_mm.functional.mixup_risks`). Query *i* is the first
    view of image *i*, mixed with that of its partner :math:`r(i)`; key *j* is the second view of
    image *j*; :math:`\ell_{ij} = q_i k_j / \tau`. A query counts in a subset as much as both of
    its images belong there, :math:`\omega_{ik} = W_{ik} W_{r(i)k}`; so only the ratios of a
    subset's weights matter. The keys of both images are targets and are not weighted. The weights
    of the other keys, the negatives, are normalized to sum to their number, :math:`\hat w_{jk} =
    W_{jk} n_i / \sum_{neg} W_{jk}`:

    .. math::
        L_{ik} = \log\Big(e^{\ell_{ii}} + e^{\ell_{ir}} + \sum_{neg} \hat w_{jk} e^{\ell_{ij}}
        \Big) - \lambda_i \ell_{ii} - (1 - \lambda_i) \ell_{ir}, \quad
        L_k = \frac{\sum_i \omega_{ik} L_{ik}}{\sum_i \omega_{ik}}

    An image that is its own partner has one target. The penalty is the squared gradient norm of
    :math:`L_k` at a dummy of one: ``'vector'``, one dummy per key; ``'scalar'``, one for all. The
    objective is the mean over subsets of :math:`L_k + \lambda_2 \Omega_k`, plus
    :func:`~ipirm_mm.functional.partition.balance_term`.

    The weight of a query is that of its image, :math:`\omega_{ik} = W_{ik}` (``'own'``), as
    without MixUp, or :math:`W_{ik} W_{r(i)k}` (``'pair'``). At a hard partition the latter leaves
    out queries whose partner is in another subset, as Step 1 has none. But partners are drawn
    before the partition is known. So with ``'pair'`` a solver raises the objective by separating
    those partners whose loss is low, which says nothing about the images.

    At a hard partition of B images whose partners are of their own subset, :math:`L_k` and
    :math:`\Omega_k` are those of Step 1 for both weights, except that each of a query's
    :math:`m - 2` negatives in a subset of *m* images counts :math:`(B - 2) / (m - 2)` times
    (:math:`(B - 1) / (m - 1)` times for an image that is its own partner). Without MixUp, Step 2
    differs from Step 1 in the same way.

    The code of Wang et al. (IP-IRM, NeurIPS 2021) weights the partner's key as a negative too, so
    that its cross-entropy has the term :math:`-\log \hat w_{rk}`: infinite at a hard partition
    that puts an image and its partner into different subsets. This is not offered.

    Args:
        queries: Projections of the mixed first views, ``(N, D)``, rows of unit norm.
        keys: Projections of the second view, ``(N, D)``, rows of unit norm.
        partners: Index of each image's partner, ``(N,)`` long.
        lam: Share of the own image in each query, ``(N,)``.
        weights: ``(N, K)``, rows sum to 1.
        temperature: Temperature of the loss. Defaults to 0.2 (commands of Wang et al. with MixUp).
        irm_temperature: Temperature of the penalty. Defaults to None, which means ``temperature``.
        irm_weight: :math:`\lambda_2`. Defaults to 0.5 (report).
        penalty: ``'vector'`` (code of Wang et al.) or ``'scalar'`` (report). Defaults to
            ``'vector'``.
        balance: ``'relaxed'`` (default), ``'strict'`` or ``'none'``.
        query_weight: ``'own'`` or ``'pair'``. Defaults to ``'own'``.

    Returns:
        Scalar, differentiable in all floating-point tensors.

    Raises:
        ValueError: If shapes do not match, or an option has an unknown value.
    """
    if weights.ndim != 2 or len(weights) != len(queries):
        raise ValueError(
            f'weights must be ({len(queries)}, subsets), but its shape is {tuple(weights.shape)}'
        )
    block = mixed_block(
        queries, keys, partners, lam, temperature, irm_temperature, penalty, query_weight
    )
    with torch.autocast(device_type=queries.device.type, enabled=False):
        weights = weights.to(block.exp.dtype)
        balanced = balance_term(weights.mean(0), balance)
        return block_objective(block, weights, irm_weight) + balanced
