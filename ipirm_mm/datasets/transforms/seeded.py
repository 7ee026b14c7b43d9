"""Random transforms that do not depend on the process, the worker or its history."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform, Compose
from mmpretrain.datasets.transforms import MultiView, PackInputs
from mmpretrain.registry import TRANSFORMS

from ipirm_mm.errors import UserError
from ipirm_mm.utils.seeding import seed_words_of


class _Seeded:
    """Random draws that depend only on the seed, the epoch, the image and the augmentation.

    Otherwise draws depend on the process, the worker and its history. Two processes would see
    other images than one, a resumed run other images than an uninterrupted one, and without
    persistent workers every epoch would repeat the same draws.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Epoch, seed and draw, in shared memory, where persistent workers see them change.
        self._state = torch.tensor([-1, 0, 0]).share_memory_()
        #: The :class:`~ipirm_mm.datasets.indices.Item` that is loaded; set within each worker.
        self.item: Any = None

    def set_epoch(self, epoch: int, seed: int = 0, draw: int = 0) -> None:
        """Set what the random draws depend on, besides the image.

        Args:
            epoch: The epoch that begins, counted from 0.
            seed: Seed of the run. Defaults to 0.
            draw: Number of the augmentation within the epoch, for passes that need several
                augmentations of an image. Defaults to 0, the augmentation of the training.
        """
        if not self._state.is_shared():  # in a copy, such as the fold of a KFoldDataset
            self._state = self._state.clone().share_memory_()
        self._state.copy_(torch.tensor([epoch, seed, draw]))

    def _words(self, results: dict) -> np.ndarray | None:
        """Four random words of 32 bits for an image; None if no epoch was set."""
        epoch, seed, draw = self._state.tolist()
        if epoch < 0:
            return None
        key, item = self._key(results), self.item
        repeat = 0
        if item is not None:
            repeat = item.repeat
            if item.passes is not None:  # a loop of iterations, whose workers load in advance
                epoch, draw = item.passes, 0
        # Draw 0 has no word of its own: it is the augmentation that earlier versions had.
        extra = (draw, repeat) if repeat else (draw,) if draw else ()
        return seed_words_of((seed, epoch), key, extra)

    @contextmanager
    def _draws_of(self, results: dict) -> Iterator[None]:
        """Seed the global generators for an image, and restore them afterwards."""
        words = self._words(results)
        if words is None:
            yield
            return
        # OpenMMLab's transforms draw from all three generators. torch.manual_seed would also seed
        # the accelerators, which is slow and would not be restored below.
        generator = torch.default_generator
        states = random.getstate(), np.random.get_state(), generator.get_state()
        try:
            random.seed(int(words[0]))
            np.random.seed(words[1:3])
            generator.manual_seed(int(words[3]))
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            generator.set_state(states[2])

    def _key(self, results: dict) -> int:
        """Number of the item: the index in the data set, counted over all its wrappers."""
        sample_idx = results.get('sample_idx')
        shift = 0 if self.item is None else self.item.shift
        if isinstance(sample_idx, (int, np.integer)) and shift is not None:
            return int(sample_idx) + shift
        if self.item is None:
            raise UserError(
                f'{type(self).__name__} needs sample_idx, which the data set does not set: use a '
                'data set of MMEngine, or remove the hook that calls set_epoch (SetEpochHook or '
                'PartitionUpdateHook)'
            )
        return self.item.position


@TRANSFORMS.register_module()
class SeededTransforms(_Seeded, BaseTransform):
    """A sequence of transforms whose random draws depend only on seed, epoch and image.

    So a resumed run, or a run on more processes, sees the same images.
    :class:`~ipirm_mm.engine.hooks.SetEpochHook` passes epoch and seed of the run on to it. Until
    :meth:`set_epoch` is called, draws come from the global generators.

    **Required keys:** ``sample_idx``, and those of the transforms.

    Args:
        transforms: Configs of the transforms.

    Raises:
        UserError: When called after :meth:`set_epoch`, if there is no ``sample_idx``.
    """

    def __init__(self, transforms: list) -> None:
        super().__init__()
        self.transforms = Compose(transforms)

    def transform(self, results: dict) -> dict | None:
        """Apply the transforms; the result may be None, if one of them rejects the image."""
        with self._draws_of(results):
            return self.transforms(results)


@TRANSFORMS.register_module()
class SeededMultiView(_Seeded, MultiView):
    """MMPretrain's ``MultiView``, whose random draws depend only on seed, epoch and image.

    :class:`~ipirm_mm.engine.hooks.PartitionUpdateHook` or
    :class:`~ipirm_mm.engine.hooks.SetEpochHook` passes epoch and seed of the run on to it. Until
    :meth:`set_epoch` is called, draws come from the global generators, as in ``MultiView``.

    **Required keys:** ``sample_idx``, and ``img`` unless the views load it.

    **Modified keys:** ``img``, the list of views.

    Args:
        transforms: Pipelines of the views, as in ``MultiView``.
        num_views: Number of views of each pipeline, as in ``MultiView``.

    Raises:
        UserError: When called after :meth:`set_epoch`, if there is no ``sample_idx``.
    """

    def transform(self, results: dict) -> dict:
        """Replace ``results['img']`` by the list of views."""
        with self._draws_of(results):
            return self._views(results)

    def _views(self, results: dict) -> dict:
        views = []
        for transform in self.transforms:
            # MultiView makes deep copies of everything, which costs more than the crop of a small
            # image. Transforms replace the image's array or write into it, so it is copied.
            inputs = dict(results)
            if 'img' in results:  # otherwise each view loads its own
                inputs['img'] = results['img'].copy()
            views.append(transform(inputs)['img'])
        return {**results, 'img': views}


@TRANSFORMS.register_module()
class PackWithSeed(_Seeded, PackInputs):
    """MMPretrain's ``PackInputs``, which also packs a seed for the views of the image.

    :class:`~ipirm_mm.models.BatchedViews` makes the views from it. The seed depends only on the
    run's seed, the epoch, the image and the augmentation, as in :class:`SeededMultiView`. Until
    :meth:`set_epoch` is called, it is drawn from torch's global generator.

    **Required keys:** ``img``, ``sample_idx``. **Added meta key:** ``view_seed`` (int).

    Args:
        input_key: As in ``PackInputs``.
        algorithm_keys: As in ``PackInputs``.
        meta_keys: As in ``PackInputs``.

    Raises:
        UserError: When called after :meth:`set_epoch`, if there is no ``sample_idx``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.meta_keys: tuple[str, ...] = (*self.meta_keys, 'view_seed')

    @staticmethod
    def format_input(input_: Any) -> Any:
        """Convert an image, or a list of views, as ``PackInputs`` does."""
        if isinstance(input_, np.ndarray) and input_.ndim == 3 and input_.dtype == np.uint8:
            # PyTorch takes two to three times as long for the same copy.
            return torch.from_numpy(np.ascontiguousarray(input_.transpose(2, 0, 1)))
        return PackInputs.format_input(input_)

    def transform(self, results: dict) -> dict:
        """Pack the image, and the seed of its views."""
        words = self._words(results)
        seed = (
            int(torch.randint(2**62, ()))
            if words is None
            else int(words[0]) << 31 ^ int(words[1])  # 63 bits
        )
        return super().transform({**results, 'view_seed': seed})
