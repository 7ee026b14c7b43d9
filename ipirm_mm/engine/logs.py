"""What a training has logged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def logged_records(work_dir: Path) -> list[dict[str, Any]]:
    """The records of ``scalars.json`` that a training has written so far, resumed ones included.

    Args:
        work_dir: Work folder of the training.

    Returns:
        The records, oldest first.
    """
    records: list[dict[str, Any]] = []
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:  # a line that is being written
                break
    return records
