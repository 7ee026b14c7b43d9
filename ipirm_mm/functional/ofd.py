"""Stage II: overhaul of feature distillation, OFD (Heo et al., 2019; report Table 4)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def ofd_margin(weight: Tensor, bias: Tensor) -> Tensor:
    r"""Margin of each channel: the mean of its negative responses (Heo et al., 2019, Eq. 4).

    Batch normalization makes a channel normal with mean :math:`\beta` and deviation
    :math:`s = |\gamma|`, so that with :math:`z = -\beta / s`

    .. math:: m = E[x \mid x < 0] = \beta - s \, \phi(z) / \Phi(z),

    and :math:`m = -3s` where :math:`\Phi(z) \le 0.001` (code of Heo et al.). A channel of weight 0
    is constant, and that code divides by zero. Here its margin is :math:`\min(\beta, 0)`.

    Args:
        weight: Weight :math:`\gamma` of the normalization before the ReLU, ``(C,)``.
        bias: Its bias :math:`\beta`, ``(C,)``.

    Returns:
        ``(C,)``, with the dtype of ``weight``; computed in float64, without gradient.
    """
    scale, shift = weight.detach().double().abs(), bias.detach().double()
    z = -shift / scale.where(scale > 0, torch.ones_like(scale))
    below = torch.special.ndtr(z)  # Phi
    density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    rare = below <= 0.001
    mean = shift - scale * density / below.where(~rare, torch.ones_like(below))
    margin = torch.where(rare, -3 * scale, mean)
    return torch.where(scale > 0, margin, shift.clamp(max=0)).to(weight.dtype)


def ofd_distance(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    r"""Partial squared distance of features before a ReLU (Heo et al., 2019, Eq. 2 and 3).

    .. math:: \sum (F_s - F_t)^2 \cdot 1[F_s > F_t \text{ or } F_t > 0], \quad F_t = \max(f_t, m)

    Where the teacher is below its margin, a student below it costs nothing.

    Args:
        student: Student's features after its connector, ``(N, C, H, W)``.
        teacher: Teacher's features before the ReLU, ``(N, C, H, W)``; gets no gradient.
        margin: Margin of each channel, ``(C,)``, see :func:`ofd_margin`.

    Returns:
        Scalar, a plain sum over all elements; at least float32.

    Raises:
        ValueError: If the shapes do not match.
    """
    if student.shape != teacher.shape or margin.shape != student.shape[1:2]:
        raise ValueError(
            f'student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must have the '
            f'same shape, and margin {tuple(margin.shape)} one value per channel'
        )
    return _OFDDistance.apply(student, teacher, margin)


class _OFDDistance(torch.autograd.Function):
    """The distance, with few passes over the features.

    Autograd would keep five arrays of the features' size and write six more.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:  # type: ignore[override]
        # In half precision a sum of squares overflows.
        precise = torch.promote_types(student.dtype, torch.float32)
        target = torch.maximum(teacher, margin.to(precise).view(1, -1, 1, 1))
        difference = student - target
        # An element counts where the greater of difference and target is positive. The operator is
        # the backward of a ReLU, in place; `torch.where` takes ten times as long on processors.
        greater = torch.maximum(difference, target, out=target)
        torch.ops.aten.threshold_backward.grad_input(difference, greater, 0, grad_input=difference)
        ctx.save_for_backward(difference)
        ctx.dtype = student.dtype
        # One norm per map: a norm over everything loses three digits in float32 on processors.
        return torch.linalg.vector_norm(difference, dim=(2, 3)).square().sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:  # type: ignore[override]
        (difference,) = ctx.saved_tensors
        return (2 * grad * difference).to(ctx.dtype), None, None
