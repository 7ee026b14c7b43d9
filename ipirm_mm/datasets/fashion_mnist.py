"""Fashion-MNIST-50: the protocol of the challenge on real images inside the package."""

from __future__ import annotations

import lzma
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmpretrain.registry import DATASETS

from ipirm_mm.errors import UserError

from .array_dataset import ArrayDataset, check_splits
from .idx_format import DEBIAN_FOLDER, read_fashion_mnist

EMBEDDED_FILE = Path(__file__).parent / 'data' / 'fashion_mnist_50.npz'
EMBEDDED_SPLITS = ('train', 'val', 'test', 'unlabeled')
FULL_SPLITS = {'full': 'train', 'full_test': 'test'}
# The part of the original data that each split was drawn from.
ORIGIN = dict(train='full', val='full', unlabeled='full', test='full_test')


@DATASETS.register_module()
class FashionMNIST50(ArrayDataset):
    """Fashion-MNIST (Xiao et al., 2017; MIT license), 50 images per class.

    The embedded splits follow the VIPriors challenge: ``train``, ``val`` and ``test`` have 50
    images of each of the ten classes, and ``unlabeled`` has 4,000 further images (with labels, for
    evaluation). The splits are disjoint. ``test`` comes from the original test set, the other
    splits from the original training set. ``tools/dataset_converters/fashion_mnist50.py`` made the
    file. ``full`` and ``full_test`` are the original 60,000 and 10,000 images, which include the
    embedded ones. They are read from the IDX files in ``data_root``.

    Images are ``(28, 28, 3)`` uint8, three equal channels.

    Args:
        split: One of these splits, or several, which are concatenated. Defaults to ``'train'``.
        data_root: Folder of the IDX files for the full splits. Defaults to None: the folder of
            Debian's package ``dataset-fashion-mnist``.
        **kwargs: Other arguments of :class:`ArrayDataset`.

    Raises:
        UserError: If a split does not exist, if several of them share images, or if a file is
            missing or damaged.
    """

    METAINFO = dict(
        classes=(
            'T-shirt/top',
            'Trouser',
            'Pullover',
            'Dress',
            'Coat',
            'Sandal',
            'Shirt',
            'Sneaker',
            'Bag',
            'Ankle boot',
        )
    )

    SPLITS = (*EMBEDDED_SPLITS, *FULL_SPLITS)

    def __init__(
        self, split: str | Sequence[str] = 'train', data_root: str | None = None, **kwargs: Any
    ) -> None:
        splits = check_splits('FashionMNIST50', split, self.SPLITS)
        for name in splits:
            # An image under two indices would be in a partition twice.
            if ORIGIN.get(name) in splits:
                raise UserError(
                    f'FashionMNIST50.split is {splits}, which has the images of {name!r} twice: '
                    'leave it out, or the full split'
                )
        super().__init__(split, data_root=data_root or DEBIAN_FOLDER, **kwargs)

    def read(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """See :meth:`ArrayDataset.read`."""
        if split in FULL_SPLITS:
            return read_fashion_mnist(self.data_root, FULL_SPLITS[split])
        try:
            with np.load(EMBEDDED_FILE, allow_pickle=False) as data:
                return data[f'{split}/images'], data[f'{split}/labels']
        except (
            OSError,
            EOFError,
            ValueError,
            KeyError,
            lzma.LZMAError,
            zipfile.BadZipFile,
        ) as error:
            raise UserError(
                f'{EMBEDDED_FILE} is missing or damaged ({error}): install ipirm_mm again'
            ) from error

    def to_bgr(self, image: np.ndarray) -> np.ndarray:
        """Repeat a gray image in three channels; see :meth:`ArrayDataset.to_bgr`."""
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
