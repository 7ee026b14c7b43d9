"""Pipelines in configs of data sets, also within wrappers."""

from __future__ import annotations

import pytest

from ipirm_mm.datasets import one_pipeline, pipelines, with_pipelines
from ipirm_mm.errors import UserError

FIRST, SECOND = [dict(type='LoadImage')], [dict(type='PackInputs')]
PLAIN = dict(type='CustomDataset', pipeline=FIRST)
FOLD = dict(type='KFoldDataset', dataset=PLAIN, fold=0)
BOTH = dict(type='ConcatDataset', datasets=[FOLD, dict(PLAIN, pipeline=SECOND)])


@pytest.mark.parametrize(
    'dataset,expected', [(PLAIN, [FIRST]), (FOLD, [FIRST]), (BOTH, [FIRST, SECOND]), ({}, [])]
)
def test_pipelines_within_wrappers(dataset, expected):
    assert list(pipelines(dataset)) == expected


def test_one_pipeline_or_none():
    assert one_pipeline(dict(dataset=FOLD), 'test_dataloader') == FIRST
    for loader in (None, {}, dict(dataset=dict(type='A')), dict(dataset=dict(pipeline=[]))):
        with pytest.raises(UserError, match=r'test_dataloader\.dataset\.pipeline is missing'):
            one_pipeline(loader, 'test_dataloader')
    with pytest.raises(UserError, match='test_dataloader have different pipelines'):
        one_pipeline(dict(dataset=BOTH), 'test_dataloader')


def test_changed_pipelines_leave_the_config_as_it_was():
    changed = with_pipelines(BOTH, lambda pipeline: pipeline + SECOND)
    assert list(pipelines(changed)) == [FIRST + SECOND, SECOND + SECOND]
    assert list(pipelines(BOTH)) == [FIRST, SECOND] and changed['datasets'][0]['fold'] == 0
