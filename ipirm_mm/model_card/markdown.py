"""Settings and tables as Markdown."""

from __future__ import annotations

from typing import Any

from ipirm_mm.utils import type_name

# What a card says of what its files do not say.
UNKNOWN = 'not known'


def table(rows: list[tuple[str, str]], value: str = 'value') -> str:
    """Write rows of two columns as a table.

    Args:
        rows: Name and text of each row.
        value: Heading of the second column. Defaults to ``'value'``.
    """
    lines = [f'| | {value} |', '| --- | --- |']
    return '\n'.join([*lines, *(f'| {key} | {text} |' for key, text in rows)])


def spell(value: Any) -> str:
    """A setting in one line, which a cell of a table can hold."""
    if isinstance(value, dict):
        rest = {key: item for key, item in value.items() if key != 'type'}
        inner = ', '.join(f'{key}={spell(item)}' for key, item in rest.items())
        name = type_name(value['type']) if 'type' in value else ''
        return f'{name} ({inner})' if name and inner else name or inner
    if isinstance(value, (list, tuple)):
        return '; '.join(map(spell, value)) if value else 'none'
    return str(value).replace('|', r'\|').replace('\n', ' ')
