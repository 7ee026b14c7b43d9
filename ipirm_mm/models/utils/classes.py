"""Names of classes: of checkpoints, configs and data sets, and whether they are the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from mmpretrain.registry import DATASETS
from torch import Tensor

from ipirm_mm.errors import UserError

Names = tuple[str, ...]


def as_names(classes: Any) -> Names | None:
    """Names of classes as a tuple; None if they are not known.

    Args:
        classes: A sequence of names, None, or something else that is no names.
    """
    if isinstance(classes, np.ndarray):
        classes = classes.tolist()
    if not isinstance(classes, (list, tuple)) or not classes:
        return None
    if not all(isinstance(name, (str, int)) for name in classes):
        return None
    return tuple(str(name) for name in classes)


def dataset_class_names(dataset: Any) -> Names | None:
    """Names of the classes of a built data set, or of a wrapper around one.

    Args:
        dataset: The data set.

    Returns:
        The names in its ``metainfo``; None if they are not known.
    """
    return as_names((getattr(dataset, 'metainfo', None) or {}).get('classes'))


def class_names(checkpoint: str | None, config: Any = None) -> Names | None:
    """Names of the classes that a classifier was trained on, in the order of its scores.

    They are in the ``meta`` of a checkpoint that MMEngine or ``tools/publish_model.py`` saved.
    Otherwise those that the config gives its training data are taken.

    Args:
        checkpoint: Path or address of the checkpoint; None for the config alone.
        config: Config of the training. Defaults to None.

    Returns:
        The names; None if they are not known.
    """
    names = None
    if checkpoint is not None:
        content = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
        meta = content.get('meta') if isinstance(content, dict) else None
        meta = meta if isinstance(meta, dict) else {}
        data = meta.get('dataset_meta')
        data = data if isinstance(data, dict) else {}
        names = as_names(data.get('classes')) or as_names(meta.get('CLASSES'))
    if names is None and config is not None:
        names = config_class_names(config)
    return names


def config_class_names(config: Any, loader: str = 'train_dataloader') -> Names | None:
    """Names of the classes that a config gives the data set of a loader, without building it.

    Args:
        config: The config.
        loader: Name of the loader. Defaults to ``'train_dataloader'``.

    Returns:
        The names in ``classes`` or ``metainfo``, or those of the data set's class; None if they
        are not known.
    """
    dataset = (config.get(loader) or {}).get('dataset') or {}
    while isinstance(dataset, dict) and isinstance(dataset.get('dataset'), dict):
        dataset = dataset['dataset']  # of a wrapper, such as RepeatDataset
    if not isinstance(dataset, dict):
        return None
    # MMPretrain's data sets take them as an argument too, which comes first.
    given = as_names(dataset.get('classes')) or as_names(
        (dataset.get('metainfo') or {}).get('classes')
    )
    kind = dataset.get('type')
    cls = DATASETS.get(kind) if isinstance(kind, str) else kind
    return given or as_names((getattr(cls, 'METAINFO', None) or {}).get('classes'))


def class_order(
    one: Names | None, other: Names | None, one_name: str, other_name: str
) -> Tensor | None:
    """Where each class of one side is among the classes of the other.

    Args:
        one: Names of the classes in the order that is wanted; None if they are not known.
        other: Names in the order of the scores that are to be mapped; None if not known.
        one_name: What the first side is, for messages.
        other_name: What the other side is.

    Returns:
        ``(C,)`` long, for ``scores[:, order]``; None if the order is the same or not known.

    Raises:
        UserError: If the names differ. The message has the first difference.
    """
    if one is None or other is None or one == other:
        return None
    if Counter(one) != Counter(other) or len(set(one)) < len(one):
        place = next(
            (n for n, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other))
        )
        first, second = (
            repr(names[place]) if place < len(names) else 'nothing' for names in (one, other)
        )
        raise UserError(
            f'{one_name} and {other_name} have different classes: class {place} is {first} in '
            f'one and {second} in the other ({len(one)} and {len(other)} classes): use the same '
            'classes, or, if only the spelling differs, give the names by metainfo.classes of the '
            'data set'
        )
    places = {name: place for place, name in enumerate(other)}
    print_log(
        f'{other_name} has the classes of {one_name} in another order: its scores are mapped',
        logger='current',
    )
    return torch.tensor([places[name] for name in one])


def common_classes(
    classes: Sequence[Names | None], names: Sequence[str]
) -> tuple[Names | None, list[Tensor | None]]:
    """The classes of several members, and how to map each member to them.

    Args:
        classes: Names of the classes of each member; None where they are not known.
        names: What the members are, for messages.

    Returns:
        The names, those of the first member that knows them, and for each member the order for
        ``scores[:, order]``, or None.

    Raises:
        UserError: If two members have different classes.
    """
    known = [number for number, member in enumerate(classes) if member is not None]
    if len(classes) > 1 and len(known) < len(classes):
        unknown = next(n for n in range(len(classes)) if n not in known)
        say_unknown(names[unknown])
    if not known:
        return None, [None] * len(classes)
    first = known[0]
    # Members without names keep their order: so does a member before them that has names.
    orders = [
        class_order(classes[first], member, names[first], name)
        for member, name in zip(classes, names)
    ]
    return classes[first], orders


def say_unknown(name: str) -> None:
    """Say in one line that the names of the classes are not known."""
    print_log(
        f'{name} does not name its classes: they are taken to be in the same order',
        logger='current',
    )
