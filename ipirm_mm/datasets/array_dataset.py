"""Data sets whose images are one array, in memory or mapped from a file."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmpretrain.datasets import BaseDataset

from ipirm_mm.errors import UserError


class ArrayDataset(BaseDataset, metaclass=ABCMeta):
    """Named splits, each an array of images; several splits are concatenated.

    Args:
        split: Name of a split, or several.
        indices: Number of images to use, from the first on, or their indices. Defaults to None:
            all images.
        pipeline: Configs of the transforms. Defaults to none.
        **kwargs: Other arguments of MMPretrain's ``BaseDataset``.

    Raises:
        UserError: If a split does not exist or is named twice, or a file is missing or damaged.
    """

    SPLITS: tuple[str, ...] = ()

    def __init__(
        self,
        split: str | Sequence[str],
        indices: int | Sequence[int] | None = None,
        pipeline: Sequence = (),
        **kwargs: Any,
    ) -> None:
        self.splits = check_splits(type(self).__name__, split, self.SPLITS)
        super().__init__(
            ann_file='',
            indices=indices,
            pipeline=pipeline,
            # The images are arrays; their small records need no serialization.
            serialize_data=False,
            **kwargs,
        )

    @abstractmethod
    def read(self, split: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Read a split.

        Args:
            split: Name of the split.

        Returns:
            Images, ``(N, ...)`` uint8, and labels ``(N,)``, or None without labels.

        Raises:
            UserError: If a file is missing or damaged.
        """

    @abstractmethod
    def to_bgr(self, image: np.ndarray) -> np.ndarray:
        """Convert an image of the array that :meth:`read` returns.

        Args:
            image: The image, as it is in the array.

        Returns:
            ``(H, W, 3)`` uint8, BGR as everywhere in OpenMMLab.
        """

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the images; returns one record per image, with its position in the arrays."""
        self.images: list[np.ndarray] = []
        records: list[dict[str, Any]] = []
        for part, split in enumerate(self.splits):
            images, labels = self.read(split)
            self.images.append(images)
            for position in range(len(images)):
                record = dict(part=part, position=position)
                if labels is not None:
                    record['gt_label'] = int(labels[position])
                records.append(record)
        return records

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Get the record of an image, with the image itself.

        Args:
            idx: Index in the data set.

        Returns:
            ``img``, ``img_shape``, ``ori_shape``, ``sample_idx``, ``gt_label`` if there are
            labels, and ``img_path``. There are no files, so ``img_path`` is the split and the
            position in it, such as ``'val/17'``, which identifies the image.
        """
        self.full_init()
        # Records hold numbers only: MMEngine's deep copy of one takes longer than a small crop.
        info = dict(self.data_list[idx], sample_idx=idx if idx >= 0 else len(self) + idx)
        part, position = info.pop('part'), info.pop('position')
        info['img'] = self.to_bgr(self.images[part][position])
        info['img_path'] = f'{self.splits[part]}/{position}'
        info['img_shape'] = info['ori_shape'] = info['img'].shape[:2]
        return info

    def extra_repr(self) -> list[str]:
        """Describe the data set in its ``repr``."""
        return [f'Splits: \t{", ".join(self.splits)}']


def check_splits(
    dataset: str, split: str | Sequence[str], allowed: Sequence[str]
) -> tuple[str, ...]:
    """Check the splits that a data set is asked for.

    Args:
        dataset: Name of the data set, for the message.
        split: Name of a split, or several.
        allowed: Splits that exist.

    Returns:
        The names of the splits.

    Raises:
        UserError: If there is none, or one does not exist or is named twice.
    """
    splits = (split,) if isinstance(split, str) else tuple(split)
    if not splits:
        raise UserError(f'{dataset}.split is empty: name at least one split')
    for name in splits:
        if name not in allowed:
            raise UserError(f'{dataset}.split must be of {tuple(allowed)}, but is {name!r}')
        # An image under two indices would be in a partition twice.
        if splits.count(name) > 1:
            raise UserError(f'{dataset}.split is {splits}: name {name!r} once')
    return splits
