"""Classes of images, in all forms in which data sets give them."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import torch


def one_class(label: Any) -> int | None:
    """The class of an image.

    Args:
        label: What a data set gives as ``gt_label``: an integer of Python or NumPy, an array,
            tensor or list, or None.

    Returns:
        The class; None if there is no class (also as a negative number), there are several, or
        it is soft.
    """
    if isinstance(label, Integral) and not isinstance(label, bool):
        return int(label) if int(label) >= 0 else None
    if isinstance(label, torch.Tensor):
        label = label.detach().cpu().numpy()
    if isinstance(label, (list, tuple)):
        if len(label) != 1:
            return None
        return one_class(label[0])
    if isinstance(label, (np.ndarray, np.generic)) and label.size == 1:
        value = np.asarray(label).reshape(-1)[0]
        return int(value) if isinstance(value, np.integer) and value >= 0 else None
    return None


def why_not_one_class(labels: list[Any]) -> str:
    """Say why images have not one class each, to put after "the images of ...".

    Args:
        labels: What the data set gives for each image, None where it gives nothing.

    Returns:
        Such as ``'have no labels'``.
    """
    missing = sum(label is None for label in labels)
    if missing == len(labels):
        return 'have no labels'
    if missing:
        return f'have labels only in part ({len(labels) - missing} of {len(labels)})'
    others = [label for label in labels if one_class(label) is None]
    first = others[0] if others else None
    first = first.tolist() if isinstance(first, (torch.Tensor, np.ndarray)) else first
    return (
        f'have several labels each, none, or soft ones ({len(others)} of {len(labels)} images), '
        f'such as {str(first)[:40]}'
    )
