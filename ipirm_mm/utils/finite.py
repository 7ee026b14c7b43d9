"""Finding values that are not finite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def find_non_finite(values: Any, name: str = '') -> str | None:
    """Find the first tensor that has a value that is not finite (NaN or infinite).

    It waits for the device of the tensors, once per tensor: not for a training step.

    Args:
        values: A tensor, or dicts and lists of tensors, as checkpoints have them; what is none of
            these is not looked at.
        name: What the values are, the beginning of the name that is returned. Defaults to nothing.

    Returns:
        The keys that lead to the tensor, with dots between them; None if all are finite.
    """
    if isinstance(values, Tensor):
        numbers = values.is_floating_point() or values.is_complex()
        return name if numbers and not bool(torch.isfinite(values).all()) else None
    items = (
        values.items()
        if isinstance(values, dict)
        else enumerate(values)
        if isinstance(values, (list, tuple))
        else ()
    )
    for key, value in items:
        found = find_non_finite(value, f'{name}.{key}' if name else str(key))
        if found is not None:
            return found
    return None
