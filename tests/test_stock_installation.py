"""Our configs in the config folder of an installed MMPretrain, run by its own tools.

The official packages always; the maintained fork where ``IPIRM_ONEDL_PYTHON`` names a Python that
has it (``make test-all`` sets it up).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = [
    sys.executable,
    pytest.param(os.environ.get('IPIRM_ONEDL_PYTHON'), marks=pytest.mark.slow, id='onedl'),
]


def run(python, *command):
    finished = subprocess.run(
        [str(part) for part in (python, '-W', 'ignore', *command)],
        env={
            **os.environ,
            'OMP_NUM_THREADS': '1',
            'CUDA_VISIBLE_DEVICES': '',
            'PYTHONPATH': str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return finished.stdout + finished.stderr


@pytest.fixture(params=PYTHONS)
def installation(request, tmp_path):
    """A Python, and a copy of its MMPretrain's tools and configs with ours among them."""
    python = request.param
    if not python:
        pytest.skip('IPIRM_ONEDL_PYTHON is not set: make test-all sets the fork up')
    # A path is kept as it is: resolving it would leave the virtual environment.
    python = os.path.abspath(python)
    where = 'import mmpretrain, pathlib; print(pathlib.Path(mmpretrain.__file__).parent / ".mim")'
    mim = Path(run(python, '-c', where).split()[-1])
    copy = tmp_path / 'mmpretrain'
    shutil.copytree(mim / 'tools', copy / 'tools')
    shutil.copytree(mim / 'configs', copy / 'configs')
    shutil.copytree(ROOT / 'configs', copy / 'configs' / 'ipirm')
    return python, copy


def test_quickstart_trains_resumes_and_tests(installation, tmp_path):
    python, stock = installation
    config = stock / 'configs/ipirm/quickstart/ipirm_simclr_report.py'
    work = tmp_path / 'work'
    options = (
        'train_dataloader.dataset.indices=320',
        'train_dataloader.batch_size=64',
        'custom_hooks.0.interval=1',
        'custom_hooks.1.interval=10',
        'default_hooks.checkpoint.interval=1',
        'default_hooks.checkpoint.max_keep_ckpts=-1',
    )
    for epochs, arguments in ((2, ()), (3, ('--resume',))):
        run(
            python,
            stock / 'tools/train.py',
            config,
            '--work-dir',
            work,
            *arguments,
            '--cfg-options',
            f'train_cfg.max_epochs={epochs}',
            *options,
        )
        state = torch.load(work / f'epoch_{epochs}.pth', map_location='cpu')['state_dict']
        assert int(state['partitions.count']) == epochs - 1
    # The partition from before is still there after the resume.
    before = torch.load(work / 'epoch_2.pth', map_location='cpu')['state_dict']
    assert torch.equal(before['partitions.assignments'][0], state['partitions.assignments'][0])
    printed = run(
        python, stock / 'tools/test.py', config, work / 'epoch_3.pth', '--work-dir', work
    )
    assert 'knn/top1' in printed


def test_full_scale_config_trains_on_vipriors(installation, tmp_path):
    python, stock = installation
    data = tmp_path / 'vipriors'
    generator = np.random.default_rng(0)
    for split in ('train', 'val'):
        for name in ('n01', 'n02'):
            for number in range(2):
                path = data / split / name / f'{number}.JPEG'
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = generator.integers(0, 256, (240, 260, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    loaders += ('custom_hooks.1.bank_dataloader', 'custom_hooks.1.query_dataloader')
    options = [
        f'{loader}.{key}={value}'
        for loader in loaders
        for key, value in (
            ('batch_size', 2),
            ('num_workers', 0),
            ('persistent_workers', False),
            ('dataset.data_root', data),
            ('dataset.num_classes', 2),
            ('dataset.per_class', 2),
        )
    ]
    printed = run(
        python,
        stock / 'tools/train.py',
        stock / 'configs/ipirm/ipirm_simsiam_r50.py',
        '--work-dir',
        tmp_path / 'work',
        '--cfg-options',
        'train_cfg.max_epochs=2',
        'train_cfg.val_interval=2',
        'custom_hooks.0.interval=1',
        'default_hooks.logger.interval=1',
        *options,
    )
    assert 'Partition 1 before epoch 2' in printed
    assert 'knn/top1' in printed and 'feature_std' in printed
