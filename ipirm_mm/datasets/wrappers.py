"""The data sets within wrappers, those of MMEngine, of PyTorch and of users."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from torch.utils.data import Dataset

_WRAPPED = ('dataset', 'datasets', '_dataset')
# What an attribute of that name may be other than a data set.
_PLAIN = (str, bytes, list, tuple, dict, np.ndarray, torch.Tensor)


def inner_datasets(dataset: Any) -> Iterator[Any]:
    """All data sets within the wrappers, the outermost first."""
    yield dataset
    for key in _WRAPPED:
        # Not getattr: some wrappers pass unknown names on to what they wrap.
        child = vars(dataset).get(key) if hasattr(dataset, '__dict__') else None
        children = child if isinstance(child, (list, tuple)) else [child]
        for inner in children:
            if hasattr(inner, '__getitem__') and not isinstance(inner, _PLAIN):
                yield from inner_datasets(inner)
    if isinstance(dataset, BaseDataset) or not hasattr(dataset, '__dict__'):
        return
    for key, child in vars(dataset).items():  # wrappers of users, under other names
        if key not in _WRAPPED:
            for inner in child if isinstance(child, (list, tuple)) else [child]:
                if isinstance(inner, Dataset):
                    yield from inner_datasets(inner)


def plain_datasets(dataset: Any) -> list[BaseDataset]:
    """Data sets of MMEngine within wrappers, each once.

    Args:
        dataset: The outermost data set.
    """
    found = {id(one): one for one in inner_datasets(dataset) if isinstance(one, BaseDataset)}
    return list(found.values())
