"""Results as a table for the terminal and as a page of their own."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Columns = Sequence[tuple[str, str]]
Curves = Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid #8886; text-align: right; }
.words { text-align: left; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figure { margin: 1.5rem 0; } figcaption { font-size: .9rem; }
.wide { overflow-x: auto; } dt { font-weight: 600; } dd { margin: 0 0 .4rem 1rem; }
code { overflow-wrap: anywhere; }
"""


class Table(NamedTuple):
    """A table of results.

    Attributes:
        title: Heading.
        rows: Results, one mapping a row.
        columns: Key and heading of each column.
        notes: How to read it.
    """

    title: str
    rows: Sequence[Mapping[str, Any]]
    columns: Columns
    notes: Sequence[str] = ()


def _cell(value: Any) -> str:
    if value is None:
        return '-'
    return f'{value:.1f}' if isinstance(value, float) else str(value)


def _words(rows: Sequence[Mapping[str, Any]], columns: Columns) -> list[bool]:
    """Which columns are words, to be aligned to the left: the first, and those of no figures."""
    words = [True]
    for key, _ in columns[1:]:
        values = [row[key] for row in rows if row.get(key) is not None]
        words.append(bool(values) and all(_cell(value)[:1].isalpha() for value in values))
    return words


def format_table(rows: Sequence[Mapping[str, Any]], columns: Columns) -> str:
    """Align rows as plain text.

    Args:
        rows: One mapping a row.
        columns: Key and heading of each column; the first, and others of words, are aligned to
            the left.

    Returns:
        The table, with a heading and a rule.
    """
    cells = [[heading for _, heading in columns]]
    cells += [[_cell(row.get(key)) for key, _ in columns] for row in rows]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
    words = _words(rows, columns)
    lines = [
        '  '.join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(line, widths, words)
        )
        for line in cells
    ]
    rule = '-' * len(lines[0])
    return '\n'.join(line.rstrip() for line in [lines[0], rule, *lines[1:]])


def _html_table(table: Table) -> str:
    styles = [' class="words"' if left else '' for left in _words(table.rows, table.columns)]
    heads = ''.join(
        f'<th scope="col"{style}>{html.escape(heading)}</th>'
        for style, (_, heading) in zip(styles, table.columns)
    )
    body = ''.join(
        '<tr>'
        + ''.join(
            f'<td{style}>{html.escape(_cell(row.get(key)))}</td>'
            for style, (key, _) in zip(styles, table.columns)
        )
        + '</tr>'
        for row in table.rows
    )
    notes = ''.join(f'<li>{html.escape(note)}</li>' for note in table.notes)
    return (
        f'<h2>{html.escape(table.title)}</h2><div class="wide"><table><thead><tr>{heads}</tr>'
        f'</thead><tbody>{body}</tbody></table></div><ul>{notes}</ul>'
    )


def _picture(data: bytes, caption: str) -> str:
    source = base64.b64encode(data).decode()
    text = html.escape(caption)
    return (
        f'<figure><img src="data:image/png;base64,{source}" alt="{text}">'
        f'<figcaption>{text}</figcaption></figure>'
    )


def _plot(curves: Curves) -> bytes:
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
                # One colour a name in all plots, since they share a legend.
                colour = f'C{names.index(name) % 10}'
                (line,) = axes.plot(x, y, marker='o', markersize=3, linewidth=1.3, color=colour)
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
    sizes = list(record['sizes'])
    shown = ', '.join(map(str, sizes)) if len(sizes) <= 4 else f'{min(sizes)} to {max(sizes)}'
    parts = [
        f'{record["method"]}, partition {record["number"]} before epoch {record["epoch"] + 1}',
        f'{len(sizes)} subsets of {shown} images',
        f'objective {record["objective"]:.3f}',
    ]
    for key, name in (('bits_about_factor', 'colour'), ('bits_about_class', 'the class')):
        if key in record:
            parts.append(f'{record[key]:.2f} bits about {name}')
    earlier = record.get('nmi_with_earlier') or []
    if earlier:
        parts.append('NMI with earlier ones ' + ', '.join(f'{value:.2f}' for value in earlier))
    return '; '.join(parts) + '.'


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
        path: File to write; replaced as a whole.
        title: Heading.
        tables: The results.
        curves: Plots: title to lines, each a name and its points ``(epoch, value)``.
        partitions: Records as ``PartitionUpdateHook`` writes them, with ``method`` and ``picture``
            (path of a PNG file) added.
        settings: What was run.
    """
    pictures = ''.join(
        _picture(Path(record['picture']).read_bytes(), _describe(record)) for record in partitions
    )
    listed = ''.join(
        f'<dt>{html.escape(name)}</dt><dd><code>{html.escape(value)}</code></dd>'
        for name, value in settings.items()
    )
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>
{''.join(map(_html_table, tables))}
<h2>Training</h2>
{_picture(_plot(curves), '; '.join(curves))}
<h2>Partitions</h2>
{pictures or '<p>None was found.</p>'}
<h2>Settings</h2><dl>{listed}</dl>
</body></html>
"""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + '.part')
    temporary.write_text(page, encoding='utf-8')
    os.replace(temporary, path)
