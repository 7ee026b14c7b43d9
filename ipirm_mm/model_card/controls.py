"""Which configs are the controls of another, by the index of configs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from mmengine.config import Config

from ipirm_mm.resources import resource_root

from .training import Training, start_of


def control_lines(training: Training) -> list[str]:
    """Controls of the config in the repository's index, and whether it is one itself."""
    entries = list(_entries())
    own = next((one for one in entries if one[0] == training.name), None)
    if own is not None and own[1].startswith('Control'):
        return [f'This config is itself a control: {own[1]}.']
    found = controls_of(training.name, entries)
    path, start = start_of(training)
    first = start.name if start else Path(path).parent.name
    found += [one for one in controls_of(first, entries) if one not in found]
    if not found:
        return ['No control was run: the index of configs names none for this one.']
    return [
        *(f'- `{path}`: {what}' for path, what in found),
        '',
        'These configs are the controls. Whether they were run, and what they gave, is not known '
        'to this card.',
    ]


def controls_of(name: str, entries: Sequence[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """Configs that are controls of another, by what the index says they stand for.

    A control names the config or the row of the report that it is for. A classifier without
    teacher that names neither is a control of the students with a teacher in its folder.

    Args:
        name: Name of the config.
        entries: Name, what it stands for, and path of each config.

    Returns:
        Path and what it stands for of each control.
    """
    own = next((one for one in entries if one[0] == name), None)
    if own is None:
        return []
    found = []
    for _, what, path in entries:
        if not what.startswith('Control'):
            continue
        row = re.search(r'row "[^"]*"', what)
        if (
            f' {name}.py' in what
            or (row is not None and row.group() in own[1])
            or (
                re.match(r'Control: [^"]*$', what) is not None
                and os.path.dirname(path) == os.path.dirname(own[2])
                and 'without teacher' in what
                and _has_teacher(own[2])
            )
        ):
            found.append((path, what))
    return found


def _entries() -> Iterator[tuple[str, str, str]]:
    """Name, what it stands for, and path of each config in the index."""
    for path in sorted((resource_root() / 'configs').rglob('metafile.yml')):
        for model in (yaml.safe_load(path.read_text(encoding='utf-8')) or {}).get('Models') or []:
            config = model.get('Config', '')
            yield Path(config).stem, (model.get('Metadata') or {}).get('Stands For', ''), config


def _has_teacher(path: str) -> bool:
    model = Config.fromfile(str(resource_root() / path)).get('model') or {}
    return bool(model.get('distill_losses'))
