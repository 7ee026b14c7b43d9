"""Pictures of features: nearest neighbors, and a map in two dimensions."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

_GAP, _WIDE_GAP = 4, 14
# More kinds of points than this, and their names would not be told apart by color.
MOST_NAMES = 12


def nearest_neighbors(features: Tensor, queries: Sequence[int], count: int) -> Tensor:
    """The most similar other images of some images, by cosine similarity.

    Args:
        features: One row per image, ``(N, D)``.
        queries: Numbers of the images.
        count: How many neighbors of each; at most ``N - 1`` are returned.

    Returns:
        Their numbers, nearest first, ``(len(queries), count)`` long.
    """
    unit = F.normalize(features.float(), dim=1)
    numbers = torch.as_tensor(queries, device=unit.device)
    similarity = unit[numbers] @ unit.T
    similarity[torch.arange(len(numbers), device=unit.device), numbers] = -torch.inf
    return similarity.topk(min(count, len(unit) - 1), dim=1).indices


def draw_neighbors(
    images: Any, queries: Sequence[int], neighbors: Tensor, tile: int = 72
) -> np.ndarray:
    """Draw images, each with its nearest neighbors to the right of it.

    Args:
        images: Sequence of RGB images, each ``(H, W, 3)`` uint8; only those shown are read.
        queries: Numbers of the images.
        neighbors: Numbers of the neighbors of each, ``(len(queries), count)``.
        tile: Side of each image in the picture, in pixels. Defaults to 72.

    Returns:
        Picture, ``(H, W, 3)`` uint8 RGB.
    """
    step = tile + _GAP
    width = _WIDE_GAP - _GAP + step * (1 + neighbors.shape[1]) + _GAP
    picture = Image.new('RGB', (width, step * len(queries) + _GAP), (255, 255, 255))
    for row, (query, near) in enumerate(zip(queries, neighbors.tolist())):
        for place, number in enumerate([query, *near]):
            image = Image.fromarray(images[number])
            image.thumbnail((tile, tile))
            if max(image.size) < tile:  # small images are enlarged without smoothing
                scale = tile / max(image.size)
                size = [max(round(side * scale), 1) for side in image.size]
                image = image.resize(size, Image.Resampling.NEAREST)
            left = _GAP + place * step + (_WIDE_GAP - _GAP if place else 0)
            at = ((tile - image.width) // 2 + left, (tile - image.height) // 2 + _GAP + row * step)
            picture.paste(image, at)
    return np.asarray(picture)


def principal_components(features: Tensor) -> Tensor:
    """Coordinates of features on their two first principal components.

    Args:
        features: One row per image, ``(N, D)``, N and D at least 2. They are scaled to length 1
            first, as k-NN compares them.

    Returns:
        Coordinates, ``(N, 2)``. Each component has the sign that makes its largest weight
        positive, so that maps of successive epochs can be compared.
    """
    unit = F.normalize(features.double(), dim=1)
    centered = unit - unit.mean(dim=0)
    _, _, axes = torch.linalg.svd(centered, full_matrices=False)
    axes = axes[:2]
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    return centered @ (axes * largest.sign()).T


def tsne(features: Tensor, seed: int = 0) -> Tensor | None:
    """Coordinates of features by t-SNE of scikit-learn.

    Args:
        features: One row per image, ``(N, D)``.
        seed: Seed of the optimization. Defaults to 0.

    Returns:
        Coordinates, ``(N, 2)``; None if scikit-learn is not installed or there are fewer than 10
        images.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        return None
    if len(features) < 10:
        return None
    unit = F.normalize(features.float(), dim=1).cpu().numpy()
    perplexity = min(30.0, (len(unit) - 1) / 3)
    found = TSNE(perplexity=perplexity, init='pca', random_state=seed).fit_transform(unit)
    return torch.from_numpy(found)


def draw_map(
    maps: Mapping[str, Tensor], kinds: Tensor | None = None, names: Sequence[str] | None = None
) -> bytes:
    """Draw maps of features side by side.

    Args:
        maps: From the title of each to its coordinates, ``(N, 2)``.
        kinds: Class or subset of each image, ``(N,)`` integers, shown by colors. Defaults to None:
            one color.
        names: Names of the kinds; up to :data:`MOST_NAMES` are written beside the maps. Defaults
            to None: their numbers.

    Returns:
        A PNG file.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.2 if len(maps) > 1 else 6.5), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    found = [] if kinds is None else sorted(set(kinds.tolist()))
    colors = colormaps['tab20' if len(found) > 10 else 'tab10']
    for axes, (title, points) in zip(
        figure.subplots(1, len(maps), squeeze=False)[0], maps.items()
    ):
        if kinds is None:
            axes.scatter(*points.T.numpy(), s=9, alpha=0.7)
        for place, kind in enumerate(found):
            name = str(kind) if names is None else names[kind]
            at = points[kinds == kind].T.numpy()
            axes.scatter(*at, s=9, alpha=0.7, color=colors(place % colors.N), label=name)
        axes.set_title(title, fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_aspect('equal', 'datalim')
    if 0 < len(found) <= MOST_NAMES:
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc='outside lower center', ncols=6, fontsize=8, frameon=False
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png')
    return buffer.getvalue()
