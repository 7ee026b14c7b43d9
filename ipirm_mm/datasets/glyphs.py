"""Glyphs: letters and digits of many fonts; the kind of the font is a factor that is known."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmpretrain.registry import DATASETS

from ipirm_mm.errors import UserError

from .array_dataset import ArrayDataset

# EMNIST's "balanced" classes, in which a small letter that looks like its capital is no class of
# its own, without 0 and 1, which look like O and I.
CHARACTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ' + 'abdefghnqrt' + '23456789'
KINDS = ('serif', 'sans', 'mono', 'hand', 'display')
SPLITS = ('unlabeled', 'train', 'val', 'test')
SIZE = 28


@DATASETS.register_module()
class Glyphs(ArrayDataset):
    """45 characters, drawn from free fonts; the hidden factor is the kind of the font.

    ``tools/dataset_converters/glyphs.py`` makes the file from the fonts of a machine. A family of
    fonts is in one split only. ``unlabeled`` is for Stage I (it has labels, for evaluation);
    ``train``, ``val`` and ``test`` are for probes.

    Each record has ``gt_label`` and ``factor``, an index of ``('serif', 'sans', 'mono', 'hand',
    'display')``. Images are ``(28, 28, 3)`` uint8, three equal channels, white on black.

    Args:
        split: ``'unlabeled'``, ``'train'``, ``'val'`` or ``'test'``, or several. Defaults to
            ``'train'``.
        kinds: Kinds of fonts whose images are used. Defaults to None: all.
        data_file: The file. Defaults to ``'data/glyphs.npz'``.
        **kwargs: Other arguments of :class:`ArrayDataset`. ``indices`` count after ``kinds``.

    Raises:
        UserError: If a split or a kind does not exist, if there are no images of the kinds, or if
            the file is missing or damaged.
    """

    METAINFO = dict(classes=tuple(CHARACTERS))
    SPLITS = SPLITS

    def __init__(
        self,
        split: str | Sequence[str] = 'train',
        kinds: Sequence[str] | None = None,
        data_file: str = 'data/glyphs.npz',
        **kwargs: Any,
    ) -> None:
        self.kinds = KINDS if kinds is None else (kinds,) if isinstance(kinds, str) else kinds
        for kind in self.kinds:
            if kind not in KINDS:
                raise UserError(f'Glyphs.kinds must be of {KINDS}, but is {kind!r}')
        self.data_file = data_file
        super().__init__(split, **kwargs)

    def read(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """See :meth:`ArrayDataset.read`; keeps the factors of the split, too."""
        try:
            with np.load(self.data_file, allow_pickle=False) as data:
                images, labels, factors, splits = (
                    data[name] for name in ('images', 'labels', 'factors', 'split')
                )
            chosen = splits == SPLITS.index(split)
            self.factors.append(factors[chosen])
            return images[chosen], labels[chosen]
        except FileNotFoundError as error:
            raise UserError(
                f'{self.data_file} is missing: make it by '
                f'python tools/dataset_converters/glyphs.py --out {self.data_file}'
            ) from error
        except (
            OSError,
            EOFError,
            ValueError,
            KeyError,
            IndexError,
            zlib.error,
            zipfile.BadZipFile,
        ) as error:
            raise UserError(
                f'{self.data_file} is damaged ({error}): make it again by '
                'tools/dataset_converters/glyphs.py'
            ) from error

    def load_data_list(self) -> list[dict[str, Any]]:
        """See :meth:`ArrayDataset.load_data_list`; adds ``factor`` and selects the kinds."""
        self.factors: list[np.ndarray] = []
        records = super().load_data_list()
        chosen = [KINDS.index(kind) for kind in self.kinds]
        for record in records:
            record['factor'] = int(self.factors[record['part']][record['position']])
        records = [record for record in records if record['factor'] in chosen]
        if not records:
            raise UserError(
                f'{self.data_file} has no images of the kinds {tuple(self.kinds)} in '
                f'{", ".join(self.splits)}'
            )
        return records

    def to_bgr(self, image: np.ndarray) -> np.ndarray:
        """Repeat a gray image in three channels; see :meth:`ArrayDataset.to_bgr`."""
        return np.repeat(image[..., None], 3, axis=2)
