"""Test-time augmentation: merge the probabilities of several views of an image."""

from __future__ import annotations

import sys
from typing import Any

import torch
from mmengine.model import BaseTTAModel
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.functional import merge_scores

VIEW_POLICIES = ('mean', 'gmean', 'tsharpen')


@MODELS.register_module()
class ScoreMergingTTA(BaseTTAModel):
    """Merge the probabilities of the views of each image (report Section 4.2, "Other Tricks").

    On a GPU all views of a batch pass through the network together. On processors one view passes
    at a time: larger passes take up to half as long again per image, because their activations
    exceed what the allocator keeps between passes (``benchmarks/tta.py``).

    Fault bridged: MMPretrain's ``AverageClsScoreTTA`` keeps the label of the first view. Here the
    label is that of the merged scores.

    .. code-block:: python

        tta_model = dict(type='ScoreMergingTTA', policy='tsharpen')

    Args:
        module: The classifier, or its config.
        policy: ``'mean'``, ``'gmean'`` or ``'tsharpen'``, see
            :func:`~ipirm_mm.functional.merge_scores`. Defaults to ``'mean'``.
        max_images: Maximum number of images per forward pass. Defaults to None: on processors one
            view of a batch; on a GPU all views, halved whenever the GPU's memory is full.
        **kwargs: Other arguments of MMEngine's ``BaseTTAModel``.

    Raises:
        UserError: If an option is out of range.
    """

    def __init__(
        self, module: Any, policy: str = 'mean', max_images: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(module, **kwargs)
        if policy not in VIEW_POLICIES:
            raise UserError(
                f'ScoreMergingTTA.policy must be one of {VIEW_POLICIES}, but is {policy!r}'
            )
        if max_images is not None and max_images < 1:
            raise UserError(f'ScoreMergingTTA.max_images must be at least 1, but is {max_images}')
        self.policy = policy
        self.max_images = max_images

    @torch.no_grad()
    def test_step(self, data: dict[str, Any]) -> list[DataSample]:
        """Predict a batch.

        Args:
            data: ``inputs`` and ``data_samples``, each a list over the views of a batch.

        Returns:
            One sample per image, with the merged ``pred_score`` and its ``pred_label``.
        """
        return self.merge_preds(list(zip(*self.predict_views(data))))

    @torch.no_grad()
    def predict_views(self, data: dict[str, Any]) -> list[list[DataSample]]:
        """Predict each view of a batch.

        Args:
            data: As for :meth:`test_step`.

        Returns:
            One list per view, with one sample per image.
        """
        views, samples = data['inputs'], data['data_samples']
        predictions: list[list[DataSample]] = [[] for _ in views]
        # Only views of one size can be stacked.
        by_shape: dict[Any, list[int]] = {}
        for number, view in enumerate(views):
            by_shape.setdefault(tuple(view[0].shape), []).append(number)
        for numbers in by_shape.values():
            flat = [image for number in numbers for image in views[number]]
            flat_samples = [sample for number in numbers for sample in samples[number]]
            count = len(views[0])
            predicted = self._predict(
                flat, flat_samples, self.max_images or self._default_max_images(count)
            )
            for place, number in enumerate(numbers):
                predictions[number] = predicted[place * count : (place + 1) * count]
        return predictions

    def _default_max_images(self, batch: int) -> int:
        """Maximum number of images per forward pass if ``max_images`` is not set."""
        device = next(self.module.parameters()).device
        return batch if device.type == 'cpu' else sys.maxsize

    def _predict(
        self, images: list[Tensor], samples: list[DataSample], max_images: int
    ) -> list[DataSample]:
        """Predict images of one size, in passes of at most ``max_images``."""
        predicted: list[DataSample] = []
        while len(predicted) < len(images):
            begin = len(predicted)
            end = begin + max_images
            chunk = dict(inputs=torch.stack(images[begin:end]), data_samples=samples[begin:end])
            try:
                predicted += self.module.test_step(chunk)
            except torch.cuda.OutOfMemoryError:
                size = len(samples[begin:end])
                if size == 1:
                    raise
                max_images = self.max_images = size // 2
                torch.cuda.empty_cache()
        return predicted

    def merge_preds(self, data_samples_list: list[Any]) -> list[DataSample]:
        """Merge predictions.

        Args:
            data_samples_list: One tuple per image, with one sample per view.

        Returns:
            One sample per image, with the merged ``pred_score`` and its ``pred_label``.
        """
        scores = torch.stack(
            [torch.stack([view.pred_score for view in views]) for views in data_samples_list], 1
        )
        merged = []
        for views, score in zip(data_samples_list, merge_scores(scores, self.policy)):
            sample = views[0].new()
            merged.append(sample.set_pred_score(score).set_pred_label(score.argmax()))
        return merged
