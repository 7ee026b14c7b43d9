"""What a sample's index means."""

from __future__ import annotations

from typing import Any

from mmengine.dataset import BaseDataset, RepeatDataset

from ipirm_mm.errors import UserError


def base_dataset(dataset: Any) -> BaseDataset:
    """The data set that ``sample_idx`` counts in.

    Partitions are looked up by ``sample_idx``, so that every image needs one of its own.
    MMEngine gives the index within the innermost data set: unique in a plain data set, also one
    cut down by ``indices``, and in a repeated one; but every child of a ``ConcatDataset`` starts
    from 0, and the folds of a ``KFoldDataset`` change what the numbers mean.

    Args:
        dataset: The training data set.

    Returns:
        The plain data set.

    Raises:
        UserError: If the indices are ambiguous.
    """
    while type(dataset) is RepeatDataset:
        dataset = dataset.dataset
    if not isinstance(dataset, BaseDataset):
        raise UserError(
            f'train_dataloader.dataset is a {type(dataset).__name__}, in which sample_idx does '
            'not name one image: IP-IRM needs a plain data set (or a RepeatDataset of one); put '
            'the images of all parts into one folder or annotation file'
        )
    return dataset
