"""The experiments at a laptop's scale: their help, when a run is reused, and their figures."""

from __future__ import annotations

import io
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from rich.console import Console

FOLDER = Path(__file__).resolve().parents[2] / 'projects/laptop'


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in ('runs', 'evaluation', 'glyphs', 'demo', 'table3'):
        sys.modules.pop(name, None)


@pytest.mark.parametrize('name', ['demo', 'table2', 'table3', 'table4', 'glyphs', 'lab_figure'])
def test_help(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', [f'{name}.py', '--help'])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(FOLDER / f'{name}.py'), run_name='__main__')
    assert stop.value.code == 0
    assert f'python projects/laptop/{name}.py' in capsys.readouterr().out


def test_a_finished_run_is_reused_until_something_changes(tmp_path):
    from runs import Run, train_all

    def encoder(seed=0, options=()):
        return Run('simclr', tmp_path / 'encoder', 2, seed, options)

    run = encoder()
    assert not run.done
    run.folder.mkdir()
    torch.save({}, run.checkpoint)
    assert not encoder().done  # no fingerprint: it may have been stopped
    run.stamp.write_text(run.fingerprint)
    assert encoder().done and encoder().reused and encoder().epochs_done() == 2
    assert not encoder(seed=1).done
    assert not encoder(options=['train_dataloader.batch_size=8']).done
    student = Run('teacher', tmp_path / 'teacher', 3, 0, needs={'a.b': encoder()})
    other = Run('teacher', tmp_path / 'teacher', 3, 0, needs={'a.b': encoder(seed=1)})
    assert student.fingerprint != other.fingerprint
    assert student.arguments[-1] == f'a.b={run.checkpoint}'
    train_all([encoder()], Console(quiet=True))  # there is nothing to do


def test_a_run_depends_on_the_files_that_it_reads(tmp_path):
    from runs import ROOT, Run

    data = tmp_path / 'data.npz'
    fingerprints = set()
    for content in (b'a', b'b', b'a'):
        data.write_bytes(content)
        run = Run('glyphs/simclr_glyphs', tmp_path, 1, 0, inputs=[data])
        fingerprints.add(run.fingerprint)
    assert len(fingerprints) == 2
    assert run.config_path == ROOT / 'configs/glyphs/simclr_glyphs.py'


@pytest.mark.slow
def test_runs_are_trained_and_a_failure_is_told(tmp_path, monkeypatch):
    import runs
    from runs import Run, train_all

    monkeypatch.setattr(runs, '_LINE_INTERVAL', 0)

    few = ['train_dataloader.dataset.indices=64', 'train_dataloader.batch_size=32']
    run = Run('simclr', tmp_path / 'simclr', 1, 0, few)
    file = io.StringIO()
    train_all([run], Console(file=file))
    assert re.search(r'^\d+% after \d+ s, now simclr$', file.getvalue(), re.M)
    assert run.done and not run.reused and run.checkpoint.is_file()
    assert run.epochs_done() == 1 and run.stamp.read_text() == run.fingerprint
    failing = Run('simclr', tmp_path / 'failing', 1, 0, [*few, 'model.num_subsets=1'])
    with pytest.raises(SystemExit, match=r'ended with status 1:\n[^$]*num_subsets'):
        train_all([failing], Console(quiet=True))
    assert not failing.stamp.exists()


def test_chain_of_stage_2(tmp_path):
    from runs import distillation_chain

    students = ['student_scratch', 'student_finetuned', 'student_kl']
    chain = distillation_chain(tmp_path, 0, students)
    assert list(chain) == ['ipirm_simclr_sum', 'teacher', *students]
    needs = {name: set(run.needs.values()) for name, run in chain.items()}
    encoder, teacher = chain['ipirm_simclr_sum'], chain['teacher']
    assert needs['teacher'] == {encoder} and needs['student_scratch'] == set()
    assert needs['student_finetuned'] == {encoder}
    assert needs['student_kl'] == {encoder, teacher}


def test_a_student_is_loaded_without_its_teacher(tmp_path):
    from evaluation import draw_scores, load
    from runs import Run

    run = Run('student_kl', tmp_path, 1, 0)
    config = Config.fromfile(run.config_path)
    from ipirm_mm.models.utils import plain_classifier

    model = MODELS.build(plain_classifier(config))
    torch.save(dict(state_dict=model.state_dict()), run.checkpoint)
    loaded = load(run)
    assert type(loaded).__name__ == 'ImageClassifier'
    scores, labels = draw_scores(loaded, dict(split='test', indices=20))
    flipped, _ = draw_scores(loaded, dict(split='test', indices=20), 'flip')
    assert scores.shape == flipped.shape == (4, 20, 10) and labels.shape == (20,)
    torch.testing.assert_close(flipped.sum(2), torch.ones(4, 20))
    assert not torch.allclose(scores, flipped)


def test_figures():
    from evaluation import correct_rate, gain_cells, mean_and_range, merge_draws

    assert mean_and_range([45.04, 46.26, 44.9]) == '45.4 (44.9 to 46.3)'
    values, reference = np.array([1.0, 2.0, 3.0]), np.array([2.0, 1.0, 1.0])
    assert gain_cells(values, reference) == dict(gain='+0.7 (-1.0 to +2.0)', above='2 of 3')
    scores = torch.eye(3)[torch.tensor([[0, 1, 2], [0, 0, 0]])]
    assert correct_rate(scores, torch.tensor([0, 1, 0])).tolist() == [1, 0.5, 0.5]
    members = torch.stack([scores, scores.roll(1, 2)])
    torch.testing.assert_close(merge_draws(members), members.mean(0))


def test_table_as_markdown(tmp_path, capsys):
    from evaluation import save_table

    save_table(tmp_path / 'new/t.md', [dict(a='x', b='1')], [('a', 'name'), ('b', 'value')])
    assert (tmp_path / 'new/t.md').read_text() == '| name | value |\n| --- | --- |\n| x | 1 |\n'
    assert 'name  value' in capsys.readouterr().out


@pytest.fixture
def glyphs_file(tmp_path):
    """A data set of Glyphs whose images show a bar, which tells the class, of another gray a kind."""
    from ipirm_mm.datasets.glyphs import CHARACTERS, SPLITS

    classes, kinds, copies = len(CHARACTERS), 5, 1
    shape = (len(SPLITS), kinds, copies, classes)
    split, factors, _, labels = (axis.ravel().astype(np.uint8) for axis in np.indices(shape))
    images = np.random.default_rng(0).integers(0, 20, (len(labels), 28, 28), dtype=np.uint8)
    for image, label, kind in zip(images, labels, factors):
        image[4 + label // 9 * 5 :, label % 9 * 3] = 255 - 20 * kind
    path = tmp_path / 'glyphs.npz'
    np.savez(path, images=images, labels=labels, factors=factors, split=split)
    return path


def test_rows_of_table_3_have_names_of_their_own_and_configs_that_exist():
    from table3 import METHODS, REPORTED

    rows = [row for method in METHODS.values() for row in method]
    assert len({name for name, _ in rows}) == len({config for _, config in rows}) == len(rows)
    configs = FOLDER.parents[1] / 'configs/quickstart'
    assert not [config for _, config in rows if not (configs / f'{config}.py').is_file()]
    assert set(REPORTED) - {'supervised'} <= {name for name, _ in rows}


def test_gains_of_table_3_are_paired_by_seed():
    from table3 import MEASURES, gain_rows

    first, second = [50.0, 60.0, 70.0], [48.0, 59.0, 70.5]
    accuracy = {'ours': dict.fromkeys(MEASURES, first), 'alone': dict.fromkeys(MEASURES, second)}
    rows = gain_rows(accuracy, 'ours', ['alone'])
    assert [row['measure'] for row in rows] == list(MEASURES.values())
    assert {row['gain'] for row in rows} == {'+0.8 (-0.5 to +2.0)'}
    assert {row['above'] for row in rows} == {'2 of 3'}
    # t = 0.8333 / (1.2583 / sqrt(3)) = 1.147 with two degrees of freedom.
    assert {row['p'] for row in rows} == {'0.4'}


@pytest.mark.slow
def test_glyphs_trains_and_writes_its_table(glyphs_file, tmp_path, monkeypatch, capsys):
    import glyphs

    monkeypatch.setattr(
        sys,
        'argv',
        ['glyphs.py', '--data', str(glyphs_file), '--work-dir', str(tmp_path / 'work')]
        + ['--epochs', '1', '--seeds', '0'],
    )
    monkeypatch.setitem(glyphs.METHODS, 'simclr', ('simclr', 'penalty_only'))
    monkeypatch.setattr(glyphs, 'options_for', smaller(glyphs.options_for))
    glyphs.main()
    table = (tmp_path / 'work/simclr.md').read_text()
    assert table.count('| penalty_only |') == len(glyphs.MEASURES)
    for heading in glyphs.MEASURES.values():
        assert re.search(rf'\| simclr +\| {heading} +\| [\d.]+ \(.*\| [01] of 1', table), table
    assert f'{tmp_path}/work/simclr.md: percent' in capsys.readouterr().out.replace('\n', '')


def smaller(options_for):
    """Options of a run, with batches that the few images fill."""
    return lambda *arguments: [*options_for(*arguments), 'train_dataloader.batch_size=64']


def test_measures_of_glyphs():
    """Features that tell character and kind; and characters that only serif and sans fonts tell."""
    import glyphs

    generator = torch.Generator().manual_seed(0)
    kind = torch.arange(5).repeat_interleave(40)
    y = torch.arange(4).repeat(50)

    def part(clean):
        return dict(x=clean + 0.05 * torch.randn(clean.shape, generator=generator), y=y, kind=kind)

    both = torch.cat([torch.eye(4)[y], torch.eye(5)[kind]], 1)
    found = glyphs.evaluate(part(both), part(both))
    assert found['knn'] == found['probe'] == found['kind'] == 100
    train, test = part(torch.eye(4)[y]), part(torch.eye(4)[y])
    found = glyphs.evaluate(train, test)
    assert found['to_others'] == found['to_text'] == found['probe'] == 100
    assert found['kind'] < 50
    for one in (train, test):  # fonts of other kinds show the next character
        one['x'][kind >= 2] = one['x'][kind >= 2].roll(1, 1)
    found = glyphs.evaluate(train, test)
    assert found['to_others'] == found['to_text'] == 0
    test['kind'] = torch.zeros_like(kind)
    with pytest.raises(glyphs.UserError, match='need serif or sans fonts, and others'):
        glyphs.evaluate(train, test)


def test_rows_of_glyphs_have_gains_over_both_references():
    import glyphs

    def seeds(*values):
        return [dict.fromkeys(glyphs.MEASURES, value) for value in values]

    found = dict(
        simclr=seeds(50, 60),
        ipirm_simclr=seeds(53, 59),
        penalty_only=seeds(40, 30),
        pixels=[dict(knn=45.0)],
    )
    rows = glyphs.table_rows(found, ('simclr', 'penalty_only'))
    assert len(rows) == 3 * len(glyphs.MEASURES) + 1
    ours = next(row for row in rows if row['name'] == 'ipirm_simclr')
    assert ours['measure'] == 'k-NN' and ours['accuracy'] == '56.0 (53.0 to 59.0)'
    assert ours['simclr gain'] == '+1.0 (-1.0 to +3.0)' and ours['simclr above'] == '1 of 2'
    assert ours['penalty_only gain'] == '+21.0 (+13.0 to +29.0)'
    assert ours['penalty_only above'] == '2 of 2'
    (pixels,) = (row for row in rows if row['name'] == 'pixels')
    assert pixels['simclr gain'] == '-10.0 (-15.0 to -5.0)'
    assert 'simclr gain' not in rows[0] and 'penalty_only gain' in rows[0]


def test_missing_data_of_glyphs(tmp_path, monkeypatch):
    import glyphs

    monkeypatch.setattr(sys, 'argv', ['glyphs.py', '--data', str(tmp_path / 'none.npz')])
    with pytest.raises(glyphs.UserError, match='none.npz is missing: make it by python tools/'):
        glyphs.main()


def test_functions_run_in_processes_in_order():
    from math import sqrt

    from runs import map_processes

    assert map_processes(sqrt, [4.0, 9.0, 16.0]) == [2.0, 3.0, 4.0]


def test_rows_of_the_demo_are_means_over_seeds(monkeypatch):
    """A row of several seeds has the mean and the range, a row of one seed no range."""
    import demo

    def rates(of):
        value = dict(a=40.0, b=50.0, c=54.0).get(of, 30.0)
        return dict(knn=value, shifted=value + 1)

    monkeypatch.setattr(demo, 'map_processes', lambda function, items: list(map(rates, items)))
    rows = demo.encoder_rows({'one': ['a'], 'two': ['b', 'c']}, 7)
    assert rows == [
        dict(name='untrained', knn=30.0, shifted=31.0),
        dict(name='one', knn=40.0, shifted=41.0),
        dict(name='two', knn=52.0, shifted=53.0, range='51.0 to 55.0'),
    ]


def test_configs_of_the_demo_are_of_one_family():
    """Rows are compared, so they differ from the recipe only in its partitions and its penalty."""
    import demo
    from runs import ENCODER, ROOT

    def network(name):
        config = Config.fromfile(ROOT / f'configs/quickstart/{name}.py')
        head = {k: v for k, v in config.model.head.items() if not k.startswith('irm_w')}
        return config.model.backbone, config.model.neck, head, config.data_preprocessor

    for _, name, _ in demo.METHODS:
        assert network(name) == network(ENCODER)
