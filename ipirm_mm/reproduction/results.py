"""The table of a target, from the files that its commands have made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import load_predictions


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        name: What the row is.
        report: Accuracy in the report, in percent; None if the report does not have the row.
        files: Files of this project's accuracies, by column: JSON of ``tools/test.py``, or
            predictions.
        report_tta: Accuracy in the report with test-time augmentation. Defaults to None.
    """

    name: str
    report: float | None
    files: dict[str, Path]
    report_tta: float | None = None


def accuracy(path: Path) -> float | None:
    """Read an accuracy.

    Args:
        path: JSON of ``tools/test.py``, or predictions of images with labels.

    Returns:
        Percent; None if the file is not there.

    Raises:
        UserError: If the file holds no accuracy.
    """
    if not path.exists():
        return None
    if path.suffix != '.json':
        return 100 * float(load_predictions(str(path)).correct().to(torch.float64).mean())
    found = json.loads(path.read_text()).get('accuracy/top1')
    if found is None:
        raise UserError(f'{path} holds no accuracy/top1: remove it, and run the command again')
    return float(found)


def table_of(rows: Sequence[Row], here: str) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Make the table of a target, as far as its files are there.

    Args:
        rows: The rows.
        here: Heading of the accuracies of this project.

    Returns:
        Rows and columns for :func:`~ipirm_mm.visualization.tables.format_table`.
    """
    columns = [('name', 'row'), ('report', 'report'), ('here', here)]
    if any(row.report_tta is not None for row in rows):
        columns += [('report_tta', 'report, TTA')]
    if any('here_tta' in row.files for row in rows):
        columns += [('here_tta', f'{here}, ten crops')]
    cells = []
    for row in rows:
        cell: dict[str, Any] = dict(name=row.name, report=decimals(row.report))
        cell['report_tta'] = decimals(row.report_tta)
        for column, path in row.files.items():
            cell[column] = decimals(accuracy(path))
        cells.append(cell)
    return cells, columns


def decimals(value: float | None) -> str | None:
    """Write an accuracy with two decimals, as the report does."""
    return None if value is None else f'{value:.2f}'
