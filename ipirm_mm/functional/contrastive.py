"""Step 1 of IP-IRM: contrastive risks and invariance penalties of subsets.

Everything a batch needs comes from one similarity matrix. For an anchor *i* of a subset the loss
needs only two numbers, its positive's logit and the sum of ``exp`` over the other views of its
subset; the latter, for all subsets of all partitions at once, is one product of ``exp(S)`` with a
one-hot matrix. The penalties have closed forms as well, so nothing here differentiates twice, and
autocast, DDP and ``torch.compile`` work as for any other loss.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

PENALTIES = ('vector', 'scalar')
# Logit of a view with its own image, which counts as nothing: exp of it is zero in any precision.
_OWN_LOGIT = -1e5


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

    * ``'scalar'`` (the report): one dummy times all logits.
    * ``'vector'`` (the authors' code, the default): one dummy per logit column. Column 0 holds
      the positives, column *c* each row's *c*-th negative in the order *view 1 of the batch, view
      2 of the batch*. It depends weakly on the order of the batch.

    Args:
        z1: Projections of the first view, ``(B, D)``, rows of unit norm.
        z2: Projections of the second view, ``(B, D)``, rows of unit norm.
        assignments: Subset of each image in each partition, ``(P, B)``, integers in
            ``[0, num_subsets)``.
        num_subsets: Number of subsets *K* of each partition.
        temperature: Temperature of the loss. Defaults to 0.5 (report).
        irm_temperature: Temperature of the penalty (the authors' ``irm_temp``). Defaults to None,
            which means ``temperature``.
        penalty: ``'vector'`` or ``'scalar'``. Defaults to ``'vector'``.

    Returns:
        :class:`SubsetRisks` with fields of shape ``(P, K)``; in float32 or, for float64 inputs,
        float64.

    Raises:
        ValueError: If shapes do not match, or an option has a value that does not exist.
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
    risks = group_contrastive_risks(
        z1,
        z2,
        assignments.to(z1.device, torch.long) + offsets[:, None],
        num_partitions * num_subsets,
        temperature,
        irm_temperature,
        penalty,
    )
    return SubsetRisks(*(value.view(num_partitions, num_subsets) for value in risks))


def group_contrastive_risks(
    z1: Tensor,
    z2: Tensor,
    groups: Tensor,
    num_groups: int,
    temperature: float = 0.5,
    irm_temperature: float | None = None,
    penalty: str = 'vector',
    targets: tuple[Tensor, Tensor] | None = None,
) -> SubsetRisks:
    r"""The same for partitions with different numbers of subsets, numbered through.

    The whole batch and *P* partitions into *K* subsets are ``1 + P K`` groups; see
    :func:`subset_contrastive_risks` for the equations and the other arguments.

    Methods whose two sides differ give ``targets``: then anchor *i* is a row of ``z1`` or ``z2``
    and its positive and its negatives are rows of the targets, :math:`s_{ij} = z_i t_j / \tau`.

    Args:
        z1: Projections of the first view, ``(B, D)``, rows of unit norm.
        z2: Projections of the second view, ``(B, D)``, rows of unit norm.
        groups: Group of each image in each partition, ``(P, B)`` long; no two rows may share a
            group.
        num_groups: Number of groups *G*.
        temperature: Temperature of the loss.
        irm_temperature: Temperature of the penalty; None means ``temperature``.
        penalty: ``'vector'`` or ``'scalar'``.
        targets: What the anchors are compared with, two views, each ``(B, D)``, rows of unit norm;
            SimSiam's are its projections, without gradient. Defaults to None, the anchors.

    Returns:
        :class:`SubsetRisks` with fields of shape ``(G,)``.
    """
    irm_temperature = check_views(z1, z2, temperature, irm_temperature, penalty)
    if targets is not None and any(target.shape != z1.shape for target in targets):
        raise ValueError(
            f'targets must be two tensors of shape {tuple(z1.shape)}, as the anchors, but have '
            f'{[tuple(target.shape) for target in targets]}'
        )
    with torch.autocast(device_type=z1.device.type, enabled=False):
        # Half precision rounds logits by up to 1e-2, which the difference p - 1 does not survive.
        anchors = at_least_float32(torch.cat((z1, z2)))
        target = anchors if targets is None else at_least_float32(torch.cat(targets))
        return _group_contrastive_risks(
            anchors, target, groups, num_groups, temperature, irm_temperature, penalty
        )


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor itself, or one of half precision as float32."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def check_views(
    z1: Tensor, z2: Tensor, temperature: float, irm_temperature: float | None, penalty: str
) -> float:
    """Check what Step 1 and Step 2 have in common.

    Args:
        z1: Projections of the first view, ``(B, D)``.
        z2: Projections of the second view, ``(B, D)``.
        temperature: Temperature of the loss.
        irm_temperature: Temperature of the penalty; None means ``temperature``.
        penalty: Kind of the penalty.

    Returns:
        The temperature of the penalty.

    Raises:
        ValueError: If shapes do not match, or an option has a value that does not exist.
    """
    if z1.ndim != 2 or z1.shape != z2.shape:
        raise ValueError(
            'z1 and z2 must both be (batch, width), but their shapes are '
            f'{tuple(z1.shape)} and {tuple(z2.shape)}'
        )
    if penalty not in PENALTIES:
        raise ValueError(f'penalty must be one of {PENALTIES}, but is {penalty!r}')
    if irm_temperature is None:
        irm_temperature = temperature
    if not (temperature > 0 and irm_temperature > 0):
        raise ValueError(
            'temperature and irm_temperature must be positive, but are '
            f'{temperature} and {irm_temperature}'
        )
    return irm_temperature


def exponentials(
    similarity: Tensor, positive: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, and their exponentials without those of an anchor's own image.

    Each pass over a (2B, 2B) matrix costs more than the product that made it, so that they are
    made in place where autograd allows it.

    Args:
        similarity: Of all views of B images, ``(2B, 2B)``.
        positive: Of the two views of each anchor's image, ``(2B,)``.
        temperature: Temperature.

    Returns:
        The logits ``(2B, 2B)``, not to be used for the own image; the shift of each row ``(2B,)``,
        its largest logit, without gradient, which cancels in every ratio; the exponentials of the
        shifted logits ``(2B, 2B)``, zero for the own image; and that of the positive ``(2B,)``.
    """
    batch = len(similarity) // 2
    logits = similarity / temperature
    # exp is then exactly zero, and so is its product with the logit.
    logits.view(2, batch, 2, batch).diagonal(dim1=1, dim2=3).fill_(_OWN_LOGIT)
    positive = positive / temperature
    shift = torch.maximum(logits.amax(1), positive).detach()
    return logits, shift, (logits - shift[:, None]).exp_(), (positive - shift).exp()


