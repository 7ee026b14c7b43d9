"""Data preprocessors that make the views of a batch of images at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import torch
from mmpretrain.models import ClsDataPreprocessor, SelfSupDataPreprocessor
from mmpretrain.registry import MODELS, TRANSFORMS
from torch import Tensor

from ipirm_mm.errors import UserError

from .draws import Draws, split_mix
from .steps import Step, build_steps

# Bytes of float images that are worked on at once: what stays in the caches, but so many small
# images that calling the operations costs little; or enough to keep a GPU busy.
CHUNK_BYTES = {'cpu': 3 * 2**20, 'other': 2**28}


def view_seeds(data: dict, training: bool, name: str) -> Tensor | None:
    """Read the seeds of a batch's views, which ``PackWithSeed`` packed.

    Args:
        data: The batch, with ``data_samples``.
        training: Whether this is a training step.
        name: Name of the preprocessor, for the message.

    Returns:
        ``(N,)`` int64 on the CPU; None if there are none.

    Raises:
        UserError: If a training step lacks them.
    """
    seeds = [sample.get('view_seed') for sample in data.get('data_samples') or []]
    if seeds and all(seed is not None for seed in seeds):
        return torch.tensor(seeds)
    if training:
        raise UserError(
            f'{name} needs view_seed in each sample: end the pipeline of '
            "train_dataloader.dataset in dict(type='PackWithSeed'), not in PackInputs"
        )
    return None


def make_views(
    inputs: Sequence[Tensor],
    seeds: Tensor,
    steps: Sequence[Step],
    channels_last: bool = False,
    finish: Callable | None = None,
) -> list[Tensor]:
    """Make views of a batch by one pipeline, some images at a time.

    Args:
        inputs: The images of each of V views, ``(N, C, H, W)`` uint8, or float from 0 to 255,
            all of one shape. They may be the same tensor.
        seeds: Seed of each view of each image, ``(V, N)`` int64 on the CPU.
        steps: The steps of the pipeline.
        channels_last: Whether the channels of a pixel lie side by side in memory. Defaults to
            False.
        finish: What is done last with float views, which it may change in place. Defaults to
            None: nothing.

    Returns:
        V float views ``(N, C, H', W')``.
    """
    (count, channels, *size), device = inputs[0].shape, inputs[0].device
    # Of all views together, since calling the operations takes longer than the numbers.
    draws = Draws(seeds.flatten())
    plans, sizes = [], [tuple(size)]
    for step in steps:
        plans.append([value.split(count) for value in step.plan(draws, *sizes[-1])])
        sizes.append(step.size(*sizes[-1]))
    limit = CHUNK_BYTES.get(device.type, CHUNK_BYTES['other'])
    length = max(1, limit // (4 * channels * max(height * width for height, width in sizes)))
    views = []
    for number, images in enumerate(inputs):
        view = torch.empty(
            (count, channels, *sizes[-1]),
            device=device,
            memory_format=torch.channels_last if channels_last else torch.contiguous_format,
        )
        # Autocast would round 8 bits of color.
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            for begin in range(0, count, length):
                chunk = slice(begin, begin + length)
                part = images[chunk].to(torch.float32, copy=True)
                for step, plan in zip(steps, plans):
                    part = step(part, tuple(value[number][chunk] for value in plan))
                view[chunk] = finish(part) if finish else part
        views.append(view)
    return views


def _build(transforms: Sequence[Any], rgb: bool) -> list[Step]:
    return build_steps([TRANSFORMS.build(copy.deepcopy(step)) for step in transforms], rgb)


@MODELS.register_module()
class BatchedViews(SelfSupDataPreprocessor):
    """Makes the views of self-supervised learning on the device, for a whole batch at once.

    It takes the place of ``MultiView`` or ``SeededMultiView``. The pipeline of the data set then
    only loads the images, and ends in :class:`~ipirm_mm.datasets.PackWithSeed`, whose seeds decide
    every draw: views do not depend on the batch, the number of processes and workers, or a resume.

    .. code-block:: python

        data_preprocessor = dict(
            type='BatchedViews', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
            to_rgb=True, num_views=2, transforms=[view_pipeline])
        train_pipeline = [dict(type='LoadImage'), dict(type='PackWithSeed')]

    Images of one batch must be of one size. Where they are not, leave the crop in the pipeline, in
    ``SeededMultiView``, and give the rest here: then the loader's views are transformed further.

    The transforms are the usual ones by name: ``RandomResizedCrop`` (it interpolates as Pillow,
    with antialiasing), ``RandomFlip``, ``ColorJitter``, ``RandomGrayscale``, ``GaussianBlur``,
    ``Solarize``, and ``RandomApply`` around one of them. Values are not rounded between them.
    Batches without seeds, those of evaluation, are only normalized.

    Args:
        transforms: Pipelines of the views, as in ``MultiView``.
        num_views: Number of views of each pipeline, or one number for the only pipeline. Defaults
            to 2.
        channels_last: Whether views are in PyTorch's ``channels_last`` memory format, which
            convolutions keep: faster on processors, and on GPUs with mixed precision. Defaults to
            False.
        **kwargs: Arguments of MMPretrain's ``SelfSupDataPreprocessor``: ``mean``, ``std``,
            ``to_rgb`` and others.

    Raises:
        UserError: If a transform does not work on batches, or the numbers of pipelines and views
            do not fit.
    """

    def __init__(
        self,
        transforms: Sequence[Any],
        num_views: int | Sequence[int] = 2,
        channels_last: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.channels_last = channels_last
        numbers = [num_views] if isinstance(num_views, int) else list(num_views)
        pipelines = list(transforms)
        if len(numbers) != len(pipelines):
            raise UserError(
                f'BatchedViews has {len(pipelines)} pipelines in transforms, but num_views is '
                f'{num_views}: give one number per pipeline'
            )
        #: The steps of each pipeline, and how many views it makes.
        self.pipelines = [
            (_build(steps, self.is_rgb), number) for steps, number in zip(pipelines, numbers)
        ]
        self.num_views = sum(numbers)

    @property
    def is_rgb(self) -> bool:
        """Whether images are RGB when they are transformed; they are loaded as BGR."""
        return bool(self._channel_conversion)

    @torch.compiler.disable
    def forward(self, data: dict, training: bool = False) -> dict:
        """Move a batch to the device, make its views, and normalize them.

        Args:
            data: ``inputs``, uint8 ``(N, C, H, W)`` or a list of as many views as there are, and
                ``data_samples``, with ``view_seed`` if views are to be made.
            training: Whether this is a training step, which needs seeds. Defaults to False.

        Returns:
            ``inputs``, a list of float views ``(N, C, H, W)``, or a tensor if there are no seeds;
            and ``data_samples``.

        Raises:
            UserError: If seeds are missing in training, images are of several sizes, or the number
                of views is another.
        """
        seeds = view_seeds(data, training, type(self).__name__)
        if seeds is None:
            return super().forward(data, training)
        inputs = self.cast_data(data['inputs'])
        if isinstance(inputs, Tensor):
            inputs = [inputs] * self.num_views
        if len(inputs) != self.num_views or any(x.ndim != 4 for x in inputs):
            raise UserError(
                f'BatchedViews makes {self.num_views} views, but a batch has {len(inputs)} '
                'inputs that are no such views: with images of several sizes, crop them in the '
                "pipeline of the data set, by dict(type='SeededMultiView', ...), "
                'and leave RandomResizedCrop out here'
            )
        if self._channel_conversion:
            inputs = [images.flip(1) for images in inputs]
        samples = data['data_samples']
        if self.device.type != 'cpu':  # where they are: to copy each takes as long as to crop it
            samples = self.cast_data(samples)
        return {'inputs': self.make_views(inputs, seeds), 'data_samples': samples}

    def make_views(self, inputs: Sequence[Tensor], seeds: Tensor) -> list[Tensor]:
        """Make the views of a batch, and normalize them.

        Args:
            inputs: The images of each view, ``(N, C, H, W)`` uint8, in the order of the channels
                that the model gets.
            seeds: Seed of each image, ``(N,)`` int64 on the CPU.

        Returns:
            Float views ``(N, C, H', W')``.
        """
        # Each view has seeds of its own.
        all_seeds = split_mix(seeds + torch.arange(self.num_views)[:, None])
        views: list[Tensor] = []
        for steps, number in self.pipelines:
            of_pipeline = inputs[len(views) : len(views) + number]
            for _, same_size in groupby(of_pipeline, key=lambda images: images.shape):
                images = list(same_size)
                part = all_seeds[len(views) : len(views) + len(images)]
                views += make_views(images, part, steps, self.channels_last, self._normalize)
        return views

    def _normalize(self, images: Tensor) -> Tensor:
        return images.sub_(self.mean).div_(self.std) if self._enable_normalize else images


@MODELS.register_module()
class ClsBatchedViews(ClsDataPreprocessor):
    """Augments the images of a classifier on the device, for a whole batch at once.

    What :class:`BatchedViews` is for self-supervised learning, for ``ImageClassifier`` and
    ``DistillingClassifier``: one view of each image, from the seed that
    :class:`~ipirm_mm.datasets.PackWithSeed` packs last in the pipeline, then MMPretrain's
    normalization, and its Mixup or CutMix if the model asks for them.

    Args:
        transforms: Pipeline of the view, see :class:`BatchedViews`.
        channels_last: See :class:`BatchedViews`. Defaults to False.
        **kwargs: Arguments of MMPretrain's ``ClsDataPreprocessor``: ``mean``, ``std``,
            ``to_rgb``, ``num_classes`` and others.

    Raises:
        UserError: If a transform does not work on batches.
    """

    def __init__(
        self, transforms: Sequence[Any], channels_last: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.channels_last = channels_last
        self.steps = _build(transforms, rgb=False)

    @torch.compiler.disable
    def forward(self, data: dict, training: bool = False) -> dict:
        """Move a batch to the device, augment and normalize it.

        Args:
            data: ``inputs``, uint8 ``(N, C, H, W)``, and ``data_samples``, with ``view_seed`` if
                they are to be augmented.
            training: Whether this is a training step, which needs seeds. Defaults to False.

        Returns:
            As ``ClsDataPreprocessor``: ``inputs``, float ``(N, C, H', W')``, and ``data_samples``.

        Raises:
            UserError: If seeds are missing in training, or images are of several sizes.
        """
        seeds = view_seeds(data, training, type(self).__name__)
        if seeds is not None:
            images = self.cast_data(data['inputs'])
            if not isinstance(images, Tensor) or images.ndim != 4:
                raise UserError(
                    'ClsBatchedViews needs images of one size, (N, C, H, W): crop them in the '
                    "pipeline of the data set, by dict(type='SeededTransforms', ...), and leave "
                    'RandomResizedCrop out here'
                )
            (view,) = make_views([images], split_mix(seeds)[None], self.steps, self.channels_last)
            data = {**data, 'inputs': view}
        return super().forward(data, training)
