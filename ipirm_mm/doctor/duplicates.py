"""Images of a validation or test split that are in the training set as well, by content."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from mmengine.dataset import BaseDataset

from ipirm_mm.datasets.array_dataset import ArrayDataset
from ipirm_mm.datasets.wrappers import plain_datasets
from ipirm_mm.utils import ProgressBar

from .images import chosen, local_file, record_of

# Bytes at the beginning and the end of a file that are read first.
ENDS = 2048


class Contents(NamedTuple):
    """Names of the images of a data set by something that equal images have in common.

    Attributes:
        files: Paths by the size of the file.
        arrays: Names by the hash of the pixels, of images in memory.
    """

    files: dict[int, list[str]]
    arrays: dict[bytes, list[str]]


def contents(dataset: Any, description: str, sample: int | None = None) -> Contents:
    """Collect what is needed to find equal images; files are not read.

    Args:
        dataset: The data set.
        description: For the progress bar.
        sample: Number of images of each data set within wrappers. Defaults to None: all.
    """
    found = Contents(defaultdict(list), defaultdict(list))
    with ProgressBar(description) as bar:
        for one in plain_datasets(dataset):
            indices = chosen(len(one), sample)
            for number, index in enumerate(indices, 1):
                bar(number / len(indices))
                _add(found, one, index)
    return found


def _add(found: Contents, dataset: BaseDataset, index: int) -> None:
    record = record_of(dataset, index)
    file = local_file(record)
    if file is not None:
        if os.path.isfile(file):
            found.files[os.path.getsize(file)].append(file)
        return
    name = str(record.get('img_path', index))
    image = dataset.get_data_info(index).get('img')
    if image is not None:
        source = f'{type(dataset).__name__} ' if isinstance(dataset, ArrayDataset) else ''
        key = hashlib.blake2b(repr(image.shape).encode() + image.tobytes()).digest()
        found.arrays[key].append(f'{source}{name}')


def shared_images(train: Contents, other: Contents) -> list[tuple[str, str]]:
    """Find the images of a split that are in the training set too.

    Of files of the same size, first the ends are compared, and then everything.

    Args:
        train: From :func:`contents`, of the training set.
        other: Of the split.

    Returns:
        For each such image of the split its name, and that of the same image in the training set.
    """
    pairs = [
        (name, train.arrays[key][0])
        for key, names in other.arrays.items()
        if key in train.arrays
        for name in names
    ]
    return pairs + list(_shared_files(train.files, other.files))


def _shared_files(
    train: dict[int, list[str]], other: dict[int, list[str]]
) -> Iterator[tuple[str, str]]:
    sizes = [size for size in other if size in train]
    with ProgressBar('duplicates') as bar:
        for number, size in enumerate(sizes, 1):
            bar(number / len(sizes))
            known: dict[bytes, list[str]] = defaultdict(list)
            for path in train[size]:
                known[_ends(path)].append(path)
            for path in other[size]:
                for candidate in known.get(_ends(path), ()):
                    if _content(path) == _content(candidate):
                        yield path, candidate
                        break


def _ends(path: str) -> bytes:
    with open(path, 'rb') as stream:
        start = stream.read(ENDS)
        stream.seek(max(ENDS, os.path.getsize(path) - ENDS))
        return start + stream.read()


def _content(path: str) -> bytes:
    with open(path, 'rb') as stream:
        return stream.read()
