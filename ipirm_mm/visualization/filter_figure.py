"""What excites a few filters, in a few images: Figure 2 (b) of the report."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

_INK, _GRAY = '#1f2328', '#59636e'
_GAP = 0.08  # between tiles, as a share of a tile
_STEPS = 16  # of a gradient, from gray to white


class FilterRow(NamedTuple):
    """A filter, and the images that excite it.

    Attributes:
        label: Short text, such as the filter's number.
        images: RGB images, ``(H, W, 3)`` uint8 each.
        gradients: Guided gradient of each, ``(C, H', W')``, in the order of RGB.
    """

    label: str
    images: Sequence[np.ndarray]
    gradients: Sequence[np.ndarray]


class FilterPanel(NamedTuple):
    """Filters of a layer of an encoder.

    Attributes:
        encoder: Name of the encoder.
        layer: Name of the layer.
        rows: The filters.
    """

    encoder: str
    layer: str
    rows: Sequence[FilterRow]


def gradient_picture(gradient: np.ndarray) -> np.ndarray:
    """Make a gradient visible: gray is 0, the largest entry darkest or brightest in its channel.

    Args:
        gradient: ``(C, H, W)``. With another number of channels than three, their sum is shown.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    if len(gradient) != 3:
        gradient = np.repeat(gradient.sum(0, keepdims=True), 3, 0)
    largest = np.abs(gradient).max()
    scaled = gradient / largest if largest > 0 else np.zeros_like(gradient)
    # In steps, so that the noise of entries near zero is not drawn.
    scaled = np.round(_STEPS * scaled) / _STEPS
    return np.floor(127.5 + 127.5 * scaled + 0.5).astype(np.uint8).transpose(1, 2, 0)


def draw_filters(panels: Sequence[FilterPanel]) -> bytes:
    """Draw a panel for each layer, the encoders side by side; in it a row for each filter.

    Args:
        panels: The panels, in any order; encoders and layers are shown in that of their first.

    Returns:
        A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = list(dict.fromkeys(panel.encoder for panel in panels))
    placed: dict[str, list[FilterPanel]] = {name: [] for name in columns}
    for panel in panels:
        placed[panel.encoder].append(panel)
    rows = max(map(len, placed.values()))
    filters = max(len(panel.rows) for panel in panels)
    tiles = 2 * max(len(row.images) for panel in panels for row in panel.rows)
    tile = 0.42  # inches
    figure = Figure(
        figsize=(
            len(columns) * (tiles * (1 + _GAP) * tile + 1.35),
            rows * (filters * (1 + _GAP) * tile + 0.4) + 0.3,
        ),
        dpi=110,
        layout='constrained',
    )
    FigureCanvasAgg(figure)
    figure.suptitle(
        'Each pair: an image that excites the filter, and the guided gradient of its largest '
        'activation.\nBelow the number of a filter: filters in its cluster, of all that were '
        'clustered.',
        fontsize=8.5,
        color=_GRAY,
    )
    grid = figure.subplots(rows, len(columns), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for column, name in enumerate(columns):
        for number, panel in enumerate(placed[name]):
            _draw_panel(grid[number][column], panel, tiles, filters)
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', pil_kwargs=dict(optimize=True))
    return buffer.getvalue()


def _draw_panel(axes: Any, panel: FilterPanel, tiles: int, filters: int) -> None:
    """Draw image and gradient in turn, a row for each filter."""
    step = 1 + _GAP
    axes.set_xlim(0, tiles * step)
    axes.set_ylim(filters * step, 0)
    axes.set_aspect('equal')
    title = f'{panel.encoder}, {panel.layer}'
    axes.set_title(title, fontsize=10, fontweight='bold', color=_INK, loc='left')
    for number, row in enumerate(panel.rows):
        top = number * step
        axes.text(-0.15, top + 0.5, row.label, ha='right', va='center', fontsize=8, color=_GRAY)
        for place, (image, gradient) in enumerate(zip(row.images, row.gradients)):
            # The pair stands together; the gap is before the next pair.
            left = 2 * place * step
            pair = (np.asarray(image), gradient_picture(gradient))
            for offset, picture in zip((0, 1 + _GAP / 4), pair):
                axes.imshow(
                    picture,
                    extent=(left + offset, left + offset + 1, top + 1, top),
                    interpolation='nearest',
                )
    axes.set_xlim(0, tiles * step)
    axes.set_ylim(filters * step, 0)
