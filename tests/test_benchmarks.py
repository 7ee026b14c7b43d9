"""The benchmarks: what is counted, ratios and limits, and the files of `make bench`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import ROOT, run_tool
from mmengine.config import Config
from mmpretrain import get_model

FOLDER = ROOT / 'benchmarks'


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for name in ('runs', *(path.stem for path in FOLDER.glob('*.py'))):
        sys.modules.pop(name, None)


@pytest.fixture
def limits(monkeypatch):
    """Hardware that makes a million operations and moves half as many bytes per second."""
    import hardware

    found = hardware.Limits(1e6, 5e5)
    monkeypatch.setattr(hardware, 'measure', lambda device, threads: found)
    return {('cpu', 1): found}


def test_work_of_a_product():
    from hardware import Work, count

    a, b = torch.ones(3, 4, requires_grad=True), torch.ones(4, 5)
    with torch.no_grad():
        assert count(lambda: a @ b) == Work(2 * 3 * 4 * 5, 4 * (12 + 20 + 15))
        # A transposed matrix is a view.
        assert count(lambda: b.t() @ a.t()) == count(lambda: a @ b)
    gradient = torch.ones(3, 5)
    both = count(lambda: torch.autograd.grad(a @ b, a, gradient))
    assert both == Work(2 * 120, 2 * 188)  # the gradient is a product of the same matrices


def test_work_of_elementwise_operations():
    from hardware import Work, count

    a, b, one = torch.ones(1000), torch.ones(1000), torch.ones(1)
    assert count(lambda: a + b) == Work(0, 3 * 4000)
    assert count(lambda: a.add_(b)) == Work(0, 3 * 4000)
    assert count(lambda: a.exp()) == Work(0, 2 * 4000)
    assert count(lambda: a + one.expand(1000)) == Work(0, 2 * 4000 + 4)
    assert count(lambda: a.view(10, 100)[2:].t().reshape(100, 8)[:, 0].detach()).operations == 0
    assert count(lambda: (a.view(10, 100)[2:].t(), a.split(10), a.detach())).bytes == 0


def test_hardware_is_measured(monkeypatch):
    import hardware

    monkeypatch.setattr(hardware, 'ARRAY_BYTES', 2**20)
    before = torch.get_num_threads()
    found = hardware.measure('cpu', 1, runs=1)
    assert found.operations > 1e8 and found.bytes > 1e7
    assert torch.get_num_threads() == before
    assert hardware.Limits(1e6, 5e5).milliseconds(hardware.Work(2e3, 3e3)) == (2, 6)


def test_steps_are_timed_in_turns_and_by_themselves(monkeypatch):
    import timing

    calls, told = [], []
    steps = {name: lambda name=name: calls.append(name) for name in 'ab'}
    times = timing.turns(steps, 2, told.append)
    assert calls == list('ababab') and told == [1 / 3, 2 / 3, 1]
    assert {name: len(values) for name, values in times.items()} == dict(a=2, b=2)
    monkeypatch.setattr(timing, 'STRETCH', 1e-4)
    calls.clear()
    times = timing.by_itself(steps, 3)
    assert len(times['a']) == len(times['b']) == 3
    assert sum(a != b for a, b in zip(calls, calls[1:])) == 5 and len(calls) >= 12


def test_progress_is_shared():
    from timing import share

    told = []
    first, second = share(told.append, [1, 3])
    for report, fraction in ((first, 0.5), (first, 1), (second, 0.5), (second, 1)):
        report(fraction)
    assert told == [0.125, 0.25, 0.625, 1]
    share(None, [1])[0](0.5)


def test_ratios_and_limits(limits):
    from hardware import Work
    from timing import Comparison, Row, figures, table_of

    counted = Row('counted', [8, 10, 30], [4, 5, 5], 1, work=Work(1e3, 1e3))
    rows = [counted, Row('not counted', [1], [2], 1)]
    values, other = figures(Comparison('title', 'slow', 'ours', rows), limits)
    assert (values['reference'], values['ours'], values['ratio']) == (10, 5, 2)
    assert (values['lowest'], values['highest']) == (2, 6)
    assert (values['products'], values['memory'], values['reached']) == (1, 2, 0.4)
    assert other['ratio'] == 0.5 and 'reached' not in other
    cost = Comparison('title', 'one', 'ten', rows, is_cost=True)
    assert figures(cost, limits)[1]['ratio'] == 2 and cost.ratio == 'ten / one'
    cells = table_of(cost, limits).rows[0]
    assert cells['ratio'] == '0.500 (0.167 to 0.500)' and cells['reached'] == '40 %'


def test_significant_digits():
    from timing import significant

    shown = {value: significant(value) for value in (7473.8, 33.24, 1.0, 0.0323, 0.0)}
    assert list(shown.values()) == ['7474', '33.2', '1.00', '0.0323', '0']
    assert significant(None) is None


@pytest.mark.parametrize(
    'name, options, rows',
    [
        ('steps', dict(threads=[1], images=40), [8]),
        ('distillation', dict(batch=2, size=32, threads=1), [1, 4]),
        ('tta', dict(batch=1, size=32, depth=18, threads=1), [4]),
        ('views', dict(batch=2), [12]),
        ('decoding', dict(photos=1), [4]),
        ('training', dict(batch=8, threads=1), [5]),
    ],
)
def test_benchmarks(name, options, rows, monkeypatch):
    module = __import__(name)
    if name == 'distillation':
        import timing

        monkeypatch.setattr(module, 'LOSSES', module.LOSSES[2:3])
        monkeypatch.setattr(timing, 'STRETCH', 1e-4)
    told = []
    tables = module.measure(runs=1, progress=told.append, **options)
    assert [len(table.rows) for table in tables] == rows
    assert told == sorted(told) and told[-1] == pytest.approx(1)
    for table in tables:
        for row in table.rows:
            assert len(row.reference) == len(row.ours) == 1 and row.ours[0] > 0, row.name
            counted = name not in ('views', 'decoding') or row.name.endswith('BatchedViews, whole')
            assert (row.work is not None) == counted, row.name
            if row.work and name != 'views':
                assert row.work.operations > 0 and row.work.bytes > 0, row.name


@pytest.mark.slow
def test_cost_model(monkeypatch, capsys):
    import cost_model

    forward, both, gradient = cost_model.network()
    assert forward == pytest.approx(8.2e9, rel=0.01)  # published: 4.1 x 10^9 multiplications
    assert both == pytest.approx(3 * forward, rel=0.03)  # not the gradient of the image
    assert gradient == pytest.approx(4 * 23.5e6, rel=0.01)  # without the classifier
    monkeypatch.setattr(sys, 'argv', ['cost_model.py', '--workers', '4', '--loader-ms', '8.5'])
    args = cost_model.parse_args()
    row, more = (cost_model.hours('VIPriors', gpus, args) for gpus in (8, 64))
    assert float(row['loader']) == pytest.approx(8 * float(more['loader']), rel=0.02)
    seconds = 50_000 * 800 * 0.0085 / (8 * 4)
    assert float(row['loader']) == pytest.approx(seconds / 3600, rel=0.01)
    cost_model.main()
    assert 'ImageNet-1k, 64 GPUs' in capsys.readouterr().out


@pytest.mark.slow
def test_sharing(monkeypatch, capsys):
    import sharing

    monkeypatch.setattr(sys, 'argv', ['sharing.py', '--images', '150', '--ranks', '1', '2'])
    sharing.main()
    *_, one, two = (line.split() for line in capsys.readouterr().out.strip().splitlines())
    assert (one[0], one[3], one[4]) == ('1', '1.00', 'yes') and (two[0], two[4]) == ('2', 'yes')


def test_solver_is_compared(tmp_path):
    """On a few images, with an encoder that was not trained."""
    import solver

    model = get_model(Config.fromfile(ROOT / 'configs/quickstart/simclr.py'), device='cpu')
    checkpoint = tmp_path / 'encoder.pth'
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    args = argparse.Namespace(images=120, data_root=None, authors_seeds=None, block_size=None)
    data = solver.features(SimpleNamespace(checkpoint=checkpoint), 0, args)
    assert [len(view) for view in data['features']] == [120] * 2
    assert not torch.equal(*data['features'])  # two views
    row = solver.table_row(0, data, args)
    assert {key for key, _ in solver.COLUMNS} <= row.keys()
    assert float(row['random']) < float(row['authors']) <= float(row['ours'])


def test_files_of_a_run(limits, tmp_path, monkeypatch, capsys):
    import run
    import views

    class Small:
        @staticmethod
        def measure(**options):
            return views.measure(batch=1, **options)

    monkeypatch.setitem(run.BENCHMARKS, 'views', (Small, 1))
    command = ['run.py', '--only', 'views', '--runs', '2', '--work-dir', str(tmp_path / 'new')]
    monkeypatch.setattr(sys, 'argv', command)
    run.main()
    check_files(tmp_path / 'new', capsys.readouterr().out, runs=2)


def check_files(folder: Path, printed: str, runs: int) -> None:
    record = json.loads((folder / 'bench.json').read_text())
    (table,) = record['tables']
    assert len(table['rows']) == 12 and '--only views' in record['settings']['command']
    assert all(len(row['times']['ours']) == runs for row in table['rows'])
    assert record['hardware_per_second'][0]['threads'] == 1
    page = (folder / 'bench.md').read_text()
    for row in table['rows']:
        assert row['lowest'] <= row['ratio'] <= row['highest']
        assert f'| {row["name"]} |' in page and row['name'] in printed
    assert (folder / 'bench.png').read_bytes().startswith(b'\x89PNG')
    assert 'bench.png' in printed


@pytest.mark.slow
def test_files_of_the_command(tmp_path):
    options = '--only', 'views', '--runs', 1, '--work-dir', tmp_path
    check_files(tmp_path, run_tool('benchmarks/run.py', *options).stdout, runs=1)


@pytest.mark.parametrize(
    'options, message',
    [
        (['--only', 'view'], "argument --only: invalid choice: 'view' (choose from"),
        (['--runs', '0'], 'argument --runs: must be at least 1, but is 0'),
    ],
)
def test_mistakes_are_refused(options, message, monkeypatch, capsys):
    import run

    monkeypatch.setattr(sys, 'argv', ['run.py', *options])
    with pytest.raises(SystemExit) as stop:
        run.main()
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_growth_of_a_long_run_is_told(capsys):
    import long_run

    flat = dict.fromkeys((*long_run.MEMORY, *long_run.COUNTS, 'solves'), 100.0)
    samples = [dict(flat, minutes=float(minute)) for minute in range(60)]
    assert long_run.grown(samples) == []
    assert '+0.0 MiB per hour' in capsys.readouterr().out
    for minute, one in enumerate(samples):
        one.update(main=100 + minute / 6, files=100 + minute // 30)
    assert long_run.grown(samples) == ['files', 'main']
    assert len(long_run.table(samples)) == long_run.PARTS
    assert '+10.' in capsys.readouterr().out.rpartition(',')[2]
    assert long_run.sample(os.getpid(), ROOT)['main'] > 50


@pytest.mark.slow
def test_a_short_long_run(tmp_path):
    given = ('--minutes', 1, '--seconds', 1, '--workers', 1)
    finished = run_tool('benchmarks/long_run.py', tmp_path, *given, check=False)
    printed = finished.stdout
    assert 'SIGTERM: status 143' in printed, printed + finished.stderr
    assert not {'threads', 'processes', 'temporary', 'saved'} & set(
        printed.rpartition('grown: ')[2].strip().split(', ')
    )
    assert (tmp_path / 'long_run.png').read_bytes().startswith(b'\x89PNG')
    first = json.loads((tmp_path / 'samples.jsonl').read_text().splitlines()[0])
    assert first['main'] > 100 and first['processes'] >= 2
