"""A data preprocessor that makes the views of a batch of images at once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.models import SelfSupDataPreprocessor
from mmpretrain.registry import MODELS, TRANSFORMS
from torch import Tensor

from ipirm_mm.errors import UserError

from .draws import Draws, split_mix
from .steps import build_steps

# Bytes of float images that are worked on at once: what stays in a core's cache, or enough to
# keep a GPU busy.
CHUNK_BYTES = {'cpu': 2**20, 'other': 2**28}


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
        **kwargs: Arguments of MMPretrain's ``SelfSupDataPreprocessor``: ``mean``, ``std``,
            ``to_rgb`` and others.

    Raises:
        UserError: If a transform does not work on batches, or the numbers of pipelines and views
            do not fit.
    """

    def __init__(
        self, transforms: Sequence[Any], num_views: int | Sequence[int] = 2, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        numbers = [num_views] if isinstance(num_views, int) else list(num_views)
        pipelines = list(transforms)
        if len(numbers) != len(pipelines):
            raise UserError(
                f'BatchedViews has {len(pipelines)} pipelines in transforms, but num_views is '
                f'{num_views}: give one number per pipeline'
            )
        self.views = [
            build_steps([TRANSFORMS.build(copy.deepcopy(step)) for step in steps], self.is_rgb)
            for steps, number in zip(pipelines, numbers)
            for _ in range(number)
        ]

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
        samples = data.get('data_samples') or []
        seeds = [sample.get('view_seed') for sample in samples]
        if not seeds or any(seed is None for seed in seeds):
            if training:
                raise UserError(
                    'BatchedViews needs view_seed in each sample: end the pipeline of '
                    "train_dataloader.dataset in dict(type='PackWithSeed'), not in PackInputs"
                )
            return super().forward(data, training)
        inputs = self.cast_data(data['inputs'])
        if isinstance(inputs, Tensor):
            inputs = [inputs] * len(self.views)
        if len(inputs) != len(self.views) or any(x.ndim != 4 for x in inputs):
            raise UserError(
                f'BatchedViews makes {len(self.views)} views, but a batch has {len(inputs)} '
                'inputs that are no such views: with images of several sizes, crop them in the '
                "pipeline of the data set, by dict(type='SeededMultiView', ...), "
                'and leave RandomResizedCrop out here'
            )
        keys = torch.tensor(seeds)
        # Autocast would round 8 bits of color.
        with torch.no_grad(), torch.autocast(inputs[0].device.type, enabled=False):
            views = [
                self._view(images, split_mix(keys + number), steps)
                for number, (images, steps) in enumerate(zip(inputs, self.views))
            ]
        return {'inputs': views, 'data_samples': self.cast_data(samples)}

    def _view(self, images: Tensor, seeds: Tensor, steps: list) -> Tensor:
        if self._channel_conversion:
            images = images.flip(1)
        draws = Draws(seeds)
        plans, sizes = [], [tuple(images.shape[2:])]
        for step in steps:
            plans.append(step.plan(draws, *sizes[-1]))
            sizes.append(step.size(*sizes[-1]))
        views = images.new_empty((*images.shape[:2], *sizes[-1]), dtype=torch.float32)
        pixels = images.shape[1] * max(height * width for height, width in sizes)
        limit = CHUNK_BYTES.get(images.device.type, CHUNK_BYTES['other'])
        length = max(1, limit // (4 * pixels))
        for begin in range(0, len(images), length):
            chunk = slice(begin, begin + length)
            part = images[chunk].to(torch.float32, copy=True)
            for step, plan in zip(steps, plans):
                part = step(part, tuple(value[chunk] for value in plan))
            if self._enable_normalize:
                part = (part - self.mean) / self.std
            views[chunk] = part
        return views
