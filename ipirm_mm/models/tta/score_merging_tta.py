"""Test-time augmentation: merge the probabilities of several views of an image."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from hashlib import sha1
from typing import Any

import torch
from mmengine.model import BaseTTAModel
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.options import check_one_of, check_whole

from ..utils import label_rule, merge_samples, stack_scores

VIEW_POLICIES = ('mean', 'gmean', 'tsharpen')


@MODELS.register_module()
class ScoreMergingTTA(BaseTTAModel):
    """Merge the probabilities of the views of each image (report Section 4.2, "Other Tricks").

    On a GPU all views of a batch pass through the network together. On processors one view passes
    at a time: larger passes take up to half as long again per image, because their activations
    exceed what the allocator keeps between passes (``benchmarks/tta.py``).

    Fault bridged: MMPretrain's ``AverageClsScoreTTA`` keeps the label of the first view. Here the
    label is that of the merged scores. Scores of several labels per image are merged label by
    label (:func:`~ipirm_mm.functional.merge_label_scores`), and their labels are those that the
    classifier's head would predict. Views that are the same for all images of the first batch are
    refused.

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
        check_one_of('ScoreMergingTTA.policy', policy, VIEW_POLICIES)
        if max_images is not None:
            check_whole('ScoreMergingTTA.max_images', max_images)
        self.policy = policy
        self.max_images = max_images
        self._views_checked = False

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

        Raises:
            UserError: If two views are the same for all images of the first batch.
        """
        views, samples = data['inputs'], data['data_samples']
        if not self._views_checked:
            check_views_differ(views)
            self._views_checked = True
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
        scores = torch.stack([stack_scores(views) for views in data_samples_list], 1)
        first = [views[0] for views in data_samples_list]
        return merge_samples(first, scores, self.policy, label_rule(self.module))


def check_views_differ(views: Sequence[Sequence[Tensor]]) -> None:
    """Check that the views of a batch differ.

    Views that show the same pixels of every image come from crops as large as the images, or from
    a pipeline that undoes them. Images of one color, and batches of less than two different
    images, tell nothing.

    Args:
        views: One list of images per view.

    Raises:
        UserError: If two views show the same for every image of the batch.
    """
    if len(views) < 2:
        return
    telling = [n for n, image in enumerate(views[0]) if bool(image.max() > image.min())]
    if len({_digest(views[0][n]) for n in telling}) < 2:
        return
    seen: dict[tuple[bytes, ...], int] = {}
    for number, view in enumerate(views):
        content = tuple(_digest(view[n]) for n in telling)
        if content in seen:
            raise UserError(
                f'views {seen[content] + 1} and {number + 1} of {len(views)} are the same for all '
                f'{len(view)} images of the first batch: resize the images to more than the size '
                'of the crops (--tta-resize), give smaller crops (--tta-crop-size), or take other '
                'views (--tta-crops)'
            )
        seen[content] = number


def _digest(image: Tensor) -> bytes:
    return sha1(image.cpu().contiguous().numpy().tobytes()).digest()
