"""Gather a batch over all ranks, with the gradient of one process."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _GatherBatch(torch.autograd.Function):
    """All-gather with the backward pass of a loss that every rank computes in full."""

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
    """Gather the rows of all ranks into the batch that one process would have.

    Rows are interleaved: row 0 of each rank, row 1 of each rank, and so on. MMEngine's
    ``DefaultSampler`` deals out images in this order. So the vector penalty, which depends on the
    order of the batch, is that of one process.

    The gradient assumes that every rank computes the same loss from the gathered rows, and that
    parameter gradients are averaged over ranks, as DDP does. It is the part of the rank's own rows
    times the world size, so the average over ranks is the gradient of one process.

    Fault bridged: MMPretrain's ``GatherLayer`` leaves out that factor. Its gradients shrink as
    ranks are added (measured: one half at two ranks).

    Args:
        local: Rows of this rank, ``(b, ...)``. Every rank must have the same number of rows.

    Returns:
        All rows, ``(world_size * b, ...)``. In a single process, ``local`` itself.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return local
    return _GatherBatch.apply(local)


def own_rows() -> slice:
    """Where the rows of this rank are among those of :func:`gather_batch`.

    Returns:
        Slice of the gathered rows, in the order of the rank's own batch.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return slice(None)
    return slice(dist.get_rank(), None, dist.get_world_size())
