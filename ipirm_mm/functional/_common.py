"""What Step 1 and Step 2 of IP-IRM share: checks of the inputs, precision, exponentials."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Kinds of the invariance penalty: one dummy per logit column (the code of Wang et al.), or one
#: dummy for all logits (report Eq. 2).
PENALTIES = ('vector', 'scalar')
# Logit of a view with its own image, which must not count: its exp is zero in any precision.
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
    similarity: Tensor, positive: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits and their exponentials, without the terms of an anchor's own image.

    Each pass over a ``(2B, 2B)`` matrix costs more than the product that made it. So the passes
    work in place where autograd allows it.

    Args:
        similarity: Similarities of all views of B images, ``(2B, 2B)``.
        positive: Similarity of the two views of each anchor's image, ``(2B,)``.
        temperature: Temperature.

    Returns:
        Four tensors. The logits ``(2B, 2B)``, whose entries of the own image are invalid. The
        shift of each row ``(2B,)``: its largest logit, without gradient, which cancels in every
        ratio. The exponentials of the shifted logits ``(2B, 2B)``, zero for the own image. The
        exponential of the positive's shifted logit ``(2B,)``.
    """
    batch = len(similarity) // 2
    logits = similarity / temperature
    # The exp is then exactly zero, and so is its product with the logit.
    logits.view(2, batch, 2, batch).diagonal(dim1=1, dim2=3).fill_(_OWN_LOGIT)
    positive = positive / temperature
    shift = torch.maximum(logits.amax(1), positive).detach()
    return logits, shift, (logits - shift[:, None]).exp_(), (positive - shift).exp()
