"""The challenge's subset of ImageNet: 50 images per class in train, val and test."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmpretrain.datasets import BaseDataset
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from mmpretrain.registry import DATASETS

from ipirm_mm.errors import UserError

from .array_dataset import check_splits
from .list_files import Entry, read_list

SPLITS = ('train', 'val', 'test')
EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.pgm')


@DATASETS.register_module()
class VIPriors(BaseDataset):
    """VIPriors image classification (Bruintjes et al., 2021): 1,000 classes, 50 images each.

    It is read from folders, ``{data_root}/{split}/{class}/*``, or from list files. The classes are
    the sorted names of the folders (names that are all numbers are sorted by value). A split has
    no labels if its images lie in no class folder, or in one folder ``imgs``, as in the ``test``
    of the challenge's toolkit. ``tools/dataset_converters/vipriors.py`` makes the folders.

    Args:
        data_root: Folder of the images. Defaults to ``'data/vipriors'``.
        split: ``'train'``, ``'val'`` or ``'test'``, or several: ``['train', 'val']`` for the final
            run. Defaults to ``'train'``.
        list_file: List file of a split, relative to ``data_root``, such as ``'{split}.txt'``. Each
            line has the path of an image, relative to ``data_root``, and its class, 0 to C - 1.
            Without classes there are no labels. Defaults to None: the folders are read.
        num_classes: Number of classes *C*; None for any number. Defaults to 1000.
        per_class: Number of images per class in each split; None for any number. Defaults to 50.
        pipeline: Configs of the transforms. Defaults to none.
        **kwargs: Other arguments of MMPretrain's ``BaseDataset``.

    Raises:
        UserError: If a split does not exist, a folder or list is missing, a class is missing or
            has another number of images, or a list is malformed or names a file twice.
    """

    def __init__(
        self,
        data_root: str = 'data/vipriors',
        split: str | Sequence[str] = 'train',
        list_file: str | None = None,
        num_classes: int | None = 1000,
        per_class: int | None = 50,
        pipeline: Sequence = (),
        **kwargs: Any,
    ) -> None:
        self.splits = check_splits('VIPriors', split, SPLITS)
        self.list_file = list_file
        self.num_classes = num_classes
        self.per_class = per_class
        super().__init__(ann_file='', data_root=data_root, pipeline=pipeline, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """List the images; returns one record per image, by split and class."""
        root = Path(self.data_root)
        if not root.is_dir():
            raise UserError(
                f'VIPriors.data_root is {str(root)!r}, which is not a folder: make it with '
                'tools/dataset_converters/vipriors.py, or set data_root'
            )
        names = self._class_names(root)
        records: list[dict[str, Any]] = []
        for split in self.splits:
            if self.list_file is None:
                entries = self._read_folder(root, split, names)
            else:
                entries = read_list(root / self.list_file.format(split=split))
            self._check_counts(split, entries, names)
            for path, label in entries:
                record: dict[str, Any] = dict(img_path=str(root / path))
                if label is not None:
                    record['gt_label'] = label
                records.append(record)
        if len({'gt_label' in record for record in records}) > 1:
            raise UserError(
                f'VIPriors.split is {self.splits}, and only some of these splits have labels: use '
                'splits with labels, or splits without'
            )
        if names:
            wordnet = len(names) == 1000 and all(name.startswith('n') for name in names)
            self._metainfo['classes'] = IMAGENET_CATEGORIES if wordnet else tuple(names)
        return records

    def _class_names(self, root: Path) -> list[str]:
        """Names of the class folders of all existing splits; none with list files."""
        if self.list_file is not None:
            return []
        names = {name for split in SPLITS for name in class_folders(root / split)}
        by_value = all(name.isdigit() for name in names)
        ordered = sorted(names, key=int) if by_value else sorted(names)
        if names and self.num_classes not in (None, len(names)):
            raise UserError(
                f'{root} has folders of {len(names)} classes, from {ordered[0]} to {ordered[-1]}, '
                f'but {self.num_classes} are needed: add the missing folders, or set '
                'VIPriors.num_classes'
            )
        return ordered

    def _read_folder(self, root: Path, split: str, names: list[str]) -> list[Entry]:
        folder = root / split
        if not folder.is_dir():
            raise UserError(f'{folder} is missing: VIPriors.split {split!r} is read from there')
        present = set(class_folders(folder))
        if not present:
            place = f'{split}/imgs' if (folder / 'imgs').is_dir() else split
            return [(f'{place}/{file}', None) for file in folder_images(root / place)]
        missing = [name for name in names if name not in present]
        if missing:
            raise UserError(
                f'{folder} lacks {len(missing)} of {len(names)} classes, the first is '
                f'{missing[0]}: add them, or remove the folder from the other splits'
            )
        return [
            (f'{split}/{name}/{file}', label)
            for label, name in enumerate(names)
            for file in folder_images(folder / name)
        ]

    def _check_counts(self, split: str, entries: list[Entry], names: list[str]) -> None:
        labels = [label for _, label in entries if label is not None]
        if len(labels) not in (0, len(entries)):
            raise UserError(
                f'the list of {split!r} gives the class of {len(labels)} of {len(entries)} '
                'images: give all or none'
            )
        if not entries:
            raise UserError(f'VIPriors found no image of {split!r} in {self.data_root}')
        if not labels:
            if self.num_classes and self.per_class:
                expected = self.num_classes * self.per_class
                if len(entries) != expected:
                    raise UserError(
                        f'{split!r} has {len(entries)} images, but {expected} are needed: '
                        'add the missing images, or set VIPriors.per_class=None'
                    )
            return
        counts = Counter(labels)
        classes = self.num_classes or max(max(counts) + 1, len(names))
        if max(counts) >= classes:
            raise UserError(
                f'the list of {split!r} has class {max(counts)}, but classes go from 0 to '
                f'{classes - 1}'
            )
        for label in range(classes):
            name = f'class {names[label] if names else label}'
            if not counts[label]:
                raise UserError(f'{split!r} has no image of {name}: add images')
            if self.per_class is not None and counts[label] != self.per_class:
                raise UserError(
                    f'{split!r} has {counts[label]} images of {name}, but {self.per_class} are '
                    'needed: add or remove images, or set VIPriors.per_class=None'
                )

    def extra_repr(self) -> list[str]:
        """Describe the data set in its ``repr``."""
        return [
            f'Splits: \t{", ".join(self.splits)}',
            f'Root of dataset: \t{self.data_root}',
        ]


def subfolders(folder: Path) -> list[str]:
    """List the names of the folders in a folder, unsorted; none if it is missing."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [
            entry.name
            for entry in entries
            if entry.is_dir() and entry.name[0] != '.' and entry.name != '__MACOSX'
        ]


def class_folders(folder: Path) -> list[str]:
    """List the names of the class folders in the folder of a split; none without labels."""
    names = subfolders(folder)
    return [] if names == ['imgs'] else names


def folder_images(folder: Path) -> list[str]:
    """List the names of the images in a folder, sorted."""
    with os.scandir(folder) as entries:
        # A broken link stays in the list: reading it names it. A folder is no image.
        return sorted(
            entry.name for entry in entries if is_image(Path(entry.name)) and not entry.is_dir()
        )


def is_image(path: Path) -> bool:
    """Whether a file is an image by its name, and is not hidden.

    Names that begin with a dot are no images: macOS leaves ``._NAME`` beside each file, and
    editors and synchronization leave other such files and folders.

    Args:
        path: Path of the file, below the folder that is searched.
    """
    hidden = any(part.startswith('.') for part in path.parts) or '__MACOSX' in path.parts
    return not hidden and path.name.lower().endswith(EXTENSIONS)
