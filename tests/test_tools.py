"""What a user sees who makes a mistake."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


def run(*command):
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=300,
    )


def fails_with(finished, *messages):
    assert finished.returncode == 1, finished.stderr[-2000:]
    for message in messages:
        assert message in finished.stderr
    assert 'Traceback' not in finished.stderr


def test_help():
    for tool in ('train', 'test', 'demo'):
        assert '--work-dir' in run(f'tools/{tool}.py', '--help').stdout


def test_missing_files_are_named(tmp_path):
    fails_with(
        run('tools/train.py', 'configs/nothing.py'), 'there is no config file configs/nothing'
    )
    config = 'configs/quickstart/simclr.py'
    missing = tmp_path / 'missing.pth'
    fails_with(run('tools/test.py', config, missing), f'there is no checkpoint {missing}')
    empty = tmp_path / 'empty.pth'
    empty.touch()
    fails_with(run('tools/test.py', config, empty), f'the checkpoint {empty} is truncated')
    finished = run('tools/train.py', 'configs/ipirm_simclr_r50.py', '--work-dir', tmp_path)
    fails_with(finished, 'data/vipriors/train')


def test_truncated_checkpoint_of_an_automatic_resume_is_named(tmp_path):
    whole = io.BytesIO()
    torch.save(dict(state_dict=dict(weight=torch.zeros(1000))), whole)
    broken = tmp_path / 'epoch_1.pth'
    broken.write_bytes(whole.getvalue()[:2000])
    (tmp_path / 'last_checkpoint').write_text(str(broken))
    config = 'configs/quickstart/simclr.py'
    finished = run('tools/train.py', config, '--work-dir', tmp_path, '--resume')
    fails_with(finished, f'the checkpoint {broken} is truncated')
    broken.unlink()
    finished = run('tools/train.py', config, '--work-dir', tmp_path, '--resume')
    fails_with(finished, f'there is no checkpoint {broken}')


def test_garbage_for_a_checkpoint_is_one_sentence(tmp_path):
    garbage = tmp_path / 'garbage.pth'
    garbage.write_bytes(bytes(range(123, 223)) * 10)
    finished = run(
        'tools/test.py', 'configs/quickstart/simclr.py', garbage, '--work-dir', tmp_path
    )
    fails_with(finished, 'error: a checkpoint cannot be read')
    assert 'weights_only' not in finished.stderr


@pytest.mark.parametrize('workers', [0, 2])
def test_unreadable_image_is_named(tmp_path, workers):
    folder = tmp_path / 'data'
    for split in ('train', 'val'):
        for name in ('a', 'b'):
            (folder / split / name).mkdir(parents=True)
            for number in range(4):
                image = np.full((40, 40, 3), 20 * number, np.uint8)
                Image.fromarray(image).save(folder / split / name / f'{number}.png')
    broken = folder / 'train' / 'b' / '2.png'
    broken.write_bytes(broken.read_bytes()[:40])
    options = [
        f'train_dataloader.dataset.data_root={folder}',
        f'val_dataloader.dataset.data_root={folder}',
        'train_dataloader.batch_size=4',
        f'train_dataloader.num_workers={workers}',
        'model.backbone.depth=18',
        'model.neck.in_channels=512',
        'train_cfg.max_epochs=1',
    ]
    finished = run(
        'tools/train.py',
        'configs/ipirm_simclr_r50.py',
        '--work-dir',
        tmp_path / 'run',
        '--cfg-options',
        *options,
    )
    fails_with(finished, f'error: {broken} cannot be read as an image')