def _group_contrastive_risks(
    anchors: Tensor,
    targets: Tensor,
    groups: Tensor,
    num_groups: int,
    temperature: float,
    irm_temperature: float,
    penalty: str,
) -> SubsetRisks:
    """The risks of ``(2B, D)`` anchors and targets, view 1 of all images and then view 2."""
    batch, device = len(anchors) // 2, anchors.device
    similarity = anchors @ targets.T  # (2B, 2B)
    positive = (anchors * targets.roll(batch, 0)).sum(1)  # (2B,)
    image = torch.arange(batch, device=device).repeat(2)

    member = groups[:, :, None] == torch.arange(num_groups, device=device)  # (P, B, G)
    size = member.sum((0, 1))  # (G,)
    member = member.any(0).to(anchors.dtype)  # (B, G), the one-hot of all partitions side by side
    # 1 / (number of anchors) of the group; 0 for one that has no negatives, so that it counts as
    # exactly zero (the authors' code divides by zero there).
    group_weight = torch.where(size >= 2, 0.5 / size.clamp(min=1).to(anchors.dtype), 0.0)
    anchor_group = groups.T.repeat(2, 1)  # (2B, P)
    anchor_weight = group_weight[anchor_group]  # (2B, P)

    def own_group_sum(matrix: Tensor) -> Tensor:
        """Sum each row of (2B, 2B) over the columns of the row's group: (2B, P)."""
        return ((matrix[:, :batch] + matrix[:, batch:]) @ member).gather(1, anchor_group)

    def sum_over_anchors(values: Tensor) -> Tensor:
        """Sum (2B, P), one value an anchor and partition, into the groups: (G,)."""
        return values.new_zeros(num_groups).index_add(0, anchor_group.flatten(), values.flatten())

    logits, shift, exp, exp_positive = exponentials(similarity, positive, temperature)
    partition_function = exp_positive[:, None] + own_group_sum(exp)  # (2B, P)
    log_partition = partition_function.clamp(min=torch.finfo(exp.dtype).tiny).log()
    anchor_loss = log_partition + (shift - positive / temperature)[:, None]
    loss = sum_over_anchors(anchor_weight * anchor_loss)

    if irm_temperature != temperature:
        logits, _, exp, exp_positive = exponentials(similarity, positive, irm_temperature)
        partition_function = exp_positive[:, None] + own_group_sum(exp)
    partition_function = partition_function.clamp(min=torch.finfo(exp.dtype).tiny)
    positive_logit = (positive / irm_temperature)[:, None]  # (2B, 1)
    weighted = logits * exp  # s_ij e^{s_ij}, zero for the own image

    if penalty == 'scalar':
        mean_logit = (
            positive_logit * exp_positive[:, None] + own_group_sum(weighted)
        ) / partition_function
        gradient = sum_over_anchors(anchor_weight * (mean_logit - positive_logit))
        return SubsetRisks(loss, gradient.square(), size)

    # Column 0: the positives.
    first = sum_over_anchors(
        anchor_weight * positive_logit * (exp_positive[:, None] / partition_function - 1)
    )
    # Column c of view b holds, for anchors whose image has a rank above c in the group, the view
    # of the image of rank c, and for the others that of rank c + 1 (their own image is left out).
    # So it is the sum of the c-th image over the anchors after it, and of the next image over the
    # anchors before it.
    responsibility = anchor_weight / partition_function  # (2B, P)
    by_group = responsibility.new_zeros(2 * batch, num_groups).scatter(
        1, anchor_group, responsibility
    )
    after = image[:, None] > image[None, :]
    from_after = (weighted * after).T @ by_group  # (2B, G)
    from_before = (weighted * after.T).T @ by_group
    from_after = from_after.gather(1, anchor_group)  # (2B, P), each column's own group
    from_before = from_before.gather(1, anchor_group)
    following, has_following = _next_of_group(groups)  # (P, B)
    following = torch.cat((following.T, following.T + batch))  # (2B, P)
    column = from_after + from_before.gather(0, following) * has_following.T.repeat(2, 1)
    return SubsetRisks(loss, first.square() + sum_over_anchors(column.square()), size)


