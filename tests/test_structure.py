"""How the package is built: small files, and imports that run one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'ipirm_mm'
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob('*.py'))
# From the bottom to the top: a part imports from its own layer and those below it.
LAYERS = (
    ('version', 'errors', 'options', 'resources', 'compat', 'utils'),
    ('functional',),
    ('partition', 'datasets'),
    ('models',),
    ('evaluation', 'visualization'),
    ('engine',),
    (
        'apis',
        'cli',
        'cli_encoders',
        'doctor',
        'explain',
        'leaving',
        'model_card',
        'reproduction',
        '__main__',
        '__init__',
    ),
)
LAYER_OF = {part: layer for layer, parts in enumerate(LAYERS) for part in parts}
OPENMMLAB = {'mmengine', 'mmcv', 'mmpretrain'}
MAX_LINES = 400


def part_of(module: str) -> str:
    """``'functional'`` of ``'ipirm_mm.functional.kd'``; ``'__init__'`` of ``'ipirm_mm'``."""
    return (*module.split('.'), '__init__')[1]


def name_of(file: str) -> str:
    """``'ipirm_mm.functional'`` of ``'functional/__init__.py'``."""
    parts = ['ipirm_mm', *Path(file).with_suffix('').parts]
    return '.'.join(parts).removesuffix('.__init__')


MODULES = {name_of(file): file for file in FILES}


def imports(file: str) -> Iterator[str]:
    """Names of the modules that a file imports at any place, also within functions."""
    package = ['ipirm_mm', *Path(file).parts[:-1]]
    for node in ast.walk(ast.parse((PACKAGE / file).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = '.'.join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                # `from .. import compat` imports a module, `from ..errors import UserError` not.
                submodule = f'{module}.{alias.name}'
                yield submodule if submodule in MODULES else module


@pytest.mark.parametrize('file', FILES)
def test_a_file_is_no_longer_than_one_can_read(file):
    assert len((PACKAGE / file).read_text().splitlines()) <= MAX_LINES


def test_every_part_has_a_layer():
    assert {part_of(name_of(file)) for file in FILES} <= LAYER_OF.keys()


@pytest.mark.parametrize('file', FILES)
def test_imports_go_to_the_same_or_a_lower_layer(file):
    own = LAYER_OF[part_of(name_of(file))]
    ours = {module for module in imports(file) if module.split('.')[0] == 'ipirm_mm'}
    upward = {module for module in ours if LAYER_OF[part_of(module)] > own}
    assert not upward, f'ipirm_mm/{file} imports from a layer above: {sorted(upward)}'


def test_parts_of_a_layer_do_not_import_each_other_in_turn():
    used: dict[str, set[str]] = {part: set() for part in LAYER_OF}
    for file in FILES:
        part = part_of(name_of(file))
        ours = {part_of(name) for name in imports(file) if name.split('.')[0] == 'ipirm_mm'}
        used[part] |= ours - {part}
    circles = {(a, b) for a in used for b in used[a] if a < b and a in used[b]}
    assert not circles


def test_functional_needs_no_openmmlab():
    """Neither do the files of the package that it imports."""
    seen: set[str] = set()
    todo = [name for name in MODULES if part_of(name) == 'functional']
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for module in imports(MODULES[name]):
            assert module.split('.')[0] not in OPENMMLAB, f'{name} imports {module}'
            if module in MODULES:
                todo.append(module)
    assert len(seen) > 4


def test_functional_and_partition_need_pytorch_only():
    """Where MMEngine is not installed; simulated by a finder that knows none of OpenMMLab."""
    script = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('mmengine', 'mmcv', 'mmpretrain'):
            raise ModuleNotFoundError(name)

import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == 'mmengine' else find_spec(name)
sys.meta_path.insert(0, Hidden())
import torch
import ipirm_mm
from ipirm_mm.functional import subset_contrastive_risks
from ipirm_mm.partition import PartitionSolver
z = torch.nn.functional.normalize(torch.randn(2, 24, 8), dim=2)
found = PartitionSolver(strategy='kmeans').solve(*z)
print(subset_contrastive_risks(*z, found.assignment[None], 2).loss.shape)
assert not {'mmengine', 'mmcv', 'mmpretrain'} & sys.modules.keys()
"""
    finished = subprocess.run(
        [sys.executable, '-c', script], cwd=PACKAGE.parent, capture_output=True, text=True
    )
    assert finished.stdout == 'torch.Size([1, 2])\n', finished.stderr
