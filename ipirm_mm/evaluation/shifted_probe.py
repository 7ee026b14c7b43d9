"""Linear probe whose training images have a factor that follows the class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .linear_probe import LinearProbe


def tied_rows(
    labels: Tensor, factor: Tensor, shift: int = 0, follow: float = 0.9
) -> tuple[Tensor, Tensor]:
    """Select images in which a factor follows the class, and as many in which it does not.

    The factor follows the class if its value is number ``(class + shift) % V`` of its *V* values,
    in order. No image is selected twice in one set. Nothing is random.

    Args:
        labels: Classes, ``(N,)`` long, from 0.
        factor: Values of the factor, ``(N,)`` integers.
        shift: Offset of the value that follows a class. Defaults to 0.
        follow: Fraction of the tied set whose factor follows the class, above 0 to 1. Defaults to
            0.9.

    Returns:
        Indices of the tied set, and of a control of the same number of images per class, taken at
        equal distances from all images of the class.
    """
    values, factor = torch.unique(factor, return_inverse=True)
    tied, free = [], []
    for label in torch.unique(labels):
        rows = (labels == label).nonzero().squeeze(1)
        follows = factor[rows] == (label + shift) % len(values)
        others = rows[~follows]
        count = min(len(others), round(int(follows.sum()) * (1 - follow) / follow))
        tied += [rows[follows], others[_spread(len(others), count, rows)]]
        count += int(follows.sum())
        free.append(rows[(_spread(len(rows), count, rows) + shift) % len(rows)])
    return torch.cat(tied), torch.cat(free)


def shifted_probe(
    features: Tensor,
    labels: Tensor,
    factor: Tensor,
    held_out: tuple[Tensor, Tensor],
    follow: float = 0.9,
    weight_decay: float = 1e-3,
    progress: Callable[[float], None] | None = None,
) -> tuple[float, float]:
    """Accuracy of the class where a factor followed it in training and no longer does.

    For each way in which the factor can follow the class (see :func:`tied_rows`), a linear probe
    is fitted to images in which it does, and to the same number per class in which it does not.
    Both classify the same images. An encoder in which the factor is apart from the class loses
    little. The images are selected, none is changed; so about *N / V* of them train a probe,
    where *V* is the number of values.

    Args:
        features: ``(N, D)``, to which the probes are fitted.
        labels: Classes, ``(N,)`` long, from 0.
        factor: Values of the factor, ``(N,)`` integers.
        held_out: Features and classes of the images to classify; the factor should be independent
            of the class there.
        follow: Fraction of the training images whose factor follows the class. Defaults to 0.9.
        weight_decay: See :class:`LinearProbe`. Defaults to 1e-3.
        progress: Called with the fraction that is done, 0 to 1. Defaults to None.

    Returns:
        Mean accuracy over the ways, 0 to 1: with the factor tied to the class, and of the control.

    Raises:
        ValueError: If ``follow`` is out of range.
    """
    if not 0 < follow <= 1:
        raise ValueError(f'follow must be above 0 and at most 1, but is {follow}')
    ways = len(torch.unique(factor))
    other, truth = held_out
    correct: list[list[float]] = [[], []]
    for shift in range(ways):
        for number, rows in enumerate(tied_rows(labels, factor, shift, follow)):
            if progress is not None:
                progress((2 * shift + number) / (2 * ways))
            if not len(rows):
                continue
            probe = LinearProbe(weight_decay).fit(features[rows], labels[rows])
            correct[number].append(float((probe.predict(other) == truth).double().mean()))
    tied, free = (sum(values) / len(values) for values in correct)
    return tied, free


def _spread(size: int, count: int, like: Tensor) -> Tensor:
    """``count`` different numbers below ``size``, at equal distances."""
    return torch.arange(count, device=like.device) * size // max(count, 1)
