"""Step 1 of IP-IRM: contrastive risks and invariance penalties of subsets.

Everything that a batch needs comes from one similarity matrix. For an anchor *i* of a subset, the
loss needs two numbers: the logit of its positive, and the sum of ``exp`` over the other views of
the subset. One product of ``exp(S)`` with a one-hot matrix gives that sum for all subsets of all
partitions at once. The penalties have closed forms too. So nothing here differentiates twice, and
autocast, DDP and ``torch.compile`` work as with any other loss.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ._common import at_least_float32, check_views, exponentials

#: Which targets of the subset are negatives of an anchor.
NEGATIVES = ('both_views', 'other_view')


class SubsetRisks(NamedTuple):
    """Risk of each subset of a batch.

    Attributes:
        loss: Mean contrastive loss of the subset's anchors; zero where ``size < 2``.
        penalty: Squared norm of its gradient with respect to the dummy; zero where ``size < 2``.
        size: Number of images of the batch in the subset, long.
    """

    loss: Tensor
    penalty: Tensor
    size: Tensor


def subset_contrastive_risks(
    z1: Tensor,
    z2: Tensor,
    assignments: Tensor,
    num_subsets: int,
    temperature: float = 0.5,
    irm_temperature: float | None = None,
    penalty: str = 'vector',
) -> SubsetRisks:
    r"""Contrastive loss and invariance penalty of every subset of every partition.

    For partition *p* and subset *k* with *m* images of the batch, the anchors are its ``2m``
    views. Anchor *i* has the other view of its image as positive and the other ``2m - 2`` views of
    the same subset as negatives (report Eq. 1), with logits :math:`s_{ij} = z_i z_j / \tau`:

    .. math:: L_k = \frac{1}{2m} \sum_i \Big(\log \sum_j e^{s_{ij}} - s_{i+}\Big)

    The penalty is the squared gradient norm at a dummy of one (report Eq. 2):

    * ``'scalar'`` (the report): one dummy multiplies all logits.
    * ``'vector'`` (the code of Wang et al., the default): one dummy per logit column. Column 0
      holds the positives. Column *c* holds the *c*-th negative of each row, in the order *view 1
      of the batch, view 2 of the batch*. So the penalty depends weakly on the order of the batch.

    Args:
        z1: Projections of the first view, ``(B, D)``, rows of unit norm.
        z2: Projections of the second view, ``(B, D)``, rows of unit norm.
        assignments: Subset of each image in each partition, ``(P, B)``, integers in
            ``[0, num_subsets)``.
        num_subsets: Number of subsets *K* of each partition.
        temperature: Temperature of the loss. Defaults to 0.5 (report).
        irm_temperature: Temperature of the penalty (``irm_temp`` in the code of Wang et al.).
            Defaults to None, which means ``temperature``.
        penalty: ``'vector'`` or ``'scalar'``. Defaults to ``'vector'``.

    Returns:
        :class:`SubsetRisks` with fields of shape ``(P, K)``; in float32 or, for float64 inputs,
        float64. A subset with fewer than two images of the batch has zero loss and penalty (the
        code of Wang et al. gives NaN for an empty one).

    Raises:
        ValueError: If shapes do not match, or an option has an unknown value.
    """
    if assignments.ndim != 2 or assignments.shape[1] != z1.shape[0]:
        raise ValueError(
            f'assignments must be (partitions, {z1.shape[0]}), one subset per image of the batch, '
            f'but its shape is {tuple(assignments.shape)}'
        )
    if num_subsets < 1:
        raise ValueError(f'num_subsets must be at least 1, but is {num_subsets}')
    num_partitions = assignments.shape[0]
    offsets = num_subsets * torch.arange(num_partitions, device=z1.device)
    risks = contrastive_risks(
        z1,
        z2,
        assignments.to(z1.device, torch.long) + offsets[:, None],
        num_partitions * num_subsets,
        temperature,
        irm_temperature,
        penalty,
    )
    return SubsetRisks(*(value.view(num_partitions, num_subsets) for value in risks))


def contrastive_risks(
    z1: Tensor,
    z2: Tensor,
    subset_ids: Tensor,
    num_subsets: int,
    temperature: float = 0.5,
    irm_temperature: float | None = None,
    penalty: str | None = 'vector',
    targets: tuple[Tensor, Tensor] | None = None,
    negatives: str = 'both_views',
) -> SubsetRisks:
    r"""Contrastive loss and invariance penalty of subsets that have one number each.

    The equations are those of :func:`subset_contrastive_risks`. Here the subsets of all partitions
    share one numbering, so partitions may differ in their number of subsets. The whole batch as
    one subset and *P* partitions into *K* subsets have the numbers 0 to ``P K``.

    Methods with a predictor pass ``targets``. Then anchor *i* is a row of ``z1`` or ``z2``, and
    its positive and its negatives are rows of the targets: :math:`s_{ij} = z_i t_j / \tau`.

    With ``negatives='other_view'``, as in MoCo v3, an anchor has only the ``m - 1`` targets of the
    other view as negatives. The vector penalty then has a dummy for the positives, and one for
    each column of negatives of each view.

    Args:
        z1: Projections of the first view, ``(B, D)``, rows of unit norm.
        z2: Projections of the second view, ``(B, D)``, rows of unit norm.
        subset_ids: Number of each image's subset in each partition, ``(P, B)`` long. No two
            partitions may share a number.
        num_subsets: Number *S* of subsets of all partitions together.
        temperature: Temperature of the loss. Defaults to 0.5 (report).
        irm_temperature: Temperature of the penalty. Defaults to None, which means ``temperature``.
        penalty: ``'vector'`` or ``'scalar'``; None for penalties of zero, which cost nothing.
            Defaults to ``'vector'``.
        targets: Two views to compare the anchors with, each ``(B, D)``, rows of unit norm. For
            SimSiam these are the projections, without gradient. Defaults to None: the anchors
            themselves.
        negatives: ``'both_views'`` or ``'other_view'``. Defaults to ``'both_views'``.

    Returns:
        :class:`SubsetRisks` with fields of shape ``(S,)``; in float32 or, for float64 inputs,
        float64.

    Raises:
        ValueError: If shapes do not match, or an option has an unknown value.
    """
    irm_temperature = check_views(z1, z2, temperature, irm_temperature, penalty or 'vector')
    if negatives not in NEGATIVES:
        raise ValueError(f'negatives must be one of {NEGATIVES}, but is {negatives!r}')
    if targets is not None and any(target.shape != z1.shape for target in targets):
        raise ValueError(
            f'targets must be two tensors of shape {tuple(z1.shape)}, like the anchors, but have '
            f'{[tuple(target.shape) for target in targets]}'
        )
    with torch.autocast(device_type=z1.device.type, enabled=False):
        # Half precision rounds logits by up to 1e-2, which the difference p - 1 does not survive.
        anchors = at_least_float32(torch.cat((z1, z2)))
        target = anchors if targets is None else at_least_float32(torch.cat(targets))
        return _contrastive_risks(
            anchors,
            target,
            subset_ids,
            num_subsets,
            temperature,
            irm_temperature,
            penalty,
            negatives == 'other_view',
        )


def _contrastive_risks(
    anchors: Tensor,
    targets: Tensor,
    subset_ids: Tensor,
    num_subsets: int,
    temperature: float,
    irm_temperature: float,
    penalty: str | None,
    other_view_only: bool,
) -> SubsetRisks:
    """Risks of ``(2B, D)`` anchors and targets; rows are view 1 of all images, then view 2."""
    batch = len(anchors) // 2
    similarity = anchors @ targets.T  # (2B, 2B)
    positive = (anchors * targets.roll(batch, 0)).sum(1)  # (2B,)
    # (B, S), the one-hot of all partitions side by side.
    member = anchors.new_zeros(batch, num_subsets).scatter_(1, subset_ids.T, 1.0)
    size = member.sum(0)  # (S,)
    # 1 / (number of anchors) of the subset. It is 0 without negatives, so that such a subset
    # counts as exactly zero (the code of Wang et al. divides by zero there).
    subset_weight = (size > 1) / (2 * size).clamp_(min=1)
    size = size.long()
    anchor_subset = subset_ids.T.repeat(2, 1)  # (2B, P)
    anchor_weight = subset_weight[anchor_subset]  # (2B, P)

    def own_subset_sum(matrix: Tensor) -> Tensor:
        """Sum each row of (2B, 2B) over the columns of the row's subset: (2B, P)."""
        return ((matrix[:, :batch] + matrix[:, batch:]) @ member).gather(1, anchor_subset)

    def sum_over_anchors(values: Tensor) -> Tensor:
        """Sum (2B, P), one value per anchor and partition, into the subsets: (S,)."""
        return values.new_zeros(num_subsets).index_add(
            0, anchor_subset.flatten(), values.flatten()
        )

    logits = similarity / temperature
    shift, exp, exp_positive = exponentials(
        logits, positive / temperature, other_view_only=other_view_only
    )
    partition_function = exp_positive[:, None] + own_subset_sum(exp)  # (2B, P)
    log_partition = partition_function.clamp(min=torch.finfo(exp.dtype).tiny).log()
    anchor_loss = log_partition + (shift - positive / temperature)[:, None]
    loss = sum_over_anchors(anchor_weight * anchor_loss)
    if penalty is None:
        return SubsetRisks(loss, torch.zeros_like(loss), size)

    if irm_temperature != temperature:
        logits = similarity / irm_temperature
        _, exp, exp_positive = exponentials(
            logits, positive / irm_temperature, other_view_only=other_view_only
        )
        partition_function = exp_positive[:, None] + own_subset_sum(exp)
    partition_function = partition_function.clamp(min=torch.finfo(exp.dtype).tiny)
    positive_logit = (positive / irm_temperature)[:, None]  # (2B, 1)
    weighted = logits * exp  # s_ij e^{s_ij}, zero for the own image

    if penalty == 'scalar':
        mean_logit = (
            positive_logit * exp_positive[:, None] + own_subset_sum(weighted)
        ) / partition_function
        gradient = sum_over_anchors(anchor_weight * (mean_logit - positive_logit))
        return SubsetRisks(loss, gradient.square(), size)

    # Column 0: the positives.
    first = sum_over_anchors(
        anchor_weight * positive_logit * (exp_positive[:, None] / partition_function - 1)
    )
    # Rank the images of a subset by their place in the batch. In column c of view b stands the
    # image of rank c for anchors of a higher rank, and the image of rank c + 1 for all other
    # anchors, whose own image is left out. So the column's gradient is the sum of image c over the
    # anchors after it, plus the sum of the next image over the anchors before it.
    image = torch.arange(batch, device=anchors.device).repeat(2)
    responsibility = anchor_weight / partition_function  # (2B, P)
    by_subset = responsibility.new_zeros(2 * batch, num_subsets).scatter(
        1, anchor_subset, responsibility
    )
    after = image[:, None] > image[None, :]
    from_after = (weighted * after).T @ by_subset  # (2B, S)
    from_before = (weighted * after.T).T @ by_subset
    from_after = from_after.gather(1, anchor_subset)  # (2B, P), each column's own subset
    from_before = from_before.gather(1, anchor_subset)
    following, has_following = _next_of_subset(subset_ids)  # (P, B)
    following = torch.cat((following.T, following.T + batch))  # (2B, P)
    column = from_after + from_before.gather(0, following) * has_following.T.repeat(2, 1)
    return SubsetRisks(loss, first.square() + sum_over_anchors(column.square()), size)


def _next_of_subset(subset_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Find the next image of the same subset in batch order.

    Args:
        subset_ids: Number of each image's subset, ``(P, B)`` long.

    Returns:
        Its index, ``(P, B)`` long, and whether there is one, ``(P, B)`` bool.
    """
    order = torch.sort(subset_ids, dim=1, stable=True).indices
    sorted_ids = subset_ids.gather(1, order)
    following = torch.cat((order[:, 1:], order[:, :1]), 1)
    exists = torch.cat(
        (
            sorted_ids[:, 1:] == sorted_ids[:, :-1],
            torch.zeros_like(subset_ids[:, :1], dtype=torch.bool),
        ),
        1,
    )
    return (
        torch.empty_like(subset_ids).scatter(1, order, following),
        torch.empty_like(exists).scatter(1, order, exists),
    )
