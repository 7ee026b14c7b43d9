"""Reading single images as a training reads them, and saying what is wrong with them."""

from __future__ import annotations

import os
import random
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.dataset import BaseDataset
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ipirm_mm.datasets import VIPriors
from ipirm_mm.datasets.array_dataset import ArrayDataset
from ipirm_mm.datasets.image_format import is_truncated
from ipirm_mm.engine.workers import mend_workers
from ipirm_mm.explain import find_user_error
from ipirm_mm.utils import ProgressBar, available_processors
from ipirm_mm.utils.finite import find_non_finite

# From this number on, images are read by one process per processor.
MANY = 500


class Seen(NamedTuple):
    """What became of an image.

    Attributes:
        name: Its path, or where it is in the data set.
        fault: Kind of the fault, such as ``'is truncated'``; empty if there is none.
        reason: What was said of the fault; empty if nothing more is known.
        size: Bytes of its tensors in a batch.
    """

    name: str
    fault: str = ''
    reason: str = ''
    size: int = 0


def chosen(total: int, sample: int | None) -> Sequence[int]:
    """Choose images with a fixed seed.

    Args:
        total: Number of images.
        sample: How many to choose at most; None for all.

    Returns:
        Their indices, sorted.
    """
    if sample is None or total <= sample:
        return range(total)
    return sorted(random.Random(0).sample(range(total), sample))


def record_of(dataset: Any, index: int) -> dict[str, Any]:
    """What a data set knows of an image, without reading the image.

    Args:
        dataset: A data set of MMEngine.
        index: Index of the image.
    """
    if isinstance(dataset, ArrayDataset):
        record = BaseDataset.get_data_info(dataset, index)
        record['img_path'] = f'{dataset.splits[record["part"]]}/{record["position"]}'
        return record
    return dataset.get_data_info(index)


def local_file(record: dict[str, Any]) -> str | None:
    """Path of the file of an image; None if it is in memory or on a server.

    Args:
        record: From :func:`record_of`.
    """
    path = record.get('img_path')
    in_memory = 'img' in record or 'position' in record
    if in_memory or not isinstance(path, (str, os.PathLike)) or '://' in str(path):
        return None
    return str(path)


class _Reader(Dataset):
    """Reads images of a data set, in worker processes too."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Seen:
        name = f'image {index}'
        try:
            if not isinstance(self.dataset, BaseDataset):
                return _judge(name, self.dataset[index])
            record = record_of(self.dataset, index)
            name = str(record.get('img_path', name))
            file = local_file(record)
            fault = file_fault(file) if file is not None else ''
            if fault:
                return Seen(name, fault)
            # Not dataset[index], which replaces a broken image of a training by another.
            return _judge(name, self.dataset.prepare_data(index))
        except Exception as error:  # of any type: transforms of users
            said = ' '.join(str(error).split()) or type(error).__name__
            reason = find_user_error(error) or f'{type(error).__name__}: {said}'
            return Seen(name, 'cannot be read', reason)


def file_fault(path: str) -> str:
    """Say what is wrong with an image file before it is decoded.

    Args:
        path: The file.

    Returns:
        The end of a sentence that begins with the file; empty if nothing is wrong.
    """
    if not os.path.exists(path):
        return 'is a link to a file that is not there' if os.path.islink(path) else 'is missing'
    if os.path.isdir(path):
        return 'is a folder'
    with open(path, 'rb') as stream:
        content = stream.read()
    if not content:
        return 'is empty'
    return 'is truncated' if is_truncated(content) else ''


def _judge(name: str, data: Any) -> Seen:
    """What is wrong with what a pipeline has made of an image."""
    if data is None:
        return Seen(name, 'is rejected by the pipeline')
    inputs = data.get('inputs') if isinstance(data, dict) else data
    tensors = list(_tensors(inputs))
    if any(not tensor.numel() for tensor in tensors):
        return Seen(name, 'has no pixels')
    if find_non_finite(inputs) is not None:
        return Seen(name, 'has pixels that are not finite after the pipeline')
    return Seen(name, size=sum(tensor.numel() * tensor.element_size() for tensor in tensors))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _tensors(one)


def num_readers(dataset: Any, count: int) -> int:
    """Number of worker processes that :func:`read_images` takes; 0 for none.

    Args:
        dataset: The data set.
        count: Number of images.
    """
    few = count < MANY or isinstance(dataset, ArrayDataset)
    return 0 if few else available_processors()


def read_images(dataset: Any, indices: Sequence[int], description: str) -> Iterator[Seen]:
    """Read images through the pipeline of their data set, with a progress bar.

    Args:
        dataset: A data set of MMEngine, or any other.
        indices: Which images.
        description: For the progress bar.

    Yields:
        What became of each.
    """
    reader = DataLoader(
        _Reader(dataset),
        batch_size=None,
        sampler=list(indices),  # type: ignore[arg-type]
        num_workers=num_readers(dataset, len(indices)),
        collate_fn=_as_it_is,
    )
    mend_workers(reader)
    with torch.random.fork_rng(devices=[]), ProgressBar(description) as bar:
        for number, seen in enumerate(reader, 1):
            bar(number / len(indices), f'{number:,} of {len(indices):,} images')
            yield seen


def _as_it_is(value: Any) -> Any:
    return value


def missing_files(dataset: BaseDataset, description: str) -> Iterator[tuple[int, str]]:
    """Find images whose file is not there, without reading any.

    Args:
        dataset: A data set of MMEngine.
        description: For the progress bar.

    Yields:
        Index and path of each.
    """
    with ProgressBar(description) as bar:
        for index in range(len(dataset)):
            bar((index + 1) / len(dataset))
            file = local_file(record_of(dataset, index))
            if file is not None and not os.path.exists(file):
                yield index, file


def dangling_links(dataset: Any) -> list[str]:
    """Find links to files that are not there, in the folders that a data set lists.

    Data sets of MMPretrain that list a folder leave them out without a word.

    Args:
        dataset: A data set of MMEngine.

    Returns:
        Paths of the links; none if the images are in a list file or in memory.
    """
    if isinstance(dataset, (ArrayDataset, VIPriors)):  # the latter lists links too
        return []
    prefix = getattr(dataset, 'data_prefix', None) or {}
    prefix = prefix.get('img_path') if isinstance(prefix, dict) else prefix
    if getattr(dataset, 'ann_file', '') or not prefix or not os.path.isdir(prefix):
        return []
    return sorted(_dangling_in(str(prefix)))


def _dangling_in(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink() and not os.path.exists(entry.path):
                yield entry.path
            elif entry.is_dir(follow_symlinks=False):
                yield from _dangling_in(entry.path)


def leave_out(dataset: BaseDataset, broken: Collection[int]) -> None:
    """Let a data set give another image in the place of each broken one.

    Args:
        dataset: A data set of MMEngine, changed in place.
        broken: Indices of the images.
    """
    good = next((index for index in range(len(dataset)) if index not in broken), None)
    original = dataset.prepare_data
    if broken and good is not None:
        dataset.prepare_data = lambda index: original(good if index in broken else index)
