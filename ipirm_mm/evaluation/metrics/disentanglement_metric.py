"""Disentanglement of features as a metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmpretrain.registry import METRICS

from ipirm_mm.datasets import one_class
from ipirm_mm.errors import UserError
from ipirm_mm.utils import ProgressBar

from ..disentanglement_scores import check_factors, disentanglement_scores, missing_factor


@METRICS.register_module()
class DisentanglementMetric(BaseMetric):
    """DCI, IRS, modularity and explicitness of the features of one data set.

    A random half of the images, the same in each evaluation, is what classifiers are fitted to;
    the other half is what informativeness and explicitness are measured on. IRS and modularity are
    measured on all images. It needs no labeled bank and can be an evaluator of an SSL config:

    .. code-block:: python

        val_evaluator = [dict(type='KNNAccuracy'), dict(type='DisentanglementMetric')]

    For models of MMPretrain that give no features, there is
    ``tools/benchmark_ssl.py --disentanglement``.

    Args:
        factors: Names of the fields of the samples that hold the factors, one integer per image.
            Defaults to ``('gt_label', 'factor')``: the class, and what ``TintByFactor`` sets.
        l1_weight: Strength of the penalty of DCI's classifiers. Defaults to 0.01.
        collect_device: Device on which the results of the ranks are gathered. Defaults to
            ``'cpu'``.
        prefix: Prefix of the metric's name. Defaults to None, which means ``'disentanglement'``.

    Raises:
        UserError: If an option is out of range.
    """

    default_prefix = 'disentanglement'

    def __init__(
        self,
        factors: Sequence[str] = ('gt_label', 'factor'),
        l1_weight: float = 0.01,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if isinstance(factors, str) or not factors or len(set(factors)) < len(factors):
            raise UserError(
                'DisentanglementMetric.factors must be a list of different names, but is '
                f'{factors!r}'
            )
        if l1_weight < 0:
            raise UserError(
                f'DisentanglementMetric.l1_weight must not be negative, but is {l1_weight}'
            )
        self.factors = tuple(factors)
        self.l1_weight = l1_weight

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the feature and the factors of each sample.

        Args:
            data_batch: Not used.
            data_samples: The samples, one ``dict`` with ``feature`` and the factors per image.

        Raises:
            UserError: If the model gives no features, or an image lacks a factor.
        """
        for sample in data_samples:
            if 'feature' not in sample:
                raise UserError(
                    'DisentanglementMetric needs the features that IPIRMSimCLR and IPIRMSimSiam '
                    'give, but the model gives none: use tools/benchmark_ssl.py '
                    '--disentanglement, which takes every model'
                )
            values = [one_class(sample.get(name)) for name in self.factors]
            for name, value in zip(self.factors, values):
                if value is None:
                    raise UserError(missing_factor('DisentanglementMetric.factors', name))
            self.results.append((sample['feature'].float().cpu(), values))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the measures.

        Args:
            results: Feature, ``(D,)``, and factors of each image.

        Returns:
            ``dci_disentanglement``, ``dci_completeness``, ``dci_informativeness``, ``irs``,
            ``modularity`` and ``explicitness``, 0 to 1; the third and the last also of each
            factor, as ``dci_informativeness_factor``. What is undefined is left out.

        Raises:
            UserError: If there are fewer than four images, or a factor has one value only.
        """
        if len(results) < 4:
            raise UserError(
                f'DisentanglementMetric needs at least four images, but the data set has '
                f'{len(results)}'
            )
        features = torch.stack([feature for feature, _ in results])
        factors = torch.tensor([values for _, values in results])
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
        fit, rest = order.chunk(2)
        check_factors(factors[fit], self.factors, 'a random half of the data set')
        with ProgressBar('disentanglement') as bar:
            scores = disentanglement_scores(
                (features[fit], factors[fit]),
                (features[rest], factors[rest]),
                self.factors,
                self.l1_weight,
                bar,
            )
        return {name: value for name, value in scores.items() if not math.isnan(value)}
