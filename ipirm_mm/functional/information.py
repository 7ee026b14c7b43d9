"""Mutual information between partitions, and with known factors."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _joint(a: Tensor, b: Tensor) -> Tensor:
    """Joint distribution of two labellings, float64 ``(A, B)``."""
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(
            f'two labellings of the same items are needed, but shapes are {tuple(a.shape)} and '
            f'{tuple(b.shape)}'
        )
    _, a = torch.unique(a, return_inverse=True)
    _, b = torch.unique(b, return_inverse=True)
    rows, columns = int(a.max()) + 1, int(b.max()) + 1
    counts = torch.bincount(a * columns + b, minlength=rows * columns)
    return counts.view(rows, columns).double() / len(a)


def _entropy(distribution: Tensor) -> Tensor:
    return -torch.special.xlogy(distribution, distribution).sum()


def mutual_information(a: Tensor, b: Tensor) -> Tensor:
    """Mutual information of two labellings.

    Args:
        a: Labels, ``(N,)`` integers.
        b: Labels of the same items, ``(N,)`` integers.

    Returns:
        Scalar, in bits, float64.
    """
    joint = _joint(a, b)
    nats = _entropy(joint.sum(1)) + _entropy(joint.sum(0)) - _entropy(joint)
    return nats.clamp(min=0) / math.log(2)


def normalized_mutual_information(a: Tensor, b: Tensor) -> Tensor:
    """Mutual information divided by the mean of the two entropies.

    Args:
        a: Labels, ``(N,)`` integers.
        b: Labels of the same items, ``(N,)`` integers.

    Returns:
        Scalar from 0 (independent, or one of them constant) to 1 (the same), float64.
    """
    joint = _joint(a, b)
    first, second = _entropy(joint.sum(1)), _entropy(joint.sum(0))
    nats = (first + second - _entropy(joint)).clamp(min=0)
    mean = (first + second) / 2
    constant = (first <= 0) | (second <= 0)
    return torch.where(constant, 0.0, nats / mean.clamp(min=torch.finfo(mean.dtype).tiny))
