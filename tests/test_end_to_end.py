"""The real tools in processes of their own, on real images."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import mmpretrain
import pytest
import torch

import ipirm_mm  # noqa: F401  (allows the types that MMEngine's checkpoints hold)

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'configs/quickstart/ipirm_simclr_report.py'
STOCK_TRAIN = Path(mmpretrain.__file__).parent / '.mim' / 'tools' / 'train.py'
# 640 images, batches of 128: five steps an epoch, a partition every two epochs.
SMALL = (
    'train_dataloader.dataset.indices=640',
    'train_dataloader.batch_size=128',
    'custom_hooks.0.interval=2',
    'custom_hooks.1.interval=10',
    'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.interval=1',
    'default_hooks.checkpoint.max_keep_ckpts=-1',
    'train_cfg.val_interval=10',
    # Each step's own loss, not a mean over ten.
    'log_processor.type=LogProcessor',
    'log_processor.window_size=1',
)


def run(*command, check=True, **environment):
    finished = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={
            **os.environ,
            'OMP_NUM_THREADS': '1',
            'CUDA_VISIBLE_DEVICES': '',
            'PYTHONPATH': f'{ROOT}{os.pathsep}{ROOT / "tests" / "data"}',
            'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    if check:
        assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return finished


def train(work_dir, *options, arguments=(), tool='tools/train.py', config=CONFIG, check=True):
    return run(
        sys.executable,
        tool,
        config,
        '--work-dir',
        work_dir,
        *arguments,
        '--cfg-options',
        *SMALL,
        *options,
        check=check,
    )


def losses(work_dir):
    """Loss of each step, over all runs in a folder."""
    values = {}
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if 'loss' in record:
                values[record['step']] = record['loss']
    return values


def checkpoint(work_dir, epoch):
    return torch.load(Path(work_dir) / f'epoch_{epoch}.pth', weights_only=True, map_location='cpu')


def partitions(work_dir, epoch):
    state = checkpoint(work_dir, epoch)['state_dict']
    return state['partitions.assignments'][: int(state['partitions.count'])]


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """An uninterrupted run of five epochs: partitions before epochs 3 and 5."""
    work_dir = tmp_path_factory.mktemp('whole')
    train(work_dir, 'train_cfg.max_epochs=5')
    return work_dir


def test_partitions_are_found_reported_and_saved(whole):
    found = partitions(whole, 5)
    assert found.shape == (2, 640)
    assert all(row.unique().tolist() == [0, 1] for row in found)
    for number in (1, 2):
        record = json.loads((whole / f'partitions/partition_{number:02d}.json').read_text())
        assert sum(record['sizes']) == 640
        assert record['sizes'] == torch.bincount(found[number - 1].long()).tolist()
        assert len(record['nmi_with_earlier']) == number - 1
        assert (whole / f'partitions/partition_{number:02d}.png').stat().st_size > 1000
    assert list(whole.glob('*/vis_data/events.out.tfevents.*'))
    assert len(losses(whole)) == 25


def train_in_two_processes(work_dir, *options, config=CONFIG):
    run(
        'bash',
        'tools/dist_train.sh',
        config,
        2,
        '--work-dir',
        work_dir,
        '--cfg-options',
        *SMALL,
        'train_dataloader.batch_size=64',
        'train_cfg.max_epochs=5',
        *options,
        PORT=free_port(),
    )


def largest_difference(one, two):
    assert one.keys() == two.keys()
    return max(abs(one[step] - two[step]) for step in one)


# SimSiam's batch normalisation, which is each process's own on processors, by another.
GROUP_NORM = (
    'model.neck.norm_cfg.type=GN',
    'model.neck.norm_cfg.num_groups=8',
    'model.neck.with_last_bn=False',
    'model.head.predictor.norm_cfg.type=GN',
    'model.head.predictor.norm_cfg.num_groups=8',
)


@pytest.mark.parametrize(
    'base,options',
    [(CONFIG, ()), ('configs/quickstart/ipirm_simsiam_report.py', GROUP_NORM)],
    ids=['simclr', 'simsiam'],
)
def test_two_processes_train_like_one(tmp_path, base, options):
    """Over 25 steps and two partitions, in double precision.

    In single precision rounding differs between one sum and two halves, and training amplifies
    that tenfold every few steps, whatever the code: see the next test.
    """
    config = tmp_path / 'double.py'
    config.write_text(
        f'_base_ = [{str(ROOT / base)!r}]\n'
        "custom_imports = dict(imports=['ipirm_mm', 'double_precision'])\n"
        "data_preprocessor = dict(type='DoublePreprocessor')\n"
    )
    train(tmp_path / 'one', 'train_cfg.max_epochs=5', *options, config=config)
    train_in_two_processes(tmp_path / 'two', *options, config=config)
    one, two = losses(tmp_path / 'one'), losses(tmp_path / 'two')
    assert len(one) == 25
    assert largest_difference(one, two) < 1e-5
    assert torch.equal(partitions(tmp_path / 'one', 5), partitions(tmp_path / 'two', 5))
    assert len(partitions(tmp_path / 'one', 5)) == 2


def test_two_processes_start_like_one_in_single_precision(whole, tmp_path):
    train_in_two_processes(tmp_path)
    one, two = losses(whole), losses(tmp_path)
    start = range(1, 6)
    assert largest_difference({s: one[s] for s in start}, {s: two[s] for s in start}) < 1e-5


@pytest.mark.parametrize('tool', ['tools/train.py', STOCK_TRAIN], ids=['ours', 'mmpretrain'])
def test_resume_between_updates_continues_the_run(whole, tmp_path, tool):
    train(tmp_path, 'train_cfg.max_epochs=3', tool=tool)
    assert len(partitions(tmp_path, 3)) == 1
    train(tmp_path, 'train_cfg.max_epochs=5', tool=tool, arguments=['--resume'])
    assert torch.equal(partitions(tmp_path, 5), partitions(whole, 5))
    ours, expected = checkpoint(tmp_path, 5), checkpoint(whole, 5)
    for name, value in expected['state_dict'].items():
        torch.testing.assert_close(ours['state_dict'][name], value, rtol=0, atol=0, msg=name)


def test_test_tool_gives_the_knn_accuracy(whole):
    finished = run(
        sys.executable,
        'tools/test.py',
        CONFIG,
        whole / 'epoch_5.pth',
        '--work-dir',
        whole / 'test',
    )
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
    finished = train(tmp_path, *options, check=False)
    assert finished.returncode != 0
    assert message in finished.stderr
    assert 'Traceback' not in finished.stderr


def test_resume_with_another_data_set_is_refused(whole, tmp_path):
    finished = train(
        tmp_path,
        'train_cfg.max_epochs=6',
        'train_dataloader.dataset.indices=512',
        arguments=('--resume', whole / 'epoch_5.pth'),
        check=False,
    )
    assert finished.returncode != 0
    assert 'divide 640 images, but the training set has 512' in finished.stderr
    assert 'Traceback' not in finished.stderr


def test_truncated_checkpoint_is_refused(whole, tmp_path):
    data = (whole / 'epoch_5.pth').read_bytes()
    broken = tmp_path / 'broken.pth'
    broken.write_bytes(data[: len(data) // 2])
    finished = train(tmp_path / 'run', arguments=('--resume', broken), check=False)
    assert finished.returncode != 0
    assert str(broken) in finished.stderr
    assert 'Traceback' not in finished.stderr
