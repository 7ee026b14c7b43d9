"""Confidence intervals of accuracies."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def bootstrap_interval(
    correct: Tensor, samples: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of an accuracy, or of a gain, over its test images.

    It says nothing about other seeds of a training.

    Args:
        correct: Whether, or how often, each test image was classified correctly, ``(M,)``, 0 to 1;
            for a gain, the difference between two models, -1 to 1.
        samples: Number of resamples. Defaults to 1000.
        level: Coverage. Defaults to 0.95.
        seed: Seed of the resampling. Defaults to 0.

    Returns:
        Lower and upper end, as fractions.
    """
    values = correct.double().cpu().numpy()
    generator = np.random.default_rng(seed)
    # Some 100 MB of resamples at a time.
    chunk = max(1, 10**7 // len(values))
    sizes = [min(chunk, samples - begin) for begin in range(0, samples, chunk)]
    means = np.concatenate(
        [values[generator.integers(len(values), size=(n, len(values)))].mean(1) for n in sizes]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def format_interval(interval: tuple[float, float], spec: str = '.1f', scale: float = 100.0) -> str:
    """Write an interval as text: ``'45.6 to 47.1'``.

    Args:
        interval: Lower and upper end, such as :func:`bootstrap_interval` returns.
        spec: Format of both ends. Defaults to ``'.1f'``; gains take a sign, ``'+.2f'``.
        scale: Factor of both ends. Defaults to 100, which shows fractions in percent.

    Returns:
        The text.
    """
    low, high = interval
    return f'{scale * low:{spec}} to {scale * high:{spec}}'
