"""Evaluate the networks of the laptop experiments: features, probabilities and accuracies.

Images are tinted at random, so accuracies are means over several draws of the colors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmpretrain import get_model
from mmpretrain.models import BaseClassifier
from mmpretrain.registry import DATASETS, MODELS
from runs import ROOT, Run
from torch import Tensor
from torch.utils.data import DataLoader

from ipirm_mm.evaluation import LinearProbe, extract_features, format_interval, knn_predict
from ipirm_mm.functional import merge_scores
from ipirm_mm.models.tta import ScoreMergingTTA, tta_pipeline
from ipirm_mm.models.utils import load_classifier
from ipirm_mm.reproduction import read_models
from ipirm_mm.utils import atomic_write
from ipirm_mm.visualization import format_markdown, format_table

NUM_DRAWS = 4


def load(run: Run) -> Any:
    """The network of a finished run: an encoder, or a classifier without its teacher."""
    config = Config.fromfile(run.config_path)
    if issubclass(MODELS.get(config.model.type), BaseClassifier):
        return load_classifier(config, str(run.checkpoint))
    model = get_model(config, device='cpu')
    load_checkpoint(model, str(run.checkpoint), map_location='cpu', logger='silent')
    return model


def encoder_of(what: Run | int) -> Any:
    """The network of a run in evaluation mode, or that of a seed before its training."""
    if isinstance(what, Run):
        return load(what)
    torch.manual_seed(what)
    model = get_model(Config.fromfile(ROOT / 'configs/quickstart/sum_simclr.py'), device='cpu')
    model.init_weights()
    return model


def tinted_pipeline(follow: float, seed: int) -> list[dict[str, Any]]:
    """Pipeline of tinted images.

    Args:
        follow: Fraction of the images whose color follows from their class.
        seed: Seed of the colors.
    """
    return [
        dict(type='TintByFactor', num_factors=10, follow=follow, seed=seed),
        dict(type='PackInputs', meta_keys=('sample_idx', 'factor')),
    ]


def build_loader(dataset: dict[str, Any], pipeline: list[dict[str, Any]]) -> DataLoader:
    """Loader of the embedded images, in order.

    Args:
        dataset: Arguments of ``FashionMNIST50``.
        pipeline: Pipeline of the images.
    """
    init_default_scope('mmpretrain')  # in which transforms inside transforms are looked up
    built = DATASETS.build(dict(type='FashionMNIST50', **dataset, pipeline=pipeline))
    return DataLoader(
        built,
        batch_size=500,
        sampler=DefaultSampler(built, shuffle=False, seed=0),
        collate_fn=default_collate,
    )


def tinted_features(
    model: Any, dataset: dict[str, Any], follow: float, seed: int
) -> dict[str, Tensor]:
    """Pooled backbone features of tinted images.

    Args:
        model: An encoder or a classifier.
        dataset: Arguments of ``FashionMNIST50``.
        follow: Fraction of the images whose color follows from their class.
        seed: Seed of the colors.

    Returns:
        ``x``, features ``(N, D)``; ``y``, classes ``(N,)``; ``factor``, colors ``(N,)``.
    """
    loader = build_loader(dataset, tinted_pipeline(follow, seed))
    data = extract_features(model, loader, description='features')
    return dict(x=data['features'][0], y=data['gt_label'], factor=data['factor'])


def evaluate_encoder(model: Any, test_set: dict[str, Any]) -> dict[str, Tensor]:
    """How often each test image is classified correctly, over the draws of the colors.

    Args:
        model: An encoder.
        test_set: Arguments of ``FashionMNIST50`` for the test images.

    Returns:
        ``(M,)``, 0 to 1, of ``knn`` (k = 20) and ``probe``, fitted to the 500 labeled images with
        colors independent of the class; of ``shifted``, the probe fitted with colors that follow
        the class for 90 % of the images; and of ``color``, a probe of the ten colors.
    """
    correct: dict[str, list[Tensor]] = dict(knn=[], probe=[], shifted=[], color=[])
    labeled = dict(split='train')
    for draw in range(NUM_DRAWS):
        free = tinted_features(model, labeled, 0.0, 10 * draw + 1)
        tied = tinted_features(model, labeled, 0.9, 10 * draw + 2)
        test = tinted_features(model, test_set, 0.0, 10 * draw + 3)
        votes = knn_predict(free['x'], free['y'], test['x'], k=20)
        correct['knn'].append(votes.argmax(1) == test['y'])
        for name, train, target in (
            ('probe', free, 'y'),
            ('shifted', tied, 'y'),
            ('color', free, 'factor'),
        ):
            probe = LinearProbe().fit(train['x'], train[target])
            correct[name].append(probe.predict(test['x']) == test[target])
    return {name: torch.stack(draws).float().mean(0) for name, draws in correct.items()}


def draw_scores(
    model: Any, test_set: dict[str, Any], crops: str | None = None
) -> tuple[Tensor, Tensor]:
    """Probabilities of a classifier for test images, for each draw of the colors.

    Args:
        model: A classifier.
        test_set: Arguments of ``FashionMNIST50`` for the test images.
        crops: Views of test-time augmentation, see :func:`~ipirm_mm.models.tta.tta_pipeline`.
            Defaults to None, the images alone.

    Returns:
        ``(NUM_DRAWS, M, C)``, and the classes of the images, ``(M,)``.
    """
    model.eval()
    scores = []
    for draw in range(NUM_DRAWS):
        pipeline = tinted_pipeline(0.0, 10 * draw + 3)
        loader = build_loader(test_set, tta_pipeline(pipeline, crops) if crops else pipeline)
        network = ScoreMergingTTA(model) if crops else model
        with torch.no_grad():
            samples = [sample for batch in loader for sample in network.test_step(batch)]
        scores.append(torch.stack([sample.pred_score for sample in samples]))
    return torch.stack(scores), torch.cat([sample.gt_label for sample in samples])


def correct_rate(scores: Tensor, labels: Tensor) -> Tensor:
    """How often each image is classified correctly over the draws.

    Args:
        scores: Probabilities ``(NUM_DRAWS, M, C)``.
        labels: Classes ``(M,)``.

    Returns:
        ``(M,)``, 0 to 1.
    """
    return (scores.argmax(2) == labels).float().mean(0)


def merge_draws(members: Tensor, policy: str = 'mean', weights: Tensor | None = None) -> Tensor:
    """Merge the probabilities of several classifiers, for each draw.

    Args:
        members: Probabilities ``(A, NUM_DRAWS, M, C)``.
        policy: See :func:`~ipirm_mm.functional.merge_scores`. Defaults to ``'mean'``.
        weights: Weights ``(A,)`` of the members. Defaults to None.

    Returns:
        ``(NUM_DRAWS, M, C)``.
    """
    merged = merge_scores(members.flatten(1, 2), policy, weights)
    return merged.unflatten(0, members.shape[1:3])


def mean_and_range(values: Sequence[float] | np.ndarray, spec: str = '.1f') -> str:
    """Mean, lowest and highest value over seeds as text: ``'45.6 (44.9 to 46.2)'``.

    Args:
        values: One value per seed.
        spec: Format of the numbers. Defaults to ``'.1f'``; gains take a sign, ``'+.1f'``.
    """
    span = format_interval((min(values), max(values)), spec, scale=1)
    return f'{np.mean(values):{spec}} ({span})'


def gain_cells(values: np.ndarray, reference: np.ndarray) -> dict[str, str]:
    """Cells ``gain`` and ``above`` of a table: how a row compares with its reference.

    Args:
        values: One accuracy per seed.
        reference: The accuracies of the reference.
    """
    gains = values - reference
    return dict(
        gain=mean_and_range(gains, '+.1f'), above=f'{int((gains > 0).sum())} of {len(gains)}'
    )


def paired_p(differences: Sequence[float] | np.ndarray) -> float:
    """Two-sided p value of Student's paired t test of two differences or more.

    With t = sqrt(n - 1) tan(a), its density is a power of the cosine of a, integrated here.
    """
    freedom = len(differences) - 1
    error = np.std(differences, ddof=1) / math.sqrt(len(differences))
    angle = math.atan2(abs(np.mean(differences)), error * math.sqrt(freedom))

    def integral(low: float) -> float:
        x = torch.linspace(low, math.pi / 2, 20001, dtype=torch.float64)
        return float(torch.trapezoid(x.cos() ** (freedom - 1), x))

    return integral(angle) / integral(0.0)


def add_report(rows: Sequence[dict[str, Any]], configs: Mapping[str, str]) -> None:
    """Add the accuracies of the report, which are of the challenge's images.

    Args:
        rows: Rows of a table; those that the report has get ``report``.
        configs: The config of a row of the report, by the name of the row here.
    """
    models = read_models()
    for row in rows:
        if row['name'] in configs:
            row['report'] = models[configs[row['name']]].report


def save_table(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, str]]
) -> None:
    """Print a table, and write it as Markdown.

    Args:
        path: File to write.
        rows: One mapping per row.
        columns: Key and heading of each column.
    """
    print(f'\n{format_table(rows, columns)}')
    atomic_write(path, format_markdown(rows, columns))
