"""Tables of results, as plain text and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Columns = Sequence[tuple[str, str]]


class Table(NamedTuple):
    """A table of results.

    Attributes:
        title: Heading.
        rows: Results, one mapping per row.
        columns: Key and heading of each column.
        notes: How to read the table.
    """

    title: str
    rows: Sequence[Mapping[str, Any]]
    columns: Columns
    notes: Sequence[str] = ()


def format_cell(value: Any) -> str:
    """Write a value: floats with one decimal, None as ``-``."""
    if value is None:
        return '-'
    return f'{value:.1f}' if isinstance(value, float) else str(value)


def text_columns(rows: Sequence[Mapping[str, Any]], columns: Columns) -> list[bool]:
    """Tell the columns of text, which are aligned to the left, from those of numbers.

    Args:
        rows: One mapping per row.
        columns: Key and heading of each column.

    Returns:
        For each column whether it is text: the first always, others if every value begins with a
        letter.
    """
    text = [True]
    for key, _ in columns[1:]:
        values = [row[key] for row in rows if row.get(key) is not None]
        text.append(bool(values) and all(format_cell(value)[:1].isalpha() for value in values))
    return text


def format_table(rows: Sequence[Mapping[str, Any]], columns: Columns) -> str:
    """Align a table as plain text.

    Args:
        rows: One mapping per row; a missing value is shown as ``-``.
        columns: Key and heading of each column. Columns of text are aligned to the left, see
            :func:`text_columns`.

    Returns:
        Headings, a rule and the rows.
    """
    cells = [[heading for _, heading in columns]]
    cells += [[format_cell(row.get(key)) for key, _ in columns] for row in rows]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
    text = text_columns(rows, columns)
    lines = [
        '  '.join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(line, widths, text)
        )
        for line in cells
    ]
    rule = '-' * len(lines[0])
    return '\n'.join(line.rstrip() for line in [lines[0], rule, *lines[1:]])


def format_markdown(rows: Sequence[Mapping[str, Any]], columns: Columns) -> str:
    """Write a table as Markdown.

    Args:
        rows: One mapping per row; a missing value is shown as ``-``.
        columns: Key and heading of each column.

    Returns:
        The lines of the table, each with a line end.
    """
    lines = [
        [heading for _, heading in columns],
        ['---'] * len(columns),
        *([format_cell(row.get(key)) for key, _ in columns] for row in rows),
    ]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)
