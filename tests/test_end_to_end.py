"""Stage I by the real tools, each run a process, on real images."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import (
    MIM,
    ROOT,
    SMALL_STAGE_ONE,
    STAGE_ONE,
    checkpoint,
    fails_with,
    fork_ranks,
    launch,
    losses,
    partitions,
    run_python,
    run_tool,
    train_stage_one,
)


def test_partitions_are_found_reported_and_saved(stage_one):
    found = partitions(stage_one, 5)
    assert found.shape == (2, 320)
    assert all(row.unique().tolist() == [0, 1] for row in found)
    for number in (1, 2):
        record = json.loads((stage_one / f'partitions/partition_{number:02d}.json').read_text())
        assert sum(record['sizes']) == 320
        assert record['sizes'] == torch.bincount(found[number - 1].long()).tolist()
        assert len(record['nmi_with_earlier']) == number - 1
        assert (stage_one / f'partitions/partition_{number:02d}.png').stat().st_size > 1000
    assert list(stage_one.glob('*/vis_data/events.out.tfevents.*'))
    assert len(losses(stage_one)) == 25


def train_in_two_processes(work_dir, *options, config=STAGE_ONE, start=fork_ranks):
    given = ('--work-dir', work_dir, '--cfg-options', *SMALL_STAGE_ONE)
    start('train', 2, config, *given, 'train_dataloader.batch_size=32', *options)


def largest_difference(one, two):
    assert one.keys() == two.keys()
    return max(abs(one[step] - two[step]) for step in one)


SIMSIAM = 'configs/quickstart/ipirm_simsiam_report.py'
# SimSiam's batch normalization, which is each process's own on processors, by another.
GROUP_NORM = (
    'model.neck.norm_cfg.type=GN',
    'model.neck.norm_cfg.num_groups=8',
    'model.neck.with_last_bn=False',
    'model.head.predictor.norm_cfg.type=GN',
    'model.head.predictor.norm_cfg.num_groups=8',
)


@pytest.mark.parametrize(
    'base,options,start',
    [
        pytest.param(STAGE_ONE, (), launch, id='simclr', marks=pytest.mark.slow),
        pytest.param(SIMSIAM, GROUP_NORM, fork_ranks, id='simsiam', marks=pytest.mark.slow),
        # What the launcher adds does not depend on the method.
        pytest.param(SIMSIAM, GROUP_NORM, launch, id='simsiam, launched', marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_like_one(tmp_path, base, options, start):
    """Over 25 steps and two partitions, in double precision.

    In single precision rounding differs between one sum and two halves, and training amplifies
    that tenfold every few steps, whatever the code: see the next test.
    """
    config = tmp_path / 'double.py'
    config.write_text(
        f'_base_ = [{str(ROOT / base)!r}]\n'
        "custom_imports = dict(imports=['ipirm_mm', 'double_precision'])\n"
        "data_preprocessor = dict(type='DoubleBatchedViews')\n"
    )
    options = ('train_cfg.max_epochs=5', *options)
    train_stage_one(tmp_path / 'one', *options, config=config)
    train_in_two_processes(tmp_path / 'two', *options, config=config, start=start)
    one, two = losses(tmp_path / 'one'), losses(tmp_path / 'two')
    assert len(one) == 25
    assert largest_difference(one, two) < 1e-5
    assert torch.equal(partitions(tmp_path / 'one', 5), partitions(tmp_path / 'two', 5))
    assert len(partitions(tmp_path / 'one', 5)) == 2


def test_two_processes_start_like_one_in_single_precision(stage_one, tmp_path):
    train_in_two_processes(tmp_path, 'train_cfg.max_epochs=1')
    one, two = losses(stage_one), losses(tmp_path)
    start = range(1, 6)
    assert largest_difference({s: one[s] for s in start}, {s: two[s] for s in start}) < 1e-5


@pytest.mark.parametrize(
    'tool,resume',
    [
        pytest.param('tools/train.py', run_python, id='ours'),
        pytest.param(MIM / 'tools/train.py', run_tool, id='mmpretrain'),
    ],
)
@pytest.mark.slow  # `make test` resumes after a signal: tests/test_exact_resume.py
def test_resume_between_updates_continues_the_run(stage_one, tmp_path, tool, resume):
    train_stage_one(tmp_path, 'train_cfg.max_epochs=3', tool=tool)
    assert len(partitions(tmp_path, 3)) == 1
    options = dict(tool=tool, arguments=['--resume'], start=resume)
    train_stage_one(tmp_path, 'train_cfg.max_epochs=5', **options)
    assert torch.equal(partitions(tmp_path, 5), partitions(stage_one, 5))
    ours, expected = checkpoint(tmp_path, 5), checkpoint(stage_one, 5)
    for name, value in expected['state_dict'].items():
        torch.testing.assert_close(ours['state_dict'][name], value, rtol=0, atol=0, msg=name)


def test_test_tool_gives_the_knn_accuracy(stage_one):
    given = (STAGE_ONE, stage_one / 'epoch_5.pth')
    finished = run_tool('tools/test.py', *given, '--work-dir', stage_one / 'test')
    assert 'knn/top1' in finished.stdout + finished.stderr


@pytest.mark.parametrize(
    'options,message',
    [
        (['model.num_subsets=1'], 'num_subsets must be from 2 to 256, but is 1'),
        (['model.num_subsets=200', 'train_dataloader.dataset.indices=150'], 'only 150 images'),
        (
            ['train_dataloader.dataset.split=full', 'train_dataloader.dataset.data_root=/nowhere'],
            '/nowhere',
        ),
    ],
)
def test_bad_configuration_gets_one_sentence(tmp_path, options, message):
    finished = train_stage_one(tmp_path, *options, check=False)
    fails_with(finished, message)


def test_resume_with_another_data_set_is_refused(stage_one, tmp_path):
    finished = train_stage_one(
        tmp_path,
        'train_cfg.max_epochs=6',
        'train_dataloader.dataset.indices=512',
        arguments=('--resume', stage_one / 'epoch_5.pth'),
        check=False,
    )
    fails_with(finished, 'divide 320 images, but the training set has 512')


def test_truncated_checkpoint_is_refused(stage_one, tmp_path):
    data = (stage_one / 'epoch_5.pth').read_bytes()
    broken = tmp_path / 'broken.pth'
    broken.write_bytes(data[: len(data) // 2])
    finished = train_stage_one(tmp_path / 'run', arguments=('--resume', broken), check=False)
    fails_with(finished, str(broken))
