"""Which image each item of a data set is: the one definition that everything else uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset, RepeatDataset
from torch.utils.data import ConcatDataset as TorchConcatDataset
from torch.utils.data import Dataset, IterableDataset, Subset

from ipirm_mm.errors import UserError

from .wrappers import inner_datasets

# What MMEngine's loaders make of a data set for num_batch_per_epoch: its first items.
_SLICED = '_SlicedDataset'


class SeenIndex(int):
    """Index of an item, and how often it was seen before.

    ``passes`` is the number of earlier passes over the data, None where the epoch tells it;
    ``repeat`` is the number of earlier occurrences in this pass.
    """

    passes: int | None
    repeat: int

    def __new__(cls, index: int, passes: int | None, repeat: int = 0) -> SeenIndex:
        """Make the index; it equals ``index``."""
        self = super().__new__(cls, index)
        self.passes, self.repeat = passes, repeat
        return self

    def __getnewargs__(self) -> tuple:  # type: ignore[override]
        """Arguments of a copy in another process."""
        return int(self), self.passes, self.repeat


class Item(NamedTuple):
    """What random draws know of the item that is loaded.

    ``shift`` is what is added to the ``sample_idx`` of the innermost data set, None if that is
    unknown. ``passes`` is None where the epoch says how often the data was passed.
    """

    position: int
    shift: int | None
    passes: int | None
    repeat: int


class _Trace(NamedTuple):
    """Innermost data set of each item: offset of its images, and index within it."""

    offsets: np.ndarray
    inner: np.ndarray
    total: int

    def take(self, items: Any) -> _Trace:
        return _Trace(self.offsets[items], self.inner[items], self.total)


def _trace(dataset: Any, unknown: list[str]) -> _Trace:
    """Follow the wrappers that are known; the names of others are added to ``unknown``."""
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    if isinstance(dataset, (ConcatDataset, TorchConcatDataset)):
        traces = {id(part): _trace(part, unknown) for part in dataset.datasets}
        starts, total = {}, 0
        for key, trace in traces.items():  # the same object twice has the same images
            starts[key], total = total, total + trace.total
        parts = [(traces[id(part)], starts[id(part)]) for part in dataset.datasets]
        offsets = np.concatenate([trace.offsets + start for trace, start in parts])
        return _Trace(offsets, np.concatenate([trace.inner for trace, _ in parts]), total)
    if isinstance(dataset, RepeatDataset):
        whole = _trace(dataset.dataset, unknown)
        return whole.take(np.tile(np.arange(len(whole.inner)), dataset.times))
    if isinstance(dataset, ClassBalancedDataset):
        return _trace(dataset.dataset, unknown).take(np.array(dataset.repeat_indices, dtype=int))
    if isinstance(dataset, Subset):
        return _trace(dataset.dataset, unknown).take(np.array(dataset.indices, dtype=int))
    name = type(dataset).__name__
    if name == 'KFoldDataset':  # its inner data set is the fold
        return _trace(dataset.dataset, unknown)
    if name == _SLICED:
        return _trace(dataset._dataset, unknown).take(slice(len(dataset)))
    if not isinstance(dataset, BaseDataset) and len(list(inner_datasets(dataset))) > 1:
        unknown.append(name)
    count = len(dataset)
    return _Trace(np.zeros(count, dtype=int), np.arange(count), count)


def _own_ids(dataset: Any) -> str:
    """Say which ``sample_idx`` a data set of MMEngine gives that is not the index of its item."""
    if isinstance(dataset, BaseDataset):
        for index in sorted({0, len(dataset) - 1} - {-1}):
            number = dataset.get_data_info(index).get('sample_idx', index)
            if number != index:
                name = type(dataset).__name__
                return f'image {index} of {name} has the sample_idx {number!r}'
    return ''


class ImageNumbers:
    """Numbers of the images of a data set, 0 to ``num_images - 1``, and which item shows which.

    An image is one item of an innermost data set. The images of a ``ConcatDataset`` are numbered
    part after part; repetitions (``RepeatDataset``, ``ClassBalancedDataset``) show the same image;
    a ``KFoldDataset`` has the images of its fold, and a loader with ``num_batch_per_epoch`` the
    first ones. In a plain data set an image's number is its index. A data set that is no data set
    of MMEngine has one image per index.

    Args:
        dataset: The outermost data set.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.unknown: list[str] = []
        self._offsets, self._inner, total = _trace(dataset, self.unknown)
        #: Says where an inner data set gives a ``sample_idx`` that is no index; empty if nowhere.
        self.own_ids = next(filter(None, map(_own_ids, inner_datasets(dataset))), '')
        # Of images that a Subset leaves out there is no item; the others are numbered in order.
        self._known, self.first = np.unique(self._offsets + self._inner, return_index=True)
        self._complete = len(self._known) == total
        #: Whether the number of an image is the ``sample_idx`` that its data set gives.
        self.is_plain = self._complete and not self._offsets.any()

    @property
    def num_images(self) -> int:
        """Number of different images that the data set shows."""
        return len(self._known)

    def number(self, index: int, sample_idx: int | None = None) -> int:
        """Number of the image of an item.

        Args:
            index: Index of the item in the outermost data set.
            sample_idx: Index of the image that was loaded, in the innermost data set. It is
                another than expected where a broken image is replaced. Defaults to None: that of
                the item.

        Raises:
            UserError: If the replacement is an image that the data set does not show.
        """
        inner = self._inner[index] if sample_idx is None else sample_idx
        image = int(self._offsets[index] + inner)
        if self._complete:
            return image
        position = int(np.searchsorted(self._known, image))
        if position == self.num_images or self._known[position] != image:
            raise UserError(
                f'image {image} replaces a broken one, but {type(self.dataset).__name__} does not '
                'show it: choose images by `indices` of the inner data set'
            )
        return position

    def shift(self, index: int) -> int | None:
        """What makes the ``sample_idx`` of an item the item's own index; None if unknown."""
        return None if self.unknown else int(index - self._inner[index])

    def check_unique(self) -> None:
        """Check that a partition or memory can tell the images apart.

        Raises:
            UserError: If there is a wrapper of which it is unknown which images it repeats.
        """
        if self.unknown:
            raise UserError(
                f'train_dataloader.dataset is a {self.unknown[0]}, in which one sample_idx may '
                'stand for several images, but partitions and memories are looked up by it: use '
                "a plain data set, or MMEngine's ConcatDataset, RepeatDataset or "
                "ClassBalancedDataset, or MMPretrain's KFoldDataset"
            )
        if self.own_ids:
            raise UserError(
                f'{self.own_ids}, but partitions and memories are looked up by the index, which '
                'MMEngine sets under this name: give numbers of your own another name'
            )


