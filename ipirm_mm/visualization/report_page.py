"""Results as one self-contained HTML page."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from ipirm_mm.utils import atomic_write

from .tables import Table, format_cell, text_columns

Curves = Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]

_TEMPLATE = Path(__file__).with_name('report_page.html')


def write_report(
    path: str | os.PathLike,
    title: str,
    tables: Sequence[Table],
    curves: Curves,
    partitions: Sequence[Mapping[str, Any]],
    settings: Mapping[str, str],
) -> None:
    """Write one self-contained HTML page.

    Args:
        path: File to write, whole or not at all.
        title: Heading.
        tables: The results.
        curves: Plots: from the title of each to its lines, each a name and its points
            ``(epoch, value)``.
        partitions: Records as ``PartitionUpdateHook`` writes them, with ``method`` (name of the
            run) and ``picture`` (path of a PNG file) added.
        settings: What was run: from names to values.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding='utf-8'))
    page = template.render(
        title=title,
        tables=[(table, text_columns(table.rows, table.columns)) for table in tables],
        cell=format_cell,
        plot=dict(source=_data_url(_plot(curves)), caption='; '.join(curves)),
        partitions=[
            dict(source=_data_url(Path(record['picture']).read_bytes()), caption=_describe(record))
            for record in partitions
        ],
        settings=settings,
    )
    atomic_write(path, page)


def _data_url(png: bytes) -> str:
    return f'data:image/png;base64,{base64.b64encode(png).decode()}'


def _plot(curves: Curves) -> bytes:
    """Draw the curves side by side, with one legend; returns a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = list(dict.fromkeys(name for lines in curves.values() for name in lines))
    drawn: dict[str, Any] = {}
    figure = Figure(figsize=(10, 3.9), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    for axes, (title, lines) in zip(
        figure.subplots(1, len(curves), squeeze=False)[0], curves.items()
    ):
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
    figure.legend(
        [drawn[name] for name in shown],
        shown,
        loc='outside lower center',
        ncols=6,
        fontsize=8,
        frameon=False,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png')
    return buffer.getvalue()


def _describe(record: Mapping[str, Any]) -> str:
    """Caption of a partition."""
    sizes = list(record['sizes'])
    shown = ', '.join(map(str, sizes)) if len(sizes) <= 4 else f'{min(sizes)} to {max(sizes)}'
    parts = [
        f'{record["method"]}, partition {record["number"]} before epoch {record["epoch"] + 1}',
        f'{len(sizes)} subsets of {shown} images',
        f'objective {record["objective"]:.3f}',
    ]
    for key, name in (('bits_about_factor', 'color'), ('bits_about_class', 'the class')):
        if key in record:
            parts.append(f'{record[key]:.2f} bits about {name}')
    earlier = record.get('nmi_with_earlier') or []
    if earlier:
        parts.append(
            'NMI with earlier partitions ' + ', '.join(f'{value:.2f}' for value in earlier)
        )
    return '; '.join(parts) + '.'
