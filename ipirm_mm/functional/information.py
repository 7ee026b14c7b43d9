"""Mutual information of partitions with each other and with known factors."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _joint(a: Tensor, b: Tensor) -> Tensor:
    """Joint distribution of two labelings, float64 ``(A, B)``."""
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(
            f'a and b must both be (N,), labels of the same items, but their shapes are '
            f'{tuple(a.shape)} and {tuple(b.shape)}'
        )
    _, a = torch.unique(a, return_inverse=True)
    _, b = torch.unique(b, return_inverse=True)
    rows, columns = int(a.max()) + 1, int(b.max()) + 1
    counts = torch.bincount(a * columns + b, minlength=rows * columns)
    return counts.view(rows, columns).double() / len(a)


def _entropy(distribution: Tensor) -> Tensor:
    return -torch.special.xlogy(distribution, distribution).sum()


def mutual_information(a: Tensor, b: Tensor) -> Tensor:
    """Mutual information of two labelings of the same items.

    Args:
        a: Labels, ``(N,)`` integers.
        b: Labels of the same items, ``(N,)`` integers.

    Returns:
        Scalar, in bits, float64.

    Raises:
        ValueError: If the shapes differ.
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
        Scalar from 0 (independent, or one labeling is constant) to 1 (equal partitions), float64.

    Raises:
        ValueError: If the shapes differ.
    """
    joint = _joint(a, b)
    first, second = _entropy(joint.sum(1)), _entropy(joint.sum(0))
    nats = (first + second - _entropy(joint)).clamp(min=0)
    mean = (first + second) / 2
    constant = (first <= 0) | (second <= 0)
    return torch.where(constant, 0.0, nats / mean.clamp(min=torch.finfo(mean.dtype).tiny))
