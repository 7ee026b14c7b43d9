"""How a representation is divided among known factors: DCI, IRS, modularity and explicitness.

All functions take features ``(N, D)`` and the factors of the same images, ``(N, F)`` integers, of
which each must have at least two values; the values themselves do not matter. They compute in
float64 on the device of the features. Nothing is random.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .linear_probe import LinearProbe
from .sparse_probe import SparseProbe

# Bounds the memory of a block of dimensions to some 100 MB of float64.
_BLOCK = 10**7


class DCI(NamedTuple):
    """What :func:`dci` returns.

    Attributes:
        disentanglement: 0 to 1; NaN with one factor.
        completeness: 0 to 1; NaN with one dimension.
        informativeness: Accuracy of each factor, ``(F,)``, 0 to 1.
        importance: How much the classifier of each factor uses each dimension, ``(D, F)``.
    """

    disentanglement: float
    completeness: float
    informativeness: Tensor
    importance: Tensor


def dci(
    features: Tensor,
    factors: Tensor,
    held_out: tuple[Tensor, Tensor] | None = None,
    l1_weight: float = 0.01,
    progress: Callable[[float], None] | None = None,
) -> DCI:
    """Disentanglement, completeness and informativeness (Eastwood & Williams, ICLR 2018).

    A linear classifier with an L1 penalty predicts each factor from standardized features. The
    importance of dimension *d* for factor *f* is the sum of the absolute weights of *d* over the
    values of *f*. Disentanglement: 1 minus the entropy (base *F*) of a dimension's importance for
    the factors, averaged over the dimensions with their importance as weights. Completeness: 1
    minus the entropy (base *D*) of a factor's importance over the dimensions, averaged in the same
    way. Informativeness: accuracy of the classifier.

    Eastwood & Williams regress continuous factors by lasso, or by random forests, and choose the
    penalty by cross-validation; the code of disentanglement_lib (Locatello et al., 2019) takes
    gradient boosted trees. Only values with the same ``l1_weight`` can be compared.

    A constant dimension has no importance, but counts in *D*. If no classifier uses any dimension,
    disentanglement and completeness are 0, as in disentanglement_lib.

    Args:
        features: ``(N, D)``, to which the classifiers are fitted.
        factors: ``(N, F)`` integers.
        held_out: Features and factors of other images, for informativeness. A value of a factor
            that ``factors`` lacks counts as an error. Defaults to None: the same images.
        l1_weight: Strength of the penalty, see :class:`SparseProbe`. Defaults to 0.01.
        progress: Called with the fraction that is done, 0 to 1. Defaults to None.

    Returns:
        The measures.

    Raises:
        ValueError: If shapes do not fit, a factor has one value only, or features are not finite.
    """
    _check(features, factors)
    other, truth = _checked_held_out(features, factors, held_out)
    importance, accuracy = [], []
    for f in range(factors.shape[1]):
        values, labels = torch.unique(factors[:, f], return_inverse=True)
        probe = SparseProbe(l1_weight).fit(features, labels, _part(progress, f, factors.shape[1]))
        importance.append(probe.weight.abs().sum(0))
        accuracy.append((values[probe.predict(other)] == truth[:, f]).double().mean())
    return dci_of_importance(torch.stack(importance, 1), torch.stack(accuracy))


def dci_of_importance(importance: Tensor, informativeness: Tensor) -> DCI:
    """Compute disentanglement and completeness from importances; see :func:`dci`.

    Args:
        importance: ``(D, F)``, not negative.
        informativeness: ``(F,)``.

    Returns:
        The measures.
    """
    importance = importance.double()
    total = importance.sum()

    def concentration(rows: Tensor) -> float:
        """Weighted mean over rows of 1 minus their normalized entropy."""
        if rows.shape[1] < 2:
            return math.nan
        if not total > 0:
            return 0.0
        shares = rows / rows.sum(1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
        entropy = -torch.special.xlogy(shares, shares).sum(1) / math.log(rows.shape[1])
        return float(((1 - entropy) * rows.sum(1)).sum() / total)

    return DCI(concentration(importance), concentration(importance.T), informativeness, importance)


class IRS(NamedTuple):
    """What :func:`irs` returns.

    Attributes:
        score: 0 to 1; below 0 if fixing any factor makes the greatest deviation higher.
        per_dimension: The highest robustness of each dimension, ``(D,)``; NaN if it is constant.
        parent: The factor with which a dimension is that robust, ``(D,)`` long.
    """

    score: float
    per_dimension: Tensor
    parent: Tensor


def irs(features: Tensor, factors: Tensor, quantile: float = 0.99) -> IRS:
    """Interventional robustness score (Suter et al., ICML 2019).

    How little a dimension moves while one factor is fixed and all else changes: 1 minus the
    deviation from the mean of the images with one value of the factor (``quantile`` over the
    images, mean over the values), divided by the greatest deviation of the dimension from its mean
    over all images. The score is the highest over the factors, averaged over the dimensions with
    their greatest deviations as weights. This is ``scalable_disentanglement_score`` of
    disentanglement_lib, which assumes independent factors and no variation besides them.

    Constant dimensions are left out; if all are constant, the score is 0. Values with one image
    have deviation 0, which makes the score too high.

    Args:
        features: ``(N, D)``.
        factors: ``(N, F)`` integers.
        quantile: Which deviation represents the images with one value, 0 to 1; 1 is the maximum
            of the paper. Defaults to 0.99 (disentanglement_lib).

    Returns:
        The measures.

    Raises:
        ValueError: If shapes do not fit, a factor has one value only, or features are not finite.
    """
    _check(features, factors)
    groups = [
        [factors[:, f] == value for value in torch.unique(factors[:, f])]
        for f in range(factors.shape[1])
    ]
    robustness, greatest = [], []
    for block in _blocks(features):
        deviation = (block - block.mean(0)).abs().amax(0)
        columns = []
        for members in groups:
            fixed = torch.zeros_like(deviation)
            for member in members:
                rows = block[member]
                fixed += _quantile((rows - rows.mean(0)).abs(), quantile)
            columns.append(1 - fixed / len(members) / deviation)
        robustness.append(torch.stack(columns, 1))
        # Rounding gives constant features a deviation, relative to their size.
        greatest.append(deviation.where(deviation > 1e-12 * block.abs().amax(0), 0.0))
    weight = torch.cat(greatest)
    best, parent = torch.cat(robustness).max(1)
    best = best.where(weight > 0, math.nan)
    total = float(weight.sum())
    score = float((best.nan_to_num() * weight).sum()) / total if total > 0 else 0.0
    return IRS(score, best, parent)


class Modularity(NamedTuple):
    """What :func:`modularity` returns.

    Attributes:
        score: 0 to 1; NaN with one factor.
        per_dimension: ``(D,)``.
        information: Mutual information of each dimension with each factor, ``(D, F)``, in bits.
    """

    score: float
    per_dimension: Tensor
    information: Tensor


def modularity(features: Tensor, factors: Tensor, num_bins: int = 20) -> Modularity:
    """Modularity (Ridgeway & Mozer, NeurIPS 2018): whether a dimension knows one factor only.

    From the mutual information *m* of the dimension, in bins of equal width, with each factor:
    1 minus the sum of *m²* over all factors but the best, divided by *F - 1* times the best *m²*.
    The score is the mean over the dimensions. As in ``modularity_explicitness`` of
    disentanglement_lib, a dimension without information, such as a constant one, has modularity 0
    and counts.

    The estimate of *m* is too high by about (bins - 1)(values - 1) / (2 N ln 2) bits. A dimension
    of noise therefore has *m* above 0, and a modularity that depends on the numbers of values.

    Args:
        features: ``(N, D)``.
        factors: ``(N, F)`` integers.
        num_bins: Number of bins. Defaults to 20 (disentanglement_lib).

    Returns:
        The measures.

    Raises:
        ValueError: If shapes do not fit, a factor has one value only, or features are not finite.
    """
    _check(features, factors)
    blocks = []
    for block in _blocks(features):
        bins = _bins(block, num_bins)
        columns = [_information(bins, factors[:, f], num_bins) for f in range(factors.shape[1])]
        blocks.append(torch.stack(columns, 1))
    information = torch.cat(blocks)
    squares = information.square()
    best = squares.amax(1)
    others = (squares.sum(1) - best) / max(1, factors.shape[1] - 1)
    each = torch.where(best > 0, 1 - others / best, 0.0)
    score = math.nan if factors.shape[1] < 2 else float(each.mean())
    return Modularity(score, each, information)


def explicitness(
    features: Tensor,
    factors: Tensor,
    held_out: tuple[Tensor, Tensor] | None = None,
    weight_decay: float = 1e-3,
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """Explicitness (Ridgeway & Mozer, NeurIPS 2018): whether factors can be read out linearly.

    The area under the ROC curve of the probability that a logistic regression gives a value of the
    factor, against all other values; scaled so that chance is 0 and perfect is 1, and averaged
    over the values. As in disentanglement_lib one multinomial regression serves all values of a
    factor; it does not scale the area.

    Args:
        features: ``(N, D)``, to which the regressions are fitted.
        factors: ``(N, F)`` integers.
        held_out: Features and factors of other images, for the areas. Values that no image or all
            images have, or that ``factors`` lacks, are left out; a factor without any other has
            NaN. Defaults to None: the same images.
        weight_decay: Strength of the L2 penalty, see :class:`LinearProbe`. Defaults to 1e-3.
        progress: Called with the fraction that is done, 0 to 1. Defaults to None.

    Returns:
        Explicitness of each factor, ``(F,)`` float64, -1 to 1; the score of a representation is
        their mean.

    Raises:
        ValueError: If shapes do not fit, a factor has one value only, or features are not finite.
    """
    _check(features, factors)
    other, truth = _checked_held_out(features, factors, held_out)
    result = []
    for f in range(factors.shape[1]):
        values, labels = torch.unique(factors[:, f], return_inverse=True)
        probe = LinearProbe(weight_decay).fit(
            features, labels, _part(progress, f, factors.shape[1])
        )
        scores = probe.scores(other).softmax(1)
        areas = [
            area_under_roc(scores[:, v], truth[:, f] == values[v]) for v in range(len(values))
        ]
        result.append((2 * torch.stack(areas) - 1).nanmean())
    return torch.stack(result)


def area_under_roc(scores: Tensor, positive: Tensor) -> Tensor:
    """Area under the ROC curve: how often a positive item has the higher score; ties count half.

    Args:
        scores: ``(N,)``.
        positive: ``(N,)`` bool.

    Returns:
        Scalar float64, 0 to 1; NaN if all items, or none, are positive.
    """
    # Twice the average rank of a score is the number of lower ones plus that of lower or equal
    # ones, plus one.
    scores = scores.contiguous()
    ordered = scores.sort().values
    twice = torch.searchsorted(ordered, scores, right=False).double()
    twice = twice + torch.searchsorted(ordered, scores, right=True).double() + 1
    count = positive.sum().double()
    pairs = count * (len(scores) - count)
    return ((twice[positive] / 2).sum() - count * (count + 1) / 2) / pairs


def _check(features: Tensor, factors: Tensor) -> None:
    if features.ndim != 2 or factors.ndim != 2 or len(features) != len(factors):
        raise ValueError(
            f'features must be (N, D) and factors (N, F), but their shapes are '
            f'{tuple(features.shape)} and {tuple(factors.shape)}'
        )
    if factors.is_floating_point() or not factors.shape[1] or not features.shape[1]:
        raise ValueError(
            'factors must be integers, at least one, and features have at least one dimension, '
            f'but they are {factors.dtype} {tuple(factors.shape)} and {tuple(features.shape)}'
        )
    if not bool(features.isfinite().all()):
        raise ValueError('features must be finite, but some are infinite or NaN')
    for f in range(factors.shape[1]):
        if len(torch.unique(factors[:, f])) < 2:
            raise ValueError(
                f'factors[:, {f}] must have at least two values, but all of its {len(factors)} '
                'are equal'
            )


def _checked_held_out(
    features: Tensor, factors: Tensor, held_out: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    if held_out is None:
        return features, factors
    other, truth = held_out
    shapes = tuple(other.shape), tuple(truth.shape)
    rows = len(other)
    if not rows or shapes != ((rows, features.shape[1]), (rows, factors.shape[1])):
        raise ValueError(
            f'held_out must be features (M, {features.shape[1]}) and factors '
            f'(M, {factors.shape[1]}), but their shapes are {shapes[0]} and {shapes[1]}'
        )
    return other, truth


def _part(
    progress: Callable[[float], None] | None, number: int, parts: int
) -> Callable[[float], None] | None:
    """Progress of one of several equal parts."""
    if progress is None:
        return None
    return lambda fraction: progress((number + fraction) / parts)


def _blocks(features: Tensor) -> list[Tensor]:
    """Blocks of dimensions, float64, which bound the memory."""
    return [block.double() for block in features.split(max(1, _BLOCK // len(features)), 1)]


def _quantile(values: Tensor, q: float) -> Tensor:
    """Quantile of each column, linear between order statistics; of any number of values.

    ``torch.quantile`` refuses more than 2**24.
    """
    ordered = values.sort(0).values
    position = q * (len(values) - 1)
    low = math.floor(position)
    high = min(low + 1, len(values) - 1)
    return torch.lerp(ordered[low], ordered[high], position - low)


def _bins(block: Tensor, num_bins: int) -> Tensor:
    """Bin of each value, ``(N, D)`` long: bins of equal width from the lowest to the highest.

    A value on an edge belongs to the higher bin, except for the highest value.
    """
    low, high = block.amin(0), block.amax(0)
    steps = torch.arange(num_bins, device=block.device, dtype=block.dtype)
    edges = low[:, None] + steps * ((high - low) / num_bins)[:, None]
    return torch.searchsorted(edges, block.T.contiguous(), right=True).T - 1


def _information(bins: Tensor, factor: Tensor, num_bins: int) -> Tensor:
    """Mutual information of each dimension with a factor, ``(D,)``, in bits."""
    values, labels = torch.unique(factor, return_inverse=True)
    size = num_bins * len(values)
    dimensions = torch.arange(bins.shape[1], device=bins.device)
    cells = dimensions * size + bins * len(values) + labels[:, None]
    counts = torch.bincount(cells.flatten(), minlength=size * bins.shape[1])
    joint = counts.view(bins.shape[1], num_bins, len(values)).double() / len(bins)

    def entropy(distribution: Tensor) -> Tensor:
        return -torch.special.xlogy(distribution, distribution).flatten(1).sum(1)

    nats = entropy(joint.sum(1)) + entropy(joint.sum(2)) - entropy(joint)
    # What is left of a constant dimension is rounding's.
    return nats.where(nats > 1e-12, 0.0) / math.log(2)
