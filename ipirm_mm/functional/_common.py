"""What several functions share: checks of the inputs, precision, exponentials."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Kinds of the invariance penalty: one dummy per logit column (the code of Wang et al.), or one
#: dummy for all logits (report Eq. 2).
PENALTIES = ('vector', 'scalar')
# Logit that must not count, as of a view with its own image: its exp is zero in any precision.
_OWN_LOGIT = -1e5


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return the tensor itself, or a float32 copy if it has half precision."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def unit_rows(features: Tensor) -> Tensor:
    """Scale rows to unit norm.

    Args:
        features: ``(N, D)``.

    Returns:
        ``(N, D)``, in float32 or, for float64 inputs, float64. A row of zeros stays zero.
    """
    return F.normalize(at_least_float32(features), dim=1, eps=1e-10)


def check_logits(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> None:
    """Check the arguments that the losses of logits share.

    Args:
        student_logits: Logits of the student, ``(N, C)``.
        teacher_logits: Logits of the teacher, ``(N, C)``.
        temperature: Temperature.

    Raises:
        ValueError: If the shapes differ or the temperature is not positive.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f'student_logits {tuple(student_logits.shape)} and teacher_logits '
            f'{tuple(teacher_logits.shape)} must have the same shape'
        )
    if not temperature > 0:
        raise ValueError(f'temperature must be positive, but is {temperature}')


def check_views(
    z1: Tensor, z2: Tensor, temperature: float, irm_temperature: float | None, penalty: str
) -> float:
    """Check the arguments that Step 1 and Step 2 share.

    Args:
        z1: Projections of the first view, ``(B, D)``.
        z2: Projections of the second view, ``(B, D)``.
        temperature: Temperature of the loss.
        irm_temperature: Temperature of the penalty; None means ``temperature``.
        penalty: Kind of the penalty, one of :data:`PENALTIES`.

    Returns:
        The temperature of the penalty.

    Raises:
        ValueError: If shapes do not match, a temperature is not positive, or the penalty is
            unknown.
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
    logits: Tensor, positive: Tensor, first: int = 0, other_view_only: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Exponentials of logits, without the terms of an anchor's own image or own view.

    Each pass over a ``(2B, 2B)`` matrix costs more than the product that made it. So the passes
    work in place where autograd allows it.

    Args:
        logits: Logits of R consecutive images of a batch of B as anchors, both of their views, and
            all views of the batch, ``(2R, 2B)``. The entries that are left out are overwritten.
        positive: Logit of each anchor with its positive, ``(2R,)``.
        first: Number of the first of the R images. Defaults to 0.
        other_view_only: Whether the terms of the anchor's own view are left out too. Defaults to
            False.

    Returns:
        Three tensors. The shift of each row ``(2R,)``: its largest logit, without gradient, which
        cancels in every ratio. The exponentials of the shifted logits ``(2R, 2B)``, zero for those
        that are left out. The exponential of the positive's shifted logit ``(2R,)``.
    """
    rows, batch = len(logits) // 2, logits.shape[1] // 2
    # The exp is then exactly zero, and so is its product with the logit.
    by_view = logits.view(2, rows, 2, batch)
    by_view[..., first : first + rows].diagonal(dim1=1, dim2=3).fill_(_OWN_LOGIT)
    if other_view_only:
        by_view.diagonal(dim1=0, dim2=2).fill_(_OWN_LOGIT)
    shift = torch.maximum(logits.amax(1), positive).detach()
    return shift, (logits - shift[:, None]).exp_(), (positive - shift).exp()
