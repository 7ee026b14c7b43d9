"""Pipelines in the config of a data set, also of one within wrappers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ipirm_mm.errors import UserError

# Where wrappers such as KFoldDataset and ConcatDataset have what they wrap.
_WRAPPED = ('dataset', 'datasets')


def pipelines(dataset: Any) -> Iterator[list]:
    """The pipelines of a data set and of those that it wraps, as its config has them.

    Args:
        dataset: The config, or a list of several.
    """
    if isinstance(dataset, (list, tuple)):
        for part in dataset:
            yield from pipelines(part)
    elif isinstance(dataset, Mapping):
        if dataset.get('pipeline'):
            yield dataset['pipeline']
        for key in _WRAPPED:
            yield from pipelines(dataset.get(key))


def one_pipeline(loader: Mapping[str, Any] | None, name: str) -> list:
    """The pipeline of the images of a data loader.

    Args:
        loader: Config of the data loader.
        name: Its name for messages, such as ``'test_dataloader'``.

    Returns:
        The pipeline; of several data sets, that of the first.

    Raises:
        UserError: If there is none, or several data sets have different ones.
    """
    found = list(pipelines((loader or {}).get('dataset')))
    if not found:
        raise UserError(
            f'{name}.dataset.pipeline is missing, the transforms of the images: give it'
        )
    if any(other != found[0] for other in found[1:]):
        raise UserError(
            f'the data sets of {name} have different pipelines, but one is needed for all: give '
            'them the same, or one of these data sets alone'
        )
    return found[0]


def with_pipelines(dataset: Any, change: Callable[[list], list]) -> Any:
    """A config of a data set with all its pipelines changed.

    Args:
        dataset: The config, or a list of several; it is not changed.
        change: Maps a pipeline to a new one.

    Returns:
        The changed config.
    """
    if isinstance(dataset, (list, tuple)):
        return [with_pipelines(part, change) for part in dataset]
    dataset = copy.deepcopy(dataset)
    if dataset.get('pipeline'):
        dataset['pipeline'] = change(dataset['pipeline'])
    for key in _WRAPPED:
        if dataset.get(key):
            dataset[key] = with_pipelines(dataset[key], change)
    return dataset
