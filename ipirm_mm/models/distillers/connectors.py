"""What brings a student's maps to the width of its teacher's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class PointwiseConv(nn.Conv2d):
    """A convolution of 1x1 without bias, which on processors is a product of matrices.

    oneDNN brings weights and maps into an order of its own and back, each time: at the stages of a
    ResNet-50 that takes a third of the time (8 images of 128 or 224 pixels).

    Args:
        in_channels: Width of the maps.
        out_channels: Width to bring them to.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """The maps at the other width.

        Args:
            maps: ``(N, in_channels, H, W)``.

        Returns:
            ``(N, out_channels, H, W)``.
        """
        if maps.device.type != 'cpu':
            return super().forward(maps)
        # Not in half precision under autocast: what goes back would be of another type.
        with torch.autocast('cpu', enabled=False):
            return _PointwiseProduct.apply(maps.to(self.weight.dtype), self.weight)


class _PointwiseProduct(torch.autograd.Function):
    """The product, with gradients that lie in memory like the maps.

    Those that autograd makes of the same operations do not, and slow down what they go back to.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(maps, weight)
        return _multiply(weight.flatten(1), maps)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:  # type: ignore[override]
        maps, weight = ctx.saved_tensors
        grad_maps = _multiply(weight.flatten(1).t(), grad) if ctx.needs_input_grad[0] else None
        rows, columns = grad.flatten(2), maps.flatten(2)
        if _is_fine(maps):
            product = rows[0] @ columns[0].t()
            for row, column in zip(rows[1:], columns[1:]):
                product.addmm_(row, column.t())
        else:
            product = _side_by_side(rows) @ _side_by_side(columns).t()
        return grad_maps, product.view_as(weight)


def _multiply(matrix: Tensor, maps: Tensor) -> Tensor:
    """``matrix`` ``(M, C)`` times each position of ``maps`` ``(N, C, H, W)``."""
    flat = maps.flatten(2)
    if _is_fine(maps):
        product = matrix.expand(len(maps), -1, -1).bmm(flat)
    else:
        product = matrix @ _side_by_side(flat)
        product = product.view(len(matrix), len(maps), -1).transpose(0, 1).contiguous()
    return product.view(len(maps), len(matrix), *maps.shape[2:])


def _is_fine(maps: Tensor) -> bool:
    """Whether there are so many positions that the matrix may be read anew for each image."""
    return 2 * maps.shape[2] * maps.shape[3] >= maps.shape[1]


def _side_by_side(flat: Tensor) -> Tensor:
    """All images of ``(N, C, P)`` as one matrix, ``(C, N * P)``; a copy."""
    return flat.transpose(0, 1).flatten(1)
