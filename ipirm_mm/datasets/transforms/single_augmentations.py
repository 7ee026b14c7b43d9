"""The augmentations of a config, each alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from ipirm_mm.errors import UserError
from ipirm_mm.utils import type_name

from ..pipelines import pipelines, with_pipelines
from .view_pipeline import insert_before_packing, moves_pixels_at_random

# Transforms that hold a sequence of others, all of which are applied.
_SEQUENCES = ('Compose', 'MultiView', 'SeededMultiView', 'SeededTransforms')
_NAMES = dict(
    RandomResizedCrop='crop',
    TorchRandomResizedCrop='crop',
    RandomCrop='crop',
    RandomFlip='flip',
    ColorJitter='color jitter',
    RandomGrayscale='grayscale',
    GaussianBlur='blur',
    Solarize='solarize',
)
# Transforms that have a probability also where the config does not give it.
_HAVE_ONE = ('GaussianBlur', 'RandomApply', 'RandomErasing', 'RandomGrayscale', 'Solarize')
# Under which other name transforms have their probability.
_PROBABILITIES = dict(RandomErasing='erase_prob')


def single_augmentations(config: Mapping[str, Any]) -> dict[str, dict]:
    """List the augmentations of a training, each to be applied alone and to every image.

    They are the transforms of the views (``MultiView`` in the pipeline of ``train_dataloader``,
    ``transforms`` of ``BatchedViews``), or of the pipeline itself, without those that load,
    resize, crop the center or pack. The probability of each becomes 1: it is asked what an
    augmentation does to an image, not how often it is applied.

    Args:
        config: A config of a training; not changed.

    Returns:
        Config of each augmentation by its name, such as ``'crop'``, in the order of the pipeline.
        Of equal ones there is one.

    Raises:
        UserError: If there is none.
    """
    preprocessors = [config.get('data_preprocessor'), config['model'].get('data_preprocessor')]
    sources: list[Any] = list(pipelines((config.get('train_dataloader') or {}).get('dataset')))
    sources += [(part or {}).get('transforms') for part in preprocessors]
    found: dict[str, dict] = {}
    for step in _steps(sources):
        always = _always(copy.deepcopy(step))
        if always in found.values():
            continue
        name = first = _name(step)
        number = 2
        while name in found:
            name, number = f'{first} {number}', number + 1
        found[name] = always
    if not found:
        raise UserError(
            'the config has no augmentation: neither the pipeline of train_dataloader nor '
            'data_preprocessor.transforms changes images at random; give the config of a training '
            'with augmentations first'
        )
    return found


def augmented_dataset(dataset: Any, augmentation: dict) -> Any:
    """Config of a data set whose images are augmented after its own pipeline.

    Args:
        dataset: Config of a data set, with its wrappers; not changed.
        augmentation: Config of the augmentation. Its draws depend on the image and on what
            :func:`~ipirm_mm.datasets.tell_epoch` is told.

    Returns:
        The new config.
    """
    seeded = dict(type='SeededTransforms', transforms=[augmentation])
    return with_pipelines(dataset, lambda steps: insert_before_packing(steps, [seeded]))


def recolored_dataset(dataset: Any) -> Any | None:
    """Config of a data set whose images have other colors, where ``TintByFactor`` gives them.

    The colors are drawn by another seed: one image in ``num_factors`` keeps its own by chance.

    Args:
        dataset: Config of a data set, with its wrappers; not changed.

    Returns:
        The new config; None if there is no ``TintByFactor`` in its pipeline.
    """
    found = False

    def recolor(steps: list) -> list:
        nonlocal found
        steps = copy.deepcopy(list(steps))
        for step in steps:
            if type_name(step['type']) == 'TintByFactor':
                step['seed'] = step.get('seed', 0) + 1
                found = True
        return steps

    changed = with_pipelines(dataset, recolor)
    return changed if found else None


def _steps(node: Any) -> Iterator[Any]:
    """The augmentations among the transforms of nested pipelines."""
    if isinstance(node, (list, tuple)):
        for part in node:
            yield from _steps(part)
    elif isinstance(node, Mapping):
        if type_name(node['type']) in _SEQUENCES:
            yield from _steps(node['transforms'])
        elif moves_pixels_at_random(node):
            yield node


def _always(step: Any) -> Any:
    """An augmentation that is applied to every image."""
    kind = type_name(step['type'])
    prob = _PROBABILITIES.get(kind, 'prob')
    # A list has one probability per direction of a flip; the sum of it says how often.
    if isinstance(step.get(prob), (int, float)) or (kind in _HAVE_ONE and prob not in step):
        step[prob] = 1.0
    if kind == 'RandomApply':
        step['transforms'] = [_always(inner) for inner in step['transforms']]
    return step


def _name(step: Any) -> str:
    kind = type_name(step['type'])
    if kind == 'RandomApply':
        return ' + '.join(_name(inner) for inner in step['transforms'])
    return _NAMES.get(kind, kind)
