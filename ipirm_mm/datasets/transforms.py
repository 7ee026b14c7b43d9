"""Transforms: a known hidden factor, views that do not depend on the process, named images."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform, Compose, LoadImageFromFile
from mmengine import fileio
from mmpretrain.datasets.transforms import MultiView
from mmpretrain.registry import TRANSFORMS

from ipirm_mm.errors import UserError

# Ten tints, RGB. Blue is on in five of them, red in six and green in six, so that each channel is
# a two-valued factor on its own.
PALETTE = np.array(
    [
        (255, 40, 40),  # red
        (40, 255, 40),  # green
        (40, 40, 255),  # blue
        (255, 255, 40),  # yellow
        (255, 40, 255),  # magenta
        (40, 255, 255),  # cyan
        (255, 150, 40),  # orange
        (150, 255, 40),  # lime
        (150, 40, 255),  # violet
        (255, 255, 255),  # white
    ],
    dtype=np.uint8,
)


def _seed_words(*words: int) -> np.ndarray:
    """Hash integers to four 32-bit words, alike on every machine."""
    return np.random.SeedSequence(words).generate_state(4)


def tint(images: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Colour grey images.

    Args:
        images: Grey images, ``(N, H, W)`` uint8.
        factors: Index into :data:`PALETTE` of each image, ``(N,)``.

    Returns:
        RGB images, ``(N, H, W, 3)`` uint8.
    """
    colours = PALETTE[np.asarray(factors)][:, None, None, :].astype(np.uint16)
    return ((images[..., None] * colours + 127) // 255).astype(np.uint8)


@TRANSFORMS.register_module()
class TintByFactor(BaseTransform):
    """Colour a grey image by a hidden factor: a second semantic that is known.

    The factor of an image depends on ``seed`` and its ``sample_idx`` only. It is uniform, or with
    probability ``follow`` the class: ``(gt_label + shift) % num_factors``. An image without index,
    as MMPretrain's ``FeatureExtractor`` gives it, belongs to no data set and is left as it is.

    **Required keys:** ``img``, ``sample_idx``; ``gt_label`` if ``follow > 0``.

    **Modified keys:** ``img``. **Added keys:** ``factor`` (int).

    Args:
        num_factors: Number of colours, 2 to 10. Defaults to 10.
        follow: Degree to which the colour follows the class, 0 to 1. Defaults to 0.
        shift: Added to the class, for colours that follow it in another way. Defaults to 0.
        seed: Seed of the hidden draw. Defaults to 0.

    Raises:
        UserError: If an option is out of range.
    """

    def __init__(
        self, num_factors: int = 10, follow: float = 0.0, shift: int = 0, seed: int = 0
    ) -> None:
        if not isinstance(num_factors, int) or not 2 <= num_factors <= len(PALETTE):
            raise UserError(
                f'TintByFactor.num_factors must be an integer from 2 to {len(PALETTE)}, but is '
                f'{num_factors}'
            )
        if not 0 <= follow <= 1:
            raise UserError(f'TintByFactor.follow must be from 0 to 1, but is {follow}')
        if not isinstance(seed, int) or seed < 0:
            raise UserError(f'TintByFactor.seed must be an integer of at least 0, but is {seed}')
        self.num_factors = num_factors
        self.follow = follow
        self.shift = shift
        self.seed = seed

    def factor_of(self, sample_idx: int, gt_label: int | None = None) -> int:
        """The factor of an image."""
        words = _seed_words(self.seed, sample_idx)
        if self.follow and words[0] < self.follow * 2.0**32:
            if gt_label is None:
                raise UserError('TintByFactor.follow needs gt_label, which the data set lacks')
            return (int(gt_label) + self.shift) % self.num_factors
        return int(words[1]) % self.num_factors

    def transform(self, results: dict) -> dict:
        """Tint ``results['img']``, BGR as everywhere in OpenMMLab."""
        if 'sample_idx' not in results:
            return results
        factor = self.factor_of(int(results['sample_idx']), results.get('gt_label'))
        image = results['img']
        grey = image if image.ndim == 2 else image[..., 0]
        results['img'] = tint(grey[None], np.array([factor]))[0, ..., ::-1].copy()
        results['factor'] = factor
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(num_factors={self.num_factors}, follow={self.follow}, '
            f'shift={self.shift}, seed={self.seed})'
        )


class _Seeded:
    """Draws that depend on seed, epoch and image only.

    Otherwise the draws depend on the process, the worker and its history: two processes would not
    see the images that one sees, a resumed run would not see those of an uninterrupted one, and
    without persistent workers every epoch would repeat the same ones.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Epoch and seed, in shared memory, where workers that outlive an epoch see them change.
        self._state = torch.tensor([-1, 0]).share_memory_()

    def set_epoch(self, epoch: int, seed: int = 0) -> None:
        """Tell the epoch that begins, counted from 0, and the seed of the run."""
        self._state[0], self._state[1] = epoch, seed

    @contextmanager
    def _draws_of(self, results: dict) -> Iterator[None]:
        """Seed the global generators for an image, and put them back afterwards."""
        epoch, seed = self._state.tolist()
        if epoch < 0:
            yield
            return
        if 'sample_idx' not in results:
            raise UserError(
                f'{type(self).__name__} needs sample_idx, which the data set does not give'
            )
        # The transforms of OpenMMLab draw from all three generators. torch.manual_seed would seed
        # the accelerators' as well, which is slow and would not be undone below.
        generator = torch.default_generator
        states = random.getstate(), np.random.get_state(), generator.get_state()
        words = _seed_words(seed, epoch, int(results['sample_idx']))
        try:
            random.seed(int(words[0]))
            np.random.seed(words[1:3])
            generator.manual_seed(int(words[3]))
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            generator.set_state(states[2])


@TRANSFORMS.register_module()
class SeededTransforms(_Seeded, BaseTransform):
    """Transforms in a row, with draws that depend on seed, epoch and image only.

    So a run that is resumed, or dealt out to more processes, sees the same images.
    :class:`~ipirm_mm.engine.hooks.SetEpochHook` tells the epoch and the seed of the run; until
    :meth:`set_epoch` is called, draws come from the global generators.

    **Required keys:** ``sample_idx``, and those of the transforms.

    Args:
        transforms: The transforms.
    """

    def __init__(self, transforms: list) -> None:
        super().__init__()
        self.transforms = Compose(transforms)

    def transform(self, results: dict) -> dict | None:
        """Apply the transforms."""
        with self._draws_of(results):
            return self.transforms(results)


@TRANSFORMS.register_module()
class SeededMultiView(_Seeded, MultiView):
    """MMPretrain's ``MultiView``, with draws that depend on seed, epoch and image only.

    :class:`~ipirm_mm.engine.hooks.PartitionUpdateHook` or
    :class:`~ipirm_mm.engine.hooks.SetEpochHook` tells the epoch and the seed of the run; until
    :meth:`set_epoch` is called, draws come from the global generators, as in ``MultiView``.

    **Required keys:** ``sample_idx``, and ``img`` unless the views load it.

    Args:
        transforms: Pipelines of the views, as in ``MultiView``.
        num_views: Number of views of each pipeline, as in ``MultiView``.
    """

    def transform(self, results: dict) -> dict:
        """Replace ``results['img']`` by the list of views."""
        with self._draws_of(results):
            return self._views(results)

    def _views(self, results: dict) -> dict:
        views = []
        for transform in self.transforms:
            # MultiView copies everything in depth, which costs more than the crop of a small
            # image; transforms replace the image's array, or write into it.
            inputs = dict(results)
            if 'img' in results:  # it is not, where each view loads its own
                inputs['img'] = results['img'].copy()
            views.append(transform(inputs)['img'])
        return {**results, 'img': views}


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """MMCV's ``LoadImageFromFile``, naming the file that cannot be read.

    MMCV's own says "failed to load image" or an OpenCV message that names no file, from within a
    worker, and takes a JPEG that breaks off for a whole one, the missing part grey. Grey images,
    palettes, transparency (dropped), CMYK and 16 bits become 8-bit BGR, and the rotation in EXIF
    is applied. Arguments are those of ``LoadImageFromFile``.
    """

    def transform(self, results: dict) -> dict | None:
        """Load ``results['img_path']``.

        Raises:
            UserError: If the file is missing, broken off or no image.
        """
        try:
            image = self._read(results['img_path'])
        except UserError:
            if self.ignore_empty:
                return None
            raise
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _read(self, path: str) -> np.ndarray:
        try:
            content = fileio.get(path, backend_args=self.backend_args)
            image = mmcv.imfrombytes(content, self.color_type, backend=self.imdecode_backend)
        except (OSError, ValueError, cv2.error) as error:
            # A missing file, a lack of rights and an unknown backend are not mended by another
            # file; what OpenCV says helps nobody.
            reason = f' ({error})' if isinstance(error, (OSError, ValueError)) else ''
            raise UserError(_unreadable(path, reason)) from error
        # After the last start of a scan, a whole JPEG has an end-of-image marker.
        if content[:2] == b'\xff\xd8' and content.rfind(b'\xff\xd9') < content.rfind(b'\xff\xda'):
            raise UserError(_unreadable(path, f' (it breaks off after {len(content):,} bytes)'))
        if image is None:
            raise UserError(_unreadable(path))
        return image


def _unreadable(path: str, reason: str = '') -> str:
    return (
        f'{path} cannot be read as an image{reason}: replace the file, or take it out of the '
        'data set'
    )
