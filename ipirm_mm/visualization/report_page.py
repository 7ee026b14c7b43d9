"""Results as one self-contained HTML page."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ipirm_mm.utils import atomic_write

from .curves import Curves, draw_curves
from .pages import data_url, render
from .tables import Table, format_cell, text_columns


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
    page = render(
        'report_page.html',
        title=title,
        tables=[(table, text_columns(table.rows, table.columns)) for table in tables],
        cell=format_cell,
        plot=dict(source=data_url(draw_curves(curves)), caption='; '.join(curves)),
        partitions=[
            dict(source=data_url(Path(record['picture']).read_bytes()), caption=_describe(record))
            for record in partitions
        ],
        settings=settings,
    )
    atomic_write(path, page)


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
