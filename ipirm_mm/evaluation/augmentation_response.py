"""Which dimensions of a feature follow augmentations: Figure 2 (a) of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ipirm_mm.errors import UserError

from .linear_probe import LinearProbe

# Changes below this share of a dimension's largest value are rounding errors of the network.
_ROUNDING = 1e-6


def mean_difference(features: Tensor) -> Tensor:
    """Mean absolute difference between two different images, per dimension (Gini's).

    Args:
        features: ``(N, D)``, N at least 2.

    Returns:
        ``(D,)``, float64: the mean of ``|f_d(x_i) - f_d(x_j)|`` over all pairs of i and j that
        are not the same.
    """
    count = len(features)
    ranked = features.double().sort(0).values
    # In sorted order, value number i is the larger one of i pairs, the smaller of the others.
    weight = 2 * torch.arange(count, device=features.device, dtype=torch.float64) - (count - 1)
    return 2 * (weight[:, None] * ranked).sum(0) / (count * (count - 1))


def augmentation_response(features: Tensor, augmented: Sequence[Tensor]) -> Tensor:
    """How much each dimension changes when an image is augmented.

    Dimension d responds by the mean of ``|f_d(aug(x)) - f_d(x)|`` over the images and draws of
    the augmentation, divided by the mean of ``|f_d(x) - f_d(x')|`` over pairs of different images.
    0 means that the augmentation does not change the dimension; 1 that it changes it as much as
    taking another image does. The report draws its figure without saying how it was computed; this
    definition is ours. The divisor is a mean absolute difference, as the numerator is, and not a
    standard deviation: many dimensions behind a ReLU are zero for most images and large for a few,
    which a standard deviation weighs more than the numerator does.

    Args:
        features: Features of the images, ``(N, D)``.
        augmented: Features of the augmented images, ``(N, D)`` for each draw of the augmentation.

    Returns:
        ``(D,)``, float64, at least 0. A dimension that is constant over the images has the
        response 0 if it remains so when they are augmented, infinity otherwise.

    Raises:
        UserError: If there are fewer than two images, or no draw.
    """
    if len(features) < 2 or not len(augmented):
        raise UserError(
            f'the response to an augmentation was asked of {len(features)} images and '
            f'{len(augmented)} draws: give at least two images and one draw'
        )
    clean = features.double()
    views = torch.stack([view.double() for view in augmented])
    change = (views - clean).abs().mean((0, 1))
    scale = mean_difference(clean)
    rounding = _ROUNDING * torch.maximum(clean.abs().amax(0), views.abs().amax((0, 1)))
    change = torch.where(change > rounding, change, 0.0)
    response = change / torch.where(scale > rounding, scale, 0.0)
    return torch.where(change > 0, response, 0.0)


def split_dimensions(responses: Tensor, share: float = 0.5) -> tuple[Tensor, Tensor]:
    """Split dimensions into those that follow augmentations and those that do not.

    Args:
        responses: Response of each dimension to each augmentation, ``(A, D)``, see
            :func:`augmentation_response`.
        share: Share of the dimensions in the first part. Defaults to 0.5.

    Returns:
        Numbers of the ``round(share * D)`` dimensions with the largest mean response over the
        augmentations ("aug. equivariant"), and of the others ("aug. unrelated"); both long, by
        decreasing response. Of equal ones the dimension with the lower number comes first.

    Raises:
        UserError: If one of the parts would be empty.
    """
    dimensions = responses.shape[1]
    first = round(share * dimensions)
    if not 0 < first < dimensions:
        raise UserError(
            f'a share of {share} of {dimensions} dimensions leaves one part without any: give '
            'a share between 0 and 1 that leaves a dimension in each'
        )
    order = responses.mean(0).argsort(descending=True, stable=True)
    return order[:first], order[first:]


def random_parts(
    dimensions: int, first: int, draws: int, seed: int = 0
) -> list[tuple[Tensor, Tensor]]:
    """Split dimensions at random, the control of :func:`split_dimensions`.

    Args:
        dimensions: Number of dimensions *D*.
        first: Number of dimensions in the first part.
        draws: Number of splits.
        seed: Seed of the splits. Defaults to 0.

    Returns:
        Numbers of the dimensions of both parts, long, for each split.
    """
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(dimensions, generator=generator) for _ in range(draws)]
    return [(order[:first], order[first:]) for order in orders]


def probe_parts(
    bank: Tensor,
    bank_labels: Tensor,
    query: Tensor,
    query_labels: Tensor,
    parts: Mapping[str, Tensor],
    weight_decay: float = 1e-3,
) -> dict[str, Tensor]:
    """Classify by some of the dimensions alone, with a linear probe for each part.

    Args:
        bank: Features of the labeled images, ``(N, D)``.
        bank_labels: Their classes, ``(N,)`` long.
        query: Features of the images to classify, ``(M, D)``.
        query_labels: Their classes, ``(M,)`` long.
        parts: Numbers of the dimensions of each part, by its name.
        weight_decay: As in :class:`LinearProbe`. Defaults to 1e-3.

    Returns:
        For each part whether each image was classified correctly, ``(M,)`` bool.
    """
    correct = {}
    for name, numbers in parts.items():
        numbers = numbers.to(bank.device)
        probe = LinearProbe(weight_decay).fit(bank[:, numbers], bank_labels)
        correct[name] = probe.predict(query[:, numbers]) == query_labels
    return correct
