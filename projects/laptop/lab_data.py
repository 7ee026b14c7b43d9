"""Images of the lab in memory, and the accuracies of its encoders."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from evaluation import NUM_DRAWS
from glyphs import evaluate as evaluate_glyphs
from torch import Tensor

from ipirm_mm.datasets import FashionMNIST50, Glyphs, TintByFactor
from ipirm_mm.datasets.idx_format import DEBIAN_FOLDER
from ipirm_mm.evaluation import LinearProbe, knn_predict
from ipirm_mm.models.utils import pooled_feature


class Images:
    """All images of a split.

    Args:
        split: Name of the split.
        data: ``'tinted'``, ``'gray'`` or ``'glyphs'``.
        follow: As for ``TintByFactor``. Defaults to 0.
        seed: As for ``TintByFactor``. Defaults to 0.
        count: Number of images, from the first on. Defaults to None: all.

    Attributes:
        x: Images ``(N, 3, H, W)`` uint8, RGB.
        y: Classes ``(N,)``.
        factor: The hidden factor of each image, ``(N,)``; zeros where there is none.
    """

    data_root = DEBIAN_FOLDER  # of the splits full and full_test
    glyphs_file = 'data/glyphs.npz'

    def __init__(
        self,
        split: str,
        data: str,
        follow: float = 0.0,
        seed: int = 0,
        count: int | None = None,
    ) -> None:
        dataset: Any
        if data == 'glyphs':
            dataset = Glyphs(split=split, data_file=self.glyphs_file)
        else:
            dataset = FashionMNIST50(split=split, data_root=self.data_root, indices=count)
        dataset.full_init()
        records = [dataset.get_data_info(number) for number in range(len(dataset))]
        if data == 'tinted':
            records = list(map(TintByFactor(follow=follow, seed=seed), records))
        images = torch.from_numpy(np.stack([record['img'] for record in records]))
        self.x = images.permute(0, 3, 1, 2).flip(1).contiguous()  # loaded as BGR
        self.y = torch.tensor([int(record['gt_label']) for record in records])
        self.factor = torch.tensor([int(record.get('factor', 0)) for record in records])


load = functools.cache(Images)


def load_unlabeled(data: str, count: int) -> Images:
    """The images to train on.

    Args:
        data: As for :class:`Images`.
        count: Number of images, which glyphs do not have. 4,000 are the unlabeled ones of the
            package; other numbers are the first of the 60,000 original ones, which include those
            that the probes are fitted to.
    """
    if data == 'glyphs' or count == 4000:
        return load('unlabeled', data)
    return load('full', data, count=count)


@torch.no_grad()
def encode(model: Any, images: Images) -> Tensor:
    """Pooled features of whole images, ``(N, D)``."""
    model.eval()
    normalize = model.data_preprocessor._normalize
    return torch.cat([pooled_feature(model, normalize(x.float())) for x in images.x.split(500)])


def evaluate(model: Any, split: str, data: str) -> dict[str, float]:
    """Accuracies in percent of :func:`evaluation.evaluate_encoder`, or those of glyphs.py."""
    if data == 'glyphs':
        parts = [load(name, data) for name in ('train', split)]
        found = evaluate_glyphs(
            *(dict(x=encode(model, part), y=part.y, kind=part.factor) for part in parts)
        )
        return {name: round(value, 3) for name, value in found.items()}
    correct: dict[str, list[float]] = {}
    for draw in range(NUM_DRAWS if data == 'tinted' else 1):
        free = load('train', data, 0.0, 10 * draw + 1)
        tied = load('train', data, 0.9, 10 * draw + 2)
        test = load(split, data, 0.0, 10 * draw + 3)
        x_free, x_test = encode(model, free), encode(model, test)
        hits = dict(knn=knn_predict(x_free, free.y, x_test, k=20).argmax(1) == test.y)
        hits['probe'] = LinearProbe().fit(x_free, free.y).predict(x_test) == test.y
        if data == 'tinted':
            probe = LinearProbe().fit(encode(model, tied), tied.y)
            hits['shifted'] = probe.predict(x_test) == test.y
            probe = LinearProbe().fit(x_free, free.factor)
            hits['color'] = probe.predict(x_test) == test.factor
        for name, hit in hits.items():
            correct.setdefault(name, []).append(100 * float(hit.float().mean()))
    return {name: round(float(np.mean(values)), 3) for name, values in correct.items()}
