"""MixUp for Step 1 of IP-IRM: contrastive risks and penalties with mixed queries.

The code of Wang et al. (IP-IRM, NeurIPS 2021) mixes the first view of each image with that of
another image of the same subset, and compares it with the second view of both (i-Mix: Lee et al.,
ICLR 2021). The logits of a partition are one matrix, queries by keys, so that all of its subsets
are computed at once. The penalties have closed forms, as in
:mod:`ipirm_mm.functional.contrastive`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._common import PENALTIES, at_least_float32
from .contrastive import SubsetRisks


def mixup_lam(uniform: Tensor) -> Tensor:
    r"""Share of the own image in a mixed image.

    :math:`\lambda = \max(\beta, 1 - \beta)` with :math:`\beta \sim \text{Beta}(1, 1)`, which is
    the uniform distribution (code of Wang et al.).

    Args:
        uniform: Draws of the uniform distribution from 0 to 1, of any shape.

    Returns:
        Shares from 0.5 to 1, of the same shape.
    """
    return torch.maximum(uniform, 1 - uniform)


def mixup_partners(subset_ids: Tensor, uniform: Tensor) -> Tensor:
    """Draw the image that each image is mixed with, from its own subset.

    The partners of a subset are a random permutation of its images (code of Wang et al.). So an
    image may be its own partner, and the only image of a subset always is.

    Args:
        subset_ids: Subset of each image in each partition, ``(P, B)`` integers.
        uniform: Draws of the uniform distribution, ``(P, B)``.

    Returns:
        Place of the partner in the batch, ``(P, B)`` long.
    """
    place = subset_ids.argsort(dim=1, stable=True)
    # Subset after subset too, but within each subset in the order of the draws.
    shuffled = uniform.argsort(dim=1, stable=True)
    shuffled = shuffled.gather(1, subset_ids.gather(1, shuffled).argsort(dim=1, stable=True))
    return torch.empty_like(place).scatter(1, place, shuffled)


def mix_images(images: Tensor, others: Tensor, lam: Tensor) -> Tensor:
    """Mix images with others.

    Args:
        images: ``(B, ...)``.
        others: Image that each is mixed with, ``(B, ...)``.
        lam: Share of ``images``, ``(B,)``.

    Returns:
        ``(B, ...)``, of the type of ``images``.
    """
    lam = lam.to(images.dtype).view(-1, *[1] * (images.ndim - 1))
    return lam * images + (1 - lam) * others


def mean_lam(lam: Tensor, subset_ids: Tensor, num_subsets: int) -> Tensor:
    r"""Replace the shares of the images by their mean over the subset.

    The code of Wang et al. multiplies the mean cross-entropy of a subset by the vector of all
    :math:`\lambda_i` and takes the mean. That weights every query by the mean share and not by its
    own, although each query was mixed with its own.

    Args:
        lam: Share of each image in each partition, ``(P, B)``.
        subset_ids: Number of each image's subset in each partition, ``(P, B)`` long.
        num_subsets: Number *S* of subsets of all partitions together.

    Returns:
        ``(P, B)``.
    """
    sums = _sum_over_subsets(lam, subset_ids, num_subsets)
    size = _sum_over_subsets(torch.ones_like(lam), subset_ids, num_subsets)
    return (sums / size.clamp(min=1))[subset_ids]


def mixup_risks(
    queries: Tensor,
    keys: Tensor,
    subset_ids: Tensor,
    num_subsets: int,
    partners: Tensor,
    lam: Tensor,
    temperature: float = 0.2,
    irm_temperature: float | None = None,
    penalty: str | None = 'vector',
) -> SubsetRisks:
    r"""Contrastive loss and invariance penalty of subsets, with mixed queries.

    Query *i* of a partition is the first view of image *i*, mixed with that of image :math:`r(i)`
    of the same subset; key *j* is the second view of image *j*. For a subset of *m* images, with
    logits :math:`\ell_{ij} = q_i k_j / \tau` and :math:`p_{ij}` their softmax over its *m* keys,

    .. math::
        L_k = \frac1m \sum_i \big(-\lambda_i \log p_{ii} - (1 - \lambda_i) \log p_{i r(i)}\big)

    One direction only: queries are not compared with queries, nor keys with keys. The penalty is
    the squared gradient norm at a dummy of one. With :math:`y_{ij} = \lambda_i \delta_{ij} +
    (1 - \lambda_i) \delta_{j r(i)}`,

    * ``'vector'`` (code of Wang et al.): one dummy per key,
      :math:`\Omega_k = \sum_j \big(\frac1m \sum_i \ell_{ij} (p_{ij} - y_{ij})\big)^2`;
    * ``'scalar'`` (report Eq. 2): one dummy,
      :math:`\Omega_k = \big(\frac1m \sum_{ij} \ell_{ij} (p_{ij} - y_{ij})\big)^2`.

    Neither depends on the order of the batch.

    Args:
        queries: Projections of the mixed first views, ``(P, B, D)``, rows of unit norm.
        keys: Projections of the second view, ``(B, D)``, rows of unit norm.
        subset_ids: Number of each image's subset in each partition, ``(P, B)`` long. No two
            partitions may share a number.
        num_subsets: Number *S* of subsets of all partitions together.
        partners: Place of each image's partner in the batch, ``(P, B)`` long; of the same subset.
        lam: Weight of the own image, ``(P, B)``; for the weights of Wang et al., from
            :func:`mean_lam`.
        temperature: Temperature of the loss. Defaults to 0.2 (commands of Wang et al.).
        irm_temperature: Temperature of the penalty. Defaults to None, which means ``temperature``.
        penalty: ``'vector'`` or ``'scalar'``; None for penalties of zero, which cost nothing.
            Defaults to ``'vector'``.

    Returns:
        :class:`~ipirm_mm.functional.SubsetRisks` with fields of shape ``(S,)``; in float32 or, for
        float64 inputs, float64. A subset with fewer than two images of the batch has zero loss and
        penalty.

    Raises:
        ValueError: If shapes do not match, or an option has an unknown value.
    """
    if queries.ndim != 3 or keys.ndim != 2 or queries.shape[1:] != keys.shape:
        raise ValueError(
            'queries must be (partitions, batch, width) and keys (batch, width), but their shapes '
            f'are {tuple(queries.shape)} and {tuple(keys.shape)}'
        )
    for name, tensor in (('subset_ids', subset_ids), ('partners', partners), ('lam', lam)):
        if tensor.shape != queries.shape[:2]:
            raise ValueError(
                f'{name} must be {tuple(queries.shape[:2])}, like the queries, but its shape is '
                f'{tuple(tensor.shape)}'
            )
    if penalty is not None and penalty not in PENALTIES:
        raise ValueError(f'penalty must be one of {PENALTIES} or None, but is {penalty!r}')
    if irm_temperature is None:
        irm_temperature = temperature
    if not (temperature > 0 and irm_temperature > 0):
        raise ValueError(
            'temperature and irm_temperature must be positive, but are '
            f'{temperature} and {irm_temperature}'
        )
    with torch.autocast(device_type=queries.device.type, enabled=False):
        # Half precision rounds logits by more than the difference p - y survives.
        similarity = at_least_float32(queries) @ at_least_float32(keys).T  # (P, B, B)
        lam = lam.to(similarity.dtype)[..., None]
        same = subset_ids[:, :, None] == subset_ids[:, None]  # (P, B, B)
        size = _sum_over_subsets(torch.ones_like(similarity[..., 0]), subset_ids, num_subsets)
        # 1 / m; 0 for fewer than two images, so that such a subset counts as exactly zero.
        query_weight = ((size > 1) / size.clamp(min=1))[subset_ids]  # (P, B)
        own = torch.arange(len(keys), device=keys.device).expand_as(partners)[..., None]
        other = partners[..., None]

        def target(matrix: Tensor) -> Tensor:
            """Entries of the own image and of the partner, weighted: (P, B)."""
            return (lam * matrix.gather(2, own) + (1 - lam) * matrix.gather(2, other))[..., 0]

        def of_subset(logits: Tensor) -> Tensor:
            return logits.masked_fill(~same, -torch.inf)

        logits = similarity / temperature
        query_loss = of_subset(logits).logsumexp(2) - target(logits)
        loss = _sum_over_subsets(query_weight * query_loss, subset_ids, num_subsets)
        if penalty is None:
            return SubsetRisks(loss, torch.zeros_like(loss), size.long())
        logits = similarity / irm_temperature
        weighted = logits * of_subset(logits).softmax(2)  # l p, zero outside of the subset
        if penalty == 'scalar':
            gradient = query_weight * (weighted.sum(2) - target(logits))
            gradient = _sum_over_subsets(gradient, subset_ids, num_subsets)
            return SubsetRisks(loss, gradient.square(), size.long())
        # Queries and keys of a subset have the same 1 / m, so the keys can be weighted instead.
        columns = weighted.sum(1) - (lam * logits.gather(2, own))[..., 0]
        columns = columns.scatter_add(1, partners, ((lam - 1) * logits.gather(2, other))[..., 0])
        squares = (query_weight * columns).square()
        return SubsetRisks(loss, _sum_over_subsets(squares, subset_ids, num_subsets), size.long())


def _sum_over_subsets(values: Tensor, subset_ids: Tensor, num_subsets: int) -> Tensor:
    """Sum ``(P, B)``, one value per image and partition, into the subsets: ``(S,)``."""
    return values.new_zeros(num_subsets).index_add(0, subset_ids.flatten(), values.flatten())