def _next_of_group(groups: Tensor) -> tuple[Tensor, Tensor]:
    """The next image of the same group in batch order.

    Args:
        groups: ``(P, B)`` long.

    Returns:
        Its index, ``(P, B)`` long, and whether there is one, ``(P, B)`` bool.
    """
    order = torch.sort(groups, dim=1, stable=True).indices
    sorted_groups = groups.gather(1, order)
    following = torch.cat((order[:, 1:], order[:, :1]), 1)
    exists = torch.cat(
        (
            sorted_groups[:, 1:] == sorted_groups[:, :-1],
            torch.zeros_like(groups[:, :1], dtype=torch.bool),
        ),
        1,
    )
    return (
        torch.empty_like(groups).scatter(1, order, following),
        torch.empty_like(exists).scatter(1, order, exists),
    )


class _GatherBatch(torch.autograd.Function):
    """All-gather whose backward is that of a loss which every rank computes alike."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        world_size = dist.get_world_size()
        parts = [torch.empty_like(local) for _ in range(world_size)]
        dist.all_gather(parts, local.contiguous())
        return torch.stack(parts, 1).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        world_size, rank = dist.get_world_size(), dist.get_rank()
        return grad.unflatten(0, (-1, world_size))[:, rank] * world_size


def gather_batch(local: Tensor) -> Tensor:
    """Gather the rows of all ranks into the batch that one process would have had.

    Rows are interleaved (row 0 of each rank, row 1 of each rank, ...), the order in which
    MMEngine's ``DefaultSampler`` deals them out, so that the vector penalty, which depends on the
    order, is that of one process.

    The gradient assumes that every rank computes the same loss of the gathered rows and that
    parameter gradients are averaged over ranks, as DDP does: it is the own rows' part times the
    world size, which makes the average the gradient of one process. (MMPretrain's ``GatherLayer``
    leaves that factor out, so that its gradients shrink as ranks are added.)

    Args:
        local: This rank's rows, ``(b, ...)``, as many on each rank.

    Returns:
        All rows, ``(world_size * b, ...)``; ``local`` itself in a single process.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return local
    return _GatherBatch.apply(local)
