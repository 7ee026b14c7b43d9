"""The data set that the index of a sample refers to."""

from __future__ import annotations

from typing import Any

from mmengine.dataset import BaseDataset, RepeatDataset

from ipirm_mm.errors import UserError


def base_dataset(dataset: Any) -> BaseDataset:
    """Get the data set in which ``sample_idx`` counts.

    Partitions, memories and random draws are looked up by ``sample_idx``, so every image needs an
    index of its own. MMEngine gives the index within the innermost data set. It is unique in a
    plain data set, also with ``indices``, and in a repeated one. But every child of a
    ``ConcatDataset`` starts from 0, and the folds of a ``KFoldDataset`` renumber the images.

    Args:
        dataset: The training data set.

    Returns:
        The plain data set.

    Raises:
        UserError: If an index may stand for several images.
    """
    while type(dataset) is RepeatDataset:
        dataset = dataset.dataset
    if not isinstance(dataset, BaseDataset):
        raise UserError(
            f'train_dataloader.dataset is a {type(dataset).__name__}, in which one sample_idx may '
            'stand for several images, but partitions, memories and seeded draws are looked up by '
            'it: use a plain data set (or a RepeatDataset of one), with the images of all parts '
            'in one folder or annotation file'
        )
    return dataset
