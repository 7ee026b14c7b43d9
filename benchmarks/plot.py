"""The plot of all benchmarks: ratios with their spread, and the fraction of the limit reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hardware import Limits
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator
from timing import Comparison, Machine, figures, significant

from ipirm_mm.utils import atomic_open

INK, FAINT, RATIO = '#222222', '#b8b8b8', '#1b5e9e'
LIMITS = {'products': '#c2571a', 'memory': '#2a8c6a'}
ROW_INCHES = 0.24
# What a panel has beside its rows: heading, axis, and the gap to the next.
PANEL_INCHES = 0.95


def draw(path: Path, comparisons: Sequence[Comparison], limits: Mapping[Machine, Limits]) -> None:
    """Draw results: a pair of panels for each table.

    Args:
        path: PNG file to write.
        comparisons: The results.
        limits: What the hardware can do.
    """
    heights = [PANEL_INCHES + ROW_INCHES * len(comparison.rows) for comparison in comparisons]
    figure = Figure(figsize=(11, sum(heights) + 0.4), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(h_pad=0.12)
    grid = figure.subplots(
        len(comparisons), 2, squeeze=False, height_ratios=heights, width_ratios=(3, 2)
    )
    for comparison, (left, right) in zip(comparisons, grid):
        rows = figures(comparison, limits)
        _draw_ratios(left, comparison, rows)
        _draw_reached(right, rows)
        for axes in (left, right):
            axes.set_ylim(len(rows) - 0.4, -0.6)  # the first row is at the top
            axes.tick_params(length=0, labelsize=8, labelcolor=INK)
            axes.spines[['top', 'right', 'left']].set_visible(False)
            axes.spines['bottom'].set_color(FAINT)
            axes.grid(axis='y', color='#eeeeee')
            axes.set_axisbelow(True)
    marks = [
        Line2D([], [], color=RATIO, marker='o', label='ratio, lowest to highest run'),
        Line2D([], [], color=INK, linewidth=0.8, linestyle='--', label='equal, or at the limit'),
        *(
            Line2D([], [], color=color, marker='o', linestyle='none', label=f'limit: {name}')
            for name, color in LIMITS.items()
        ),
    ]
    figure.legend(handles=marks, loc='outside upper center', ncols=4, frameon=False, fontsize=8)
    with atomic_open(path) as stream:
        figure.savefig(stream, format='png')


def _draw_ratios(axes: Axes, comparison: Comparison, rows: Sequence[dict[str, Any]]) -> None:
    """Points with their spread, with the ratio beside them."""
    for number, row in enumerate(rows):
        axes.plot([row['lowest'], row['highest']], [number] * 2, color=RATIO, linewidth=1.8)
        axes.plot(row['ratio'], number, 'o', color=RATIO, markersize=4.5)
        _write(axes, row['highest'], number, significant(row['ratio']))
    axes.axvline(1, color=INK, linewidth=0.8, linestyle='--')
    # Twice as fast is as far from the line as half as fast; room for the figures on the right.
    axes.set_xscale('log')
    lowest, highest = min(row['lowest'] for row in rows), max(row['highest'] for row in rows)
    axes.set_xlim(min(0.5, lowest / 1.2), max(2, highest * 1.5))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter('{x:g}')
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(range(len(rows)), [row['name'] for row in rows])
    better = 'lower' if comparison.is_cost else 'higher'
    axes.set_title(
        f'{comparison.title}: {comparison.ratio}, {better} is better',
        loc='left',
        fontsize=9,
        color=INK,
    )


def _draw_reached(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Points for the fraction of the limit, in the color of the limit that counts."""
    known = [row.get('reached', 0) for row in rows]
    for number, row in enumerate(rows):
        if 'reached' not in row:
            _write(axes, 0, number, 'not counted', FAINT)
            continue
        color = LIMITS[max(LIMITS, key=lambda name: row[name])]
        percent = 100 * row['reached']
        axes.plot([0, percent], [number] * 2, color=color, linewidth=1, alpha=0.4)
        axes.plot(percent, number, 'o', color=color, markersize=4.5)
        _write(axes, percent, number, f'{percent:.0f} %')
    axes.axvline(100, color=INK, linewidth=0.8, linestyle='--')
    axes.set_xlim(0, 120 * max(1, *known))
    axes.set_yticks(range(len(rows)), [''] * len(rows))
    axes.set_title('percent of the hardware limit reached', loc='left', fontsize=9, color=INK)


def _write(axes: Axes, x: float, row: int, text: str | None, color: str = INK) -> None:
    axes.annotate(
        text or '',
        (x, row),
        (6, 0),
        textcoords='offset points',
        va='center',
        fontsize=7.5,
        color=color,
        bbox=dict(color='white', pad=0.5),
    )