class _Loader:
    """What ``torch.utils.data`` calls to load a batch, as ``dataset.__getitems__``."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.numbers = ImageNumbers(dataset)
        self._is_mock = not any(isinstance(part, BaseDataset) for part in inner_datasets(dataset))
        # What seeded transforms were told, for those that replace them (SwitchRecipeHook).
        self._state = torch.tensor([-1, 0, 0]).share_memory_()
        self._told: list[Any] = []

    def tell(self, epoch: int, seed: int, draw: int) -> None:
        """Tell seeded transforms what their draws depend on."""
        self._state.copy_(torch.tensor([epoch, seed, draw]))
        self._told = list(seeded_transforms(self.dataset))
        for transform in self._told:
            transform.set_epoch(epoch, seed, draw)

    def __call__(self, indices: Sequence[int]) -> list[Any]:
        transforms = list(seeded_transforms(self.dataset))
        if self._state[0] >= 0:
            for transform in transforms:
                if not any(transform is told for told in self._told):
                    transform.set_epoch(*self._state.tolist())
                    self._told.append(transform)
        samples = []
        for index in indices:
            passes = index.passes if isinstance(index, SeenIndex) else None
            repeat = index.repeat if isinstance(index, SeenIndex) else 0
            index = int(index)
            item = Item(index, self.numbers.shift(index), passes, repeat)
            for transform in transforms:
                transform.item = item
            try:
                samples.append(self._load(index))
            finally:
                for transform in transforms:
                    transform.item = None
        return samples

    def _load(self, index: int) -> Any:
        try:
            data = self.dataset[index]
        except Exception as error:
            # MMEngine raises bare exceptions where a pipeline rejects an image (gives None).
            if type(error) is Exception and (
                '`None`' in str(error) or 'valid image' in str(error)
            ):
                raise UserError(
                    f'the pipeline rejects image {index} of {type(self.dataset).__name__} (it '
                    f'gives None: {error}): remove the image, or let the pipeline keep it'
                ) from error
            raise
        sample: Any = data.get('data_samples') if isinstance(data, dict) else None
        if not hasattr(sample, 'set_metainfo'):
            return data
        if self.numbers.unknown or self.numbers.own_ids:  # its sample_idx is not the index
            sample.set_metainfo(dict(sample_idx=self.numbers.number(index)))
        elif 'sample_idx' in sample:
            if not self.numbers.is_plain:
                number = self.numbers.number(index, int(sample.sample_idx))
                sample.set_metainfo(dict(sample_idx=number))
        elif self._is_mock:  # no data set of MMEngine, which would know the index
            sample.set_metainfo(dict(sample_idx=self.numbers.number(index)))
        return data


def check_slice(dataset: Any) -> None:
    """Check that a data set has the images that ``num_batch_per_epoch`` takes of it.

    Raises:
        UserError: If it has fewer; MMEngine would fail at the first index that is not there.
    """
    if type(dataset).__name__ != _SLICED:
        return
    wanted, there = len(dataset), len(dataset._dataset)
    if wanted > there:
        raise UserError(
            f'num_batch_per_epoch takes the first {wanted} items of the data set (batches times '
            f'batch_size times processes), but it has {there}: lower num_batch_per_epoch or '
            'batch_size, or leave it out'
        )


def number_images(dataset: Any) -> ImageNumbers:
    """Number the images of a data set, and let data loaders say which image they load.

    From then on the ``sample_idx`` of a loaded sample is the number of its image, and seeded
    transforms know which item is loaded. A second call does nothing.

    Args:
        dataset: The data set of a data loader, with its wrappers.

    Returns:
        The numbers.

    Raises:
        UserError: If the data set has no indices, or not those that ``num_batch_per_epoch`` takes.
    """
    return _loader_of(dataset).numbers


def tell_epoch(dataset: Any, epoch: int, seed: int, draw: int = 0) -> None:
    """Tell the seeded transforms of a data set what their random draws depend on.

    Transforms that replace them before the next call (``SwitchRecipeHook``) are told when they
    are first used.

    Args:
        dataset: The data set of a data loader, with its wrappers.
        epoch: The epoch that begins, counted from 0.
        seed: Seed of the run.
        draw: Number of the augmentation within the epoch. Defaults to 0, that of the training.
    """
    _loader_of(dataset).tell(epoch, seed, draw)


def _loader_of(dataset: Any) -> _Loader:
    """What loads the batches of a data set; it is made if there is none."""
    if isinstance(dataset, UniqueImages):
        return _loader_of(dataset.dataset)
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, '__len__'):
        raise UserError(
            f'{type(dataset).__name__} is a stream of images without indices, by which '
            'partitions, memories and seeded draws are looked up: use a data set with __len__ '
            'and __getitem__'
        )
    loader = vars(dataset).get('__getitems__')
    if not isinstance(loader, _Loader) or loader.dataset is not dataset:
        check_slice(dataset)
        loader = dataset.__getitems__ = _Loader(dataset)
    return loader


def locate(dataset: Any, index: int) -> tuple[Any, int]:
    """Find the innermost data set of an item, and the index within it."""
    while len(list(inner_datasets(dataset))) > 1:
        if isinstance(dataset, (ConcatDataset, TorchConcatDataset)):
            part = int(np.searchsorted(dataset.cumulative_sizes, index, side='right'))
            index -= dataset.cumulative_sizes[part - 1] if part else 0
            dataset = dataset.datasets[part]
            continue
        if isinstance(dataset, (RepeatDataset, ClassBalancedDataset)):
            index = dataset._get_ori_dataset_idx(index)
        elif isinstance(dataset, Subset):
            index = dataset.indices[index]
        dataset = vars(dataset).get('dataset', vars(dataset).get('_dataset'))
    return dataset, int(index)


def seeded_transforms(dataset: Any) -> Iterator[Any]:
    """Find the outermost transforms with ``set_epoch`` in the pipelines of all inner data sets."""
    for inner in inner_datasets(dataset):
        pipeline = vars(inner).get('pipeline') if hasattr(inner, '__dict__') else None
        yield from _seeded_within(getattr(pipeline, 'transforms', ()))


def _seeded_within(transforms: Any) -> Iterator[Any]:
    if callable(getattr(transforms, 'set_epoch', None)):
        yield transforms
    elif isinstance(transforms, (list, tuple)):
        for transform in transforms:
            yield from _seeded_within(transform)
    elif hasattr(transforms, 'transforms'):
        yield from _seeded_within(transforms.transforms)


class UniqueImages(Dataset):
    """The images of a data set, each once, in the order of their numbers.

    Args:
        dataset: The data set, with its wrappers.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.numbers = number_images(dataset)

    def __len__(self) -> int:
        return self.numbers.num_images

    def __getitem__(self, number: int) -> Any:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[Any]:
        """Load images through the data set's pipeline."""
        return self.dataset.__getitems__([int(self.numbers.first[number]) for number in numbers])

    def locate(self, number: int) -> tuple[Any, int]:
        """Innermost data set of an image, and the index within it."""
        return locate(self.dataset, int(self.numbers.first[number]))
