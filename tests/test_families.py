"""Every kind of network in MMPretrain's model index, and every head: works, or one sentence."""

from __future__ import annotations

import inspect
import logging
import runpy

import mmpretrain.models
import pytest
import yaml
from helpers import MIM, ROOT
from mmpretrain.models import ClsHead, MultiLabelClsHead, MultiTaskHead

SCRIPT = runpy.run_path(str(ROOT / 'docs/list_families.py'), run_name='not_main')
PAGE = (ROOT / 'docs/families.md').read_text(encoding='utf-8')
SENTENCES = 'Refused with the sentence:'


def rows(part):
    """Cells of the page's table of backbones or heads, with the sentences of refusals."""
    text = PAGE.split('## ')[1 if part == 'Backbones' else 2]
    assert text.startswith(part)
    table, _, notes = text.partition(SENTENCES)
    sentences = dict(line.split('. ', 1) for line in notes.strip().splitlines() if '. ' in line)
    found = []
    for line in table.splitlines():
        if line.startswith('|') and '---' not in line:
            cells = [cell.strip() for cell in line.strip('|').split('|')]
            for place, cell in enumerate(cells):
                if cell.startswith('refused ('):
                    cells[place] = f'refused: {sentences[cell[9:-1]]}'
            found.append(cells)
    return found[1:]


def test_the_page_has_every_backbone_of_the_index():
    """By the files that the index names, read as text: configs take long to load."""
    shown = {cells[0] for cells in rows('Backbones')}
    assert len(rows('Backbones')) >= 80 and len(shown) > 60
    for metafile in yaml.safe_load((MIM / 'model-index.yml').read_text())['Import']:
        assert (MIM / metafile).exists()
    for name in ('ResNet', 'SwinTransformer', 'MlpMixer', 'LeViT', 'InceptionV3', 'MAEViT'):
        assert name in shown


def test_the_page_has_every_classification_head():
    heads = {
        name
        for name, kind in inspect.getmembers(mmpretrain.models, inspect.isclass)
        if issubclass(kind, (ClsHead, MultiLabelClsHead, MultiTaskHead))
    }
    shown = {cells[0] for cells in rows('Heads')}
    assert {name.split(',')[0] for name in shown} == heads
    assert shown == set(SCRIPT['HEADS'])


def test_every_cell_says_something():
    for cells in [row[2:] for row in rows('Backbones')] + [row[1:] for row in rows('Heads')]:
        for cell in cells:
            assert cell in ('works', '–') or cell.startswith('refused: ')


@pytest.fixture
def prepared():
    """The script's state, without its silence for the tests that follow."""
    SCRIPT['prepare']()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.slow
def test_heads_are_as_the_page_says(prepared):
    for cells in rows('Heads'):
        assert [cells[0], *SCRIPT['row_of_head'](cells[0])] == cells


@pytest.mark.slow
def test_backbones_are_as_the_page_says(prepared):
    expected = rows('Backbones')
    families = SCRIPT['families']()
    assert [[family.backbone, family.algorithm] for family in families] == [
        cells[:2] for cells in expected
    ]
    different = []
    for family, cells in zip(families, expected):
        found = [family.backbone, family.algorithm, *SCRIPT['row_of_family'](family)]
        if found != cells:
            different.append((family, found, cells))
    assert not different
