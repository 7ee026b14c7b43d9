"""projects/laptop/lab.py: its statistics and its file of runs."""

import json
import math
import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmpretrain import get_model

LAB = Path(__file__).resolve().parents[1] / 'projects/laptop/lab.py'


@pytest.fixture
def lab(monkeypatch):
    monkeypatch.syspath_prepend(str(LAB.parent))
    return runpy.run_path(str(LAB), run_name='not_main')


@pytest.mark.parametrize(
    'name, method',
    [
        ('ipirm_simclr_sum', 'ours'),
        ('sum_penalty_only', 'penalty'),
        ('sum_true_factor', 'factor'),
        ('sum_simclr', 'simclr'),
    ],
)
def test_configs_of_the_best_setting_are_those_of_the_lab(lab, name, method):
    best = dict(norm='BN', neck_norm='BN', crop=0.3, temperature=0.3, subsets=50, weight=1)
    settings = lab['settings_of'](method, dict(best, objective='report'))
    config = Config.fromfile(LAB.parents[2] / f'configs/quickstart/{name}.py')
    assert config.data_preprocessor == lab['config_of'](settings).data_preprocessor
    shipped, tried = get_model(config), lab['build'](settings)
    assert str(shipped) == str(tried)  # backbone, projector, normalization
    heads = [
        (head.temperature, head.irm_weight, head.penalty, head.irm_warmup_epochs)
        for head in (shipped.head, tried.head)
    ]
    if method == 'simclr':  # nothing to warm up to
        heads = [head[:2] for head in heads]
    assert heads[0] == heads[1]
    if method in ('ours', 'factor'):
        assert shipped.head.objective == tried.head.objective == 'report'


@pytest.mark.parametrize(
    'count, t, p',
    # Tables of Student's distribution.
    [(2, 12.7062, 0.05), (3, 4.302653, 0.05), (10, 2.262157, 0.05), (10, 3.249836, 0.01)],
)
def test_paired_p(lab, count, t, p):
    noise = np.random.default_rng(0).normal(size=count)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    differences = 3 * (noise + t / math.sqrt(count))
    assert lab['paired_p'](differences) == pytest.approx(p, rel=1e-4)
    assert lab['paired_p'](-differences) == pytest.approx(p, rel=1e-4)


def test_table_pairs_seeds(lab, tmp_path):
    """The gain is over the penalty alone with the same settings and seed, other seeds left out."""
    lines = [
        dict(settings=lab['settings_of'](method, {}), seed=seed, split='val', shifted=shifted)
        for method, seed, shifted in (
            ('ours', 1, 50.0), ('ours', 2, 70.0), ('ours', 3, 90.0),
            ('penalty', 1, 40.0), ('penalty', 2, 50.0),
        )
    ]  # fmt: skip
    path = tmp_path / 'lab.jsonl'
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    records = lab['read'](path)
    ours, penalty = lab['make_table'](records, records, 'shifted', {})
    assert (ours['seeds'], ours['gain']) == (3, '+15.0')
    assert 'gain' not in penalty
    other = dict(lab['settings_of']('penalty', dict(weight=4)), weight=4)
    records.append(dict(settings=other, seed=1, split='val', shifted=45.0))
    ours = lab['make_table'](records[:3], records, 'shifted', dict(weight=4))[0]
    assert ours['gain'] == '+5.0' and 'p' not in ours
    # Of SimCLR no penalty has the settings, since it has no weight; that of the control is given.
    simclr = [dict(settings=lab['settings_of']('simclr', {}), seed=1, split='val', shifted=30.0)]
    assert 'gain' not in lab['make_table'](simclr, records, 'shifted', {})[0]


@pytest.mark.parametrize('number', range(7))
def test_tables_of_the_page_are_what_its_commands_print(lab, number, monkeypatch, capsys):
    """From the logs in the repository; the page leaves out settings that all rows share."""
    found = re.findall(
        r'    (python projects/laptop/lab\.py --table(?:[^\n]|\\\n)*)\n\n((?:\|.*\n)+)',
        (LAB.parents[2] / 'docs/lab.md').read_text(),
    )
    assert len(found) == 7
    command, table = found[number]
    monkeypatch.setattr(sys, 'argv', shlex.split(command.replace('\\\n', ' '))[1:])
    lab['main']()
    printed, written = (
        sorted(line.split('|')[3:] for line in text.splitlines() if line.startswith('|'))
        for text in (capsys.readouterr().out, table)
    )
    assert printed == written


def test_a_curve_of_the_figure_has_the_runs_that_differ_in_one_setting(lab, monkeypatch):
    figure = runpy.run_path(str(LAB.parent / 'lab_figure.py'), run_name='not_main')

    def run(method, seed, value, **settings):
        settings = lab['settings_of'](method, {**figure['RECIPE'], **settings})
        return dict(settings=settings, seed=seed, split='test', shifted=value)

    records = [
        run('ours', 0, 60.0),
        run('ours', 1, 61.0),
        run('ours', 0, 40.0, subsets=2),
        run('ours', 1, 41.0, subsets=2),
        run('ours', 0, 50.0, subsets=5),  # without seed 1: left out
        run('ours', 0, 30.0, subsets=2, weight=0.2),
        run('penalty', 0, 20.0),
    ]
    curve = figure['curve']
    assert curve(records, 'ours', 'subsets', 'shifted') == {2: [40.0, 41.0], 50: [60.0, 61.0]}
    assert curve(records, 'ours', 'weight', 'shifted') == {1: [60.0, 61.0]}
    assert curve(records, 'penalty', 'weight', 'shifted') == {1: [20.0]}
    assert curve(records, 'ours', 'weight', 'knn') == {}


def test_the_figure_of_the_lab_says_which_runs_are_missing(lab, monkeypatch, tmp_path, capsys):
    figure = str(LAB.parent / 'lab_figure.py')
    out = tmp_path / 'lab.png'
    monkeypatch.setattr('sys.argv', [figure, '--out', str(out), '--seeds', '999'])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(figure, run_name='__main__')
    assert stop.value.code not in (0, None) and not out.exists()
    assert 'lab.jsonl has no run of the recipe for --split full_test, --seeds 999' in ''.join(
        (*capsys.readouterr(), str(stop.value.code))
    )
    monkeypatch.setattr('sys.argv', [figure, '--out', str(out)])
    runpy.run_path(figure, run_name='__main__')
    assert out.read_bytes().startswith(b'\x89PNG')
