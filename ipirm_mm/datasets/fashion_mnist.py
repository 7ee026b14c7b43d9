"""Fashion-MNIST-50: the challenge's protocol on real images that come with the package."""

from __future__ import annotations

import lzma
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS

from ipirm_mm.errors import UserError

from .idx_format import DEBIAN_FOLDER, read_fashion_mnist

EMBEDDED_FILE = Path(__file__).parent / 'data' / 'fashion_mnist_50.npz'
EMBEDDED_SPLITS = ('train', 'val', 'test', 'unlabeled')
FULL_SPLITS = {'full': 'train', 'full_test': 'test'}
# The part of the original data that each split was drawn from.
ORIGIN = dict(train='full', val='full', unlabeled='full', test='full_test')


@DATASETS.register_module()
class FashionMNIST50(BaseDataset):
    """Fashion-MNIST (Xiao et al., 2017; MIT licence), 50 images a class.

    The embedded splits follow the VIPriors challenge: ``train``, ``val`` and ``test`` with 50
    images of each of the ten classes, and 4,000 further images as ``unlabeled`` (their labels are
    there for evaluation). All are disjoint; ``test`` is drawn from the original test set, the
    others from the original training set. ``tools/dataset_converters/fashion_mnist50.py`` made
    the file. ``full`` and ``full_test`` are the original 60,000 and 10,000 images, read from the
    IDX files in ``data_root``; the embedded ones are among them.

    Images are ``(28, 28, 3)`` uint8, three equal channels.

    Args:
        split: One of the above, or several, which are concatenated. Defaults to ``'train'``.
        data_root: Folder of the IDX files for the full splits. Defaults to None, which means where
            Debian's package ``dataset-fashion-mnist`` puts them.
        indices: Use the first so many images, or these. Defaults to None, all.
        pipeline: Transforms. Defaults to none.
        **kwargs: Other arguments of MMPretrain's ``BaseDataset``.

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

    def __init__(
        self,
        split: str | Sequence[str] = 'train',
        data_root: str | None = None,
        indices: int | Sequence[int] | None = None,
        pipeline: Sequence = (),
        **kwargs: Any,
    ) -> None:
        self.splits = (split,) if isinstance(split, str) else tuple(split)
        for name in self.splits:
            if name not in (*EMBEDDED_SPLITS, *FULL_SPLITS):
                raise UserError(
                    f'FashionMNIST50.split must be of {(*EMBEDDED_SPLITS, *FULL_SPLITS)}, but is '
                    f'{name!r}'
                )
        if not self.splits:
            raise UserError('FashionMNIST50.split is empty: name at least one split')
        for name in self.splits:
            # An image under two indices would have two places in a partition.
            if self.splits.count(name) > 1 or ORIGIN.get(name) in self.splits:
                raise UserError(
                    f'FashionMNIST50.split is {self.splits}, in which the images of {name!r} are '
                    'twice: name each once, and no embedded split beside the full one'
                )
        super().__init__(
            ann_file='',
            data_root=data_root or DEBIAN_FOLDER,
            indices=indices,
            pipeline=pipeline,
            # Two arrays, not a serialised record an image.
            serialize_data=False,
            **kwargs,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the images; returns one record an image, views of one array."""
        parts = [self._read(split) for split in self.splits]
        self.images = np.concatenate([images for images, _ in parts])
        self.labels = np.concatenate([labels for _, labels in parts])
        return [
            dict(position=position, gt_label=label)
            for position, label in enumerate(self.labels.tolist())
        ]

    def _read(self, split: str) -> tuple[np.ndarray, np.ndarray]:
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
                f'{EMBEDDED_FILE} is missing or damaged ({error}): install ipirm_mm anew'
            ) from error

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The record of an image, with the image itself.

        Args:
            idx: Index in the data set.

        Returns:
            ``img``, ``img_shape``, ``ori_shape``, ``gt_label`` and ``sample_idx``.
        """
        info = super().get_data_info(idx)
        image = self.images[info.pop('position')]
        info['img'] = np.repeat(image[..., None], 3, axis=2)
        info['img_shape'] = info['ori_shape'] = image.shape
        return info

    def extra_repr(self) -> list[str]:
        """What the data set is made of."""
        return [f'Splits: \t{", ".join(self.splits)}']
