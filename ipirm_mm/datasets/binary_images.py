"""STL10 and CIFAR-100 from their binary files, which hold bytes and cannot run code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmpretrain.datasets.categories import CIFAR100_CATEGORIES
from mmpretrain.registry import DATASETS

from ipirm_mm.errors import UserError

from .array_dataset import ArrayDataset


def read_records(path: Path, size: int, source: str) -> np.ndarray:
    """Map a file of records of equal size into memory.

    Args:
        path: The file.
        size: Size of a record in bytes.
        source: Name of the archive that has the file.

    Returns:
        ``(N, size)`` uint8, read from the file when it is used.

    Raises:
        UserError: If the file is missing or empty, or its length is not a multiple of the size.
    """
    if not path.is_file():
        raise UserError(f'{path} is missing: unpack {source} there, or set data_root')
    length = path.stat().st_size
    if not length or length % size:
        raise UserError(
            f'{path} is damaged: it has {length:,} bytes, which is not a multiple of '
            f'{size:,}; unpack {source} again'
        )
    return np.memmap(path, np.uint8, mode='r').reshape(-1, size)


@DATASETS.register_module()
class STL10(ArrayDataset):
    """STL10 (Coates, Lee, Ng, 2011) from ``stl10_binary.tar.gz``.

    96 x 96 images of ten classes: ``train`` (5,000), ``test`` (8,000) and ``unlabeled`` (100,000).
    The code of Wang et al. trains Stage I on ``['train', 'unlabeled']``, without labels.

    Args:
        split: ``'train'``, ``'test'`` or ``'unlabeled'``, or several. Defaults to ``'train'``.
        data_root: Folder of the binary files. Defaults to ``'data/stl10_binary'``.
        **kwargs: Other arguments of :class:`ArrayDataset`.

    Raises:
        UserError: If a split does not exist, or a file is missing or damaged.
    """

    METAINFO = dict(
        classes=(
            'airplane',
            'bird',
            'car',
            'cat',
            'deer',
            'dog',
            'horse',
            'monkey',
            'ship',
            'truck',
        )
    )
    SPLITS = ('train', 'test', 'unlabeled')

    def __init__(
        self,
        split: str | Sequence[str] = 'train',
        data_root: str = 'data/stl10_binary',
        **kwargs: Any,
    ) -> None:
        super().__init__(split, data_root=data_root, **kwargs)

    def read(self, split: str) -> tuple[np.ndarray, np.ndarray | None]:
        """See :meth:`ArrayDataset.read`."""
        folder, source = Path(self.data_root), 'stl10_binary.tar.gz'
        images = read_records(folder / f'{split}_X.bin', 3 * 96 * 96, source)
        # The file has each channel column by column.
        images = images.reshape(-1, 3, 96, 96)
        if 'unlabeled' in self.splits:
            return images, None
        path = folder / f'{split}_y.bin'
        labels = read_records(path, 1, source)[:, 0]
        if len(labels) != len(images) or labels.min() < 1 or labels.max() > 10:
            raise UserError(
                f'{path} does not belong to {split}_X.bin: it has {len(labels)} labels from '
                f'{labels.min()} to {labels.max()}, but {len(images)} labels from 1 to 10 are '
                f'needed; unpack {source} again'
            )
        return images, labels - 1

    def to_bgr(self, image: np.ndarray) -> np.ndarray:
        """Convert RGB channels, each column by column; see :meth:`ArrayDataset.to_bgr`."""
        return np.array(image[::-1].transpose(2, 1, 0), order='C')


@DATASETS.register_module()
class CIFAR100Binary(ArrayDataset):
    """CIFAR-100 (Krizhevsky, 2009) from ``cifar-100-binary.tar.gz``.

    32 x 32 images of 100 classes: ``train`` (50,000) and ``test`` (10,000). MMPretrain's
    ``CIFAR100`` reads the Python version, which is pickled and could run code.

    Args:
        split: ``'train'`` or ``'test'``, or both. Defaults to ``'train'``.
        data_root: Folder of the binary files. Defaults to ``'data/cifar-100-binary'``.
        **kwargs: Other arguments of :class:`ArrayDataset`.

    Raises:
        UserError: If a split does not exist, or a file is missing or damaged.
    """

    METAINFO = dict(classes=CIFAR100_CATEGORIES)
    SPLITS = ('train', 'test')

    def __init__(
        self,
        split: str | Sequence[str] = 'train',
        data_root: str = 'data/cifar-100-binary',
        **kwargs: Any,
    ) -> None:
        super().__init__(split, data_root=data_root, **kwargs)

    def read(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """See :meth:`ArrayDataset.read`."""
        path = Path(self.data_root) / f'{split}.bin'
        # Coarse label, fine label, and 32 x 32 bytes of each channel.
        records = read_records(path, 2 + 3 * 32 * 32, 'cifar-100-binary.tar.gz')
        labels = records[:, 1]
        if labels.max() > 99:
            raise UserError(
                f'{path} is not CIFAR-100: it has a label {labels.max()}, but the largest is 99'
            )
        return records[:, 2:].reshape(-1, 3, 32, 32), labels

    def to_bgr(self, image: np.ndarray) -> np.ndarray:
        """Convert RGB channels; see :meth:`ArrayDataset.to_bgr`."""
        return np.array(image[::-1].transpose(1, 2, 0), order='C')
