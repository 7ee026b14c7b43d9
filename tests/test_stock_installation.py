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

import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
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
    shutil.copytree(mim / 'configs/_base_', copy / 'configs/_base_')
    shutil.copytree(ROOT / 'configs', copy / 'configs' / 'ipirm')
    return python, copy


@pytest.mark.slow
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


@pytest.fixture
def vipriors(tmp_path):
    """Eight images of two classes in the folders of the challenge's data."""
    data = tmp_path / 'vipriors'
    generator = np.random.default_rng(0)
    for split in ('train', 'val'):
        for name in ('n01', 'n02'):
            for number in range(2):
                path = data / split / name / f'{number}.JPEG'
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = generator.integers(0, 256, (240, 260, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
    return data


@pytest.mark.parametrize(
    'name,more',
    [
        pytest.param('ipirm_simsiam_r50', (), marks=pytest.mark.slow),
        pytest.param('report/ipirm_simclr_r50_report', (), marks=pytest.mark.slow),
        pytest.param(
            'ours/ipirm_simsiam_r50_ours',
            ('model.num_subsets=2', 'model.head.irm_warmup_epochs=1'),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_full_scale_config_trains_on_vipriors(name, more, installation, vipriors, tmp_path):
    """With ResNet-18, which takes less time than ResNet-50; tests/test_configs.py steps that."""
    python, stock = installation
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    loaders += ('custom_hooks.1.bank_dataloader', 'custom_hooks.1.query_dataloader')
    options = [
        f'{loader}.{key}={value}'
        for loader in loaders
        for key, value in (
            ('batch_size', 2),
            ('num_workers', 0),
            ('persistent_workers', False),
            ('dataset.data_root', vipriors),
            ('dataset.num_classes', 2),
            ('dataset.per_class', 2),
        )
    ]
    printed = run(
        python,
        stock / 'tools/train.py',
        stock / f'configs/ipirm/{name}.py',
        '--work-dir',
        tmp_path / 'work',
        '--cfg-options',
        'train_cfg.max_epochs=2',
        'train_cfg.val_interval=2',
        'custom_hooks.0.interval=1',
        'default_hooks.logger.interval=1',
        'model.backbone.depth=18',
        'model.neck.in_channels=512',
        *options,
        *more,
    )
    assert 'Partition 1 before epoch 2' in printed
    assert 'knn/top1' in printed and ('simsiam' in name) == ('feature_std' in printed)


@pytest.mark.slow
def test_stock_tta_takes_ours(installation, vipriors, tmp_path):
    """MMPretrain's ``tools/test.py --tta`` gives the scores that ours gives."""
    python, stock = installation
    cfg = Config.fromfile(stock / 'configs/ipirm/baselines/supervised_r50.py')
    # In the file: the tools merge --cfg-options into the model after they have wrapped it.
    options = {
        'model.backbone.depth': 18,
        'model.head.in_channels': 512,
        'test_dataloader.dataset.data_root': str(vipriors),
        'test_dataloader.dataset.num_classes': 2,
        'test_dataloader.dataset.per_class': 2,
        'test_dataloader.num_workers': 0,
        'test_dataloader.persistent_workers': False,
    }
    cfg.merge_from_dict(options)
    config = tmp_path / 'small.py'
    cfg.dump(config)
    torch.manual_seed(0)
    checkpoint = tmp_path / 'r18.pth'
    model = MODELS.build({**cfg.model, 'data_preprocessor': cfg.data_preprocessor})
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    scores = []
    for tool, flags in (
        (stock / 'tools/test.py', ['--tta']),
        (ROOT / 'tools/test.py', ['--tta']),
        (ROOT / 'tools/test.py', ['--tta-crops', 'ten', '--tta-policy', 'tsharpen']),
        (ROOT / 'tools/test.py', []),
    ):
        out = tmp_path / f'{len(scores)}.pkl'
        files = [config, checkpoint, '--work-dir', tmp_path / 'work', '--out', out]
        run(python, tool, *files, *flags)
        loaded = mmengine.load(out)
        scores.append(torch.stack([torch.as_tensor(one['pred_score']) for one in loaded]))
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(scores[0], scores[2])
    assert not torch.allclose(scores[0], scores[3], rtol=0, atol=1e-6)
