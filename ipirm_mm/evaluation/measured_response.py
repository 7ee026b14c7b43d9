"""Responses of an encoder's features to the augmentations of a config."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from mmpretrain.registry import DATASETS
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from ipirm_mm.datasets import augmented_dataset, recolored_dataset, tell_epoch
from ipirm_mm.errors import UserError

from .augmentation_response import augmentation_response
from .features import build_loader, extract_features


class MeasuredResponse(NamedTuple):
    """What :func:`measure_response` gives.

    Attributes:
        features: Features of the images, ``(N, D)``.
        sample_idx: Which of the chosen images each is, ``(N,)`` long; a pipeline may reject some.
        responses: Response of each dimension to each augmentation, ``(A, D)``, in the order in
            which they were given.
        color: Response to another color of the image, ``(D,)``, where the pipeline colors images
            by a known factor (``TintByFactor``); otherwise None. It is no augmentation.
    """

    features: Tensor
    sample_idx: Tensor
    responses: Tensor
    color: Tensor | None


def image_numbers(total: int, number: int) -> list[int]:
    """Choose images that are spread evenly over a data set, whose classes may come in order.

    Args:
        total: Number of images in the data set.
        number: Number of images to choose; all, if there are fewer.

    Returns:
        Their indices, rising.
    """
    number = min(number, total)
    return [index * total // number for index in range(number)]


def part_of_loader(loader: Mapping[str, Any], dataset: Any, number: int) -> DataLoader:
    """Build a loader of some images of a data set.

    Args:
        loader: Config of the data loader.
        dataset: Config of the data set to load from.
        number: Number of images, see :func:`image_numbers`.

    Returns:
        The data loader, not shuffled.
    """
    built = DATASETS.build(copy.deepcopy(dataset))
    part = Subset(built, image_numbers(len(built), number))
    sampler = dict(type='DefaultSampler', shuffle=False)
    config = {**loader, 'dataset': part, 'sampler': sampler, 'drop_last': False}
    config.pop('num_batch_per_epoch', None)
    return build_loader(config, seed=0)


def measure_response(
    model: Any,
    loader: Mapping[str, Any],
    augmentations: Mapping[str, dict],
    num_images: int = 1000,
    draws: int = 2,
    project: Callable[[Tensor], Tensor] | None = None,
) -> MeasuredResponse:
    """Measure how the features of images change with each augmentation.

    Args:
        model: A model of MMPretrain.
        loader: Config of a data loader with a pipeline for evaluation. Its images are augmented
            after it. Draws depend only on the image and their number, so that different models
            see the same.
        augmentations: Config of each augmentation by its name, see
            :func:`~ipirm_mm.datasets.single_augmentations`.
        num_images: Number of images, spread evenly over the data set. Defaults to 1000.
        draws: Number of draws of each augmentation per image. Defaults to 2.
        project: As in :func:`extract_features`. Defaults to None.

    Returns:
        The responses.

    Raises:
        UserError: If the pipeline leaves out other images when they are augmented, or as
            :func:`augmentation_response`.
    """

    def features_of(dataset: Any, draw: int, name: str) -> tuple[Tensor, Tensor]:
        batches = part_of_loader(loader, dataset, num_images)
        tell_epoch(batches.dataset, epoch=0, seed=0, draw=draw)
        data = extract_features(model, batches, project, f'features, {name}')
        return data['features'][0], data['sample_idx']

    clean, numbers = features_of(loader['dataset'], 0, 'images')

    def response(dataset: Any, draws: int, name: str) -> Tensor:
        found = [features_of(dataset, draw, name) for draw in range(draws)]
        if any(not torch.equal(numbers, other) for _, other in found):
            raise UserError(
                f'the pipeline rejects other images with the augmentation {name} than without: '
                'leave them out of the data set'
            )
        return augmentation_response(clean, [features for features, _ in found])

    responses = [
        response(augmented_dataset(loader['dataset'], step), draws, name)
        for name, step in augmentations.items()
    ]
    recolored = recolored_dataset(loader['dataset'])
    color = None if recolored is None else response(recolored, 1, 'another color')
    return MeasuredResponse(clean, numbers, torch.stack(responses), color)
