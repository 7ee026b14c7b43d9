"""Pictures of partitions: sample images of each subset."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_BACKGROUND, _INK, _FAINT = (255, 255, 255), (30, 30, 30), (110, 110, 110)
_GAP, _MARGIN = 3, 14


def partition_grid(
    images: Any,
    assignment: Tensor,
    per_subset: int = 24,
    max_subsets: int = 20,
    tile: int = 44,
    seed: int = 0,
    title: str = '',
) -> np.ndarray:
    """Draw sample images of each subset, the largest subset first.

    Args:
        images: Sequence of N RGB images, each ``(H, W, 3)`` uint8; only the sample is read.
        assignment: Subset of each image, ``(N,)`` integers.
        per_subset: Maximum number of images per subset. Defaults to 24.
        max_subsets: Maximum number of subsets. Defaults to 20.
        tile: Side of each image in the picture, in pixels. Defaults to 44.
        seed: Seed of the choice of images. Defaults to 0.
        title: Heading. Defaults to none.

    Returns:
        Picture, ``(H, W, 3)`` uint8 RGB.
    """
    assignment = torch.as_tensor(assignment).long().cpu()
    sizes = torch.bincount(assignment)
    subsets = [k for k in sizes.argsort(descending=True, stable=True).tolist() if sizes[k]]
    shown = subsets[:max_subsets]
    # Two rows of images per subset; with more than four subsets, two subsets side by side.
    per_row, rows = math.ceil(per_subset / 2), 2
    columns = 2 if len(shown) > 4 else 1
    font, small = ImageFont.load_default(15), ImageFont.load_default(12)
    panel_width = per_row * (tile + _GAP)
    panel_height = 22 + rows * (tile + _GAP) + 8
    top = 34 if title else _MARGIN
    bottom = 22 if len(subsets) > len(shown) else 0
    picture = Image.new(
        'RGB',
        (
            columns * panel_width + (columns + 1) * _MARGIN,
            top + math.ceil(len(shown) / columns) * panel_height + bottom + 6,
        ),
        _BACKGROUND,
    )
    draw = ImageDraw.Draw(picture)
    if title:
        draw.text((_MARGIN, 8), title, _INK, font)
    generator = torch.Generator().manual_seed(seed)
    for number, subset in enumerate(shown):
        left = _MARGIN + (number % columns) * (panel_width + _MARGIN)
        upper = top + (number // columns) * panel_height
        share = 100 * int(sizes[subset]) / len(assignment)
        draw.text(
            (left, upper),
            f'subset {subset}: {int(sizes[subset]):,} images, {share:.0f} %',
            _FAINT,
            small,
        )
        members = (assignment == subset).nonzero().flatten()
        chosen = members[torch.randperm(len(members), generator=generator)[:per_subset]]
        for position, index in enumerate(chosen.tolist()):
            image = Image.fromarray(np.ascontiguousarray(images[index])).resize((tile, tile))
            x = left + (position % per_row) * (tile + _GAP)
            y = upper + 20 + (position // per_row) * (tile + _GAP)
            picture.paste(image, (x, y))
    if bottom:
        draw.text(
            (_MARGIN, picture.height - 24),
            f'and {len(subsets) - len(shown)} smaller subsets',
            _FAINT,
            small,
        )
    return np.asarray(picture)
