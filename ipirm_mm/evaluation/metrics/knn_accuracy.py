"""k-NN accuracy as a metric, for validation and test of self-supervised models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmpretrain.registry import METRICS

from ipirm_mm.datasets import one_class, why_not_one_class
from ipirm_mm.errors import UserError

from ..knn import knn_predict


@METRICS.register_module()
class KNNAccuracy(BaseMetric):
    """Leave-one-out k-NN accuracy within the evaluated split.

    Each image is classified by its nearest neighbors among the other images of the split, by the
    cosine similarity of their features. Each vote is weighted by ``exp(cosine / temperature)``, as
    in the code of Wang et al. (IP-IRM). The metric needs no second data set, so it can be the
    evaluator of an SSL config. :class:`~ipirm_mm.engine.hooks.KNNHook` classifies a held-out split
    by the training images instead.

    Args:
        k: Number of neighbors. Defaults to 20.
        temperature: Temperature of the votes. Defaults to 0.5.
        collect_device: Device on which the results of the ranks are gathered. Defaults to
            ``'cpu'``.
        prefix: Prefix of the metric's name. Defaults to None, which means ``'knn'``.

    Raises:
        UserError: If an option is out of range.
    """

    default_prefix = 'knn'

    def __init__(
        self,
        k: int = 20,
        temperature: float = 0.5,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if k < 1 or temperature <= 0:
            raise UserError(
                'KNNAccuracy needs k of at least 1 and a positive temperature, but they are '
                f'{k} and {temperature}'
            )
        self.k = k
        self.temperature = temperature

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the feature and the label of each sample.

        Args:
            data_batch: Not used.
            data_samples: The samples, one ``dict`` with ``feature`` and ``gt_label`` per image.

        Raises:
            UserError: If the data set has no labels, or the model gives no features.
        """
        for sample in data_samples:
            if 'feature' not in sample:
                raise UserError(
                    'KNNAccuracy needs the features that models of IP-IRM give, but '
                    'the model gives none: use Accuracy for a classifier, or custom_hooks=[dict('
                    "type='KNNHook', ...)], which takes every model"
                )
            label = sample.get('gt_label', sample.get('gt_score'))
            if label is None:
                raise UserError('KNNAccuracy needs labels, but the evaluated data set has none')
            if one_class(label) is None:
                raise UserError(
                    'KNNAccuracy needs one class per image, but the images of the evaluated data '
                    f'set {why_not_one_class([label])}: use another evaluator'
                )
            self.results.append((sample['feature'].float().cpu(), one_class(label)))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the accuracy.

        Args:
            results: Feature, ``(D,)``, and label of each image.

        Returns:
            ``top1``, in percent.

        Raises:
            UserError: If there are fewer than two images.
        """
        if len(results) < 2:
            raise UserError('KNNAccuracy needs at least two images')
        features = torch.stack([feature for feature, _ in results])
        labels = torch.tensor([label for _, label in results])
        votes = knn_predict(
            features, labels, features, self.k, self.temperature, exclude_self=True
        )
        return dict(top1=100 * float((votes.argmax(1) == labels).double().mean()))
