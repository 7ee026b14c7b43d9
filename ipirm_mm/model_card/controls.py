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
    entries = list(index_entries())
    own = next((one for one in entries if one[0] == training.name), None)
    if own is not None and own[1].startswith('Control'):
        return [f'This config is itself a control: {own[1]}.']
    found = controls_of(training.name, entries)
    path, start = start_of(training)
    first = start.name if start else Path(path).parent.name
    found += [one for one in controls_of(first, entries) if one not in found]
    if not found:
        return [
            'No control was run, as far as the index of configs tells: it names none for this one.'
        ]
    return [
        *(f'- `{path}`: {what}' for path, what in found),
        '',
        'These configs are the controls. Whether they were run, and what they gave, is not known '
        'to this card.',
    ]


def controls_of(name: str, entries: Sequence[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """Configs that are controls of another, by what the index says they stand for.

    A control names the config, its row of the report, or what it stands for. One that names
    nothing is for its folder: a classifier without teacher for the students with a teacher, an
    encoder for the encoders of the same method that have no control of their own.

    Args:
        name: Name of the config.
        entries: Name, what it stands for, and path of each config.

    Returns:
        Path and what it stands for of each control.
    """
    own = next((one for one in entries if one[0] == name), None)
    if own is None or own[1].startswith('Control'):
        return []
    controls = [(path, what) for _, what, path in entries if what.startswith('Control')]
    named = [one for one in controls if _names(one[1], name, own[1])]
    if named:
        return named
    folder = os.path.dirname(own[2])
    near = [one for one in controls if re.match('Control: ', one[1])]
    near = [one for one in near if os.path.dirname(one[0]) == folder]
    model = _model(own[2]) if near else {}
    if model.get('distill_losses'):
        return [one for one in near if 'without teacher' in one[1]]
    if model.get('type') in ('ImageClassifier', None):
        return []
    return [one for one in near if _model(one[0]).get('type') == model['type']]


def _names(what: str, name: str, stands_for: str) -> bool:
    """Whether a control names a config, its row of the report, or what it stands for."""
    row = re.search(r'row "[^"]*"', what)
    recipe = re.match(r'Control of ([^:]+):', what)
    return (
        f' {name}.py' in what
        or (row is not None and row.group() in stands_for)
        or (recipe is not None and recipe.group(1).lower() in stands_for.lower())
    )


def index_entries() -> Iterator[tuple[str, str, str]]:
    """Read the index of configs: name, what it stands for, and path of each."""
    for path in sorted((resource_root() / 'configs').rglob('metafile.yml')):
        for model in (yaml.safe_load(path.read_text(encoding='utf-8')) or {}).get('Models') or []:
            config = model.get('Config', '')
            yield Path(config).stem, (model.get('Metadata') or {}).get('Stands For', ''), config


def _model(path: str) -> dict:
    """Settings of the model of a config in the index."""
    return Config.fromfile(str(resource_root() / path)).get('model') or {}
