"""Curves of a training as one picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

# From the title of each plot to its lines, each a name and its points ``(epoch, value)``.
Curves = Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]


def draw_curves(curves: Curves, width: float = 10) -> bytes:
    """Draw plots side by side, with one legend.

    Args:
        curves: The plots.
        width: Width of the picture, in inches. Defaults to 10.

    Returns:
        A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = list(dict.fromkeys(name for lines in curves.values() for name in lines))
    drawn: dict[str, Any] = {}
    figure = Figure(figsize=(width, 3.9), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (title, lines) in zip(grid, curves.items()):
        for name, points in lines.items():
            if points:
                x, y = zip(*points)
                # The plots share a legend, so each name has the same color in all of them.
                color = f'C{names.index(name) % 10}'
                (line,) = axes.plot(x, y, marker='o', markersize=3, linewidth=1.3, color=color)
                drawn.setdefault(name, line)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel('epoch')
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[['top', 'right']].set_visible(False)
    shown = [name for name in names if name in drawn]
    if shown:
        figure.legend(
            [drawn[name] for name in shown],
            shown,
            loc='outside lower center',
            ncols=max(round(0.6 * width), 1),
            fontsize=8,
            frameon=False,
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png')
    return buffer.getvalue()
