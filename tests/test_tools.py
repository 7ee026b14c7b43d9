"""What a user sees who makes a mistake."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from helpers import ROOT, STAGE_ONE, fails_with, run_python, run_tool
from PIL import Image

from ipirm_mm import cli
from ipirm_mm.errors import UserError
from ipirm_mm.functional import normalized_mutual_information

run = partial(run_tool, check=False)


@pytest.mark.parametrize('start', [run_tool, pytest.param(run_python, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    'tool',
    ['tools/train.py', 'tools/test.py']
    + [f'projects/laptop/{name}.py' for name in ('demo', 'table2', 'table3', 'table4')],
)
def test_help(tool, start):
    """Also in a new process: a tool itself imports all that it needs."""
    assert '--work-dir' in start(tool, '--help').stdout


@pytest.fixture
def trained(stage_one):
    """A checkpoint with two partitions."""
    return stage_one / 'epoch_5.pth'


SHOW = 'tools/analysis/show_partition.py'


def test_show_partition(trained, tmp_path):
    option = ('--cfg-options', 'train_dataloader.dataset.indices=320')
    finished = run(SHOW, STAGE_ONE, trained, '--out', tmp_path, *option)
    assert finished.returncode == 0, finished.stderr[-2000:]
    lines = finished.stdout.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith('partition'))
    assert all(
        word in lines[start] for word in ('NMI with class', 'bits about factor', 'NMI with 1')
    )
    state = torch.load(trained)['state_dict']
    first, second = state['partitions.assignments'][:2].long()
    sizes = torch.bincount(first).sort(descending=True).values.tolist()
    assert ', '.join(map(str, sizes)) in lines[start + 2]
    nmi = float(normalized_mutual_information(first, second))
    assert lines[start + 3].split()[-1] == f'{nmi:.3f}'
    assert len(list(tmp_path.glob('partition_*.png'))) == 2
    fails_with(
        run(SHOW, STAGE_ONE, trained), 'divide 320 images, but the training set of', 'has 4000'
    )


def test_show_partition_of_a_checkpoint_without_any(trained, tmp_path):
    state = torch.load(trained)['state_dict']
    plain = {key: value for key, value in state.items() if not key.startswith('partitions')}
    torch.save(plain, tmp_path / 'plain.pth')
    fails_with(run(SHOW, STAGE_ONE, tmp_path / 'plain.pth'), 'plain.pth holds no partitions')


def test_benchmark_ssl(trained, tmp_path):
    tool, config = 'tools/benchmark_ssl.py', 'configs/quickstart/simclr.py'
    other = tmp_path / 'epoch_5.pth'
    state = torch.load(trained)['state_dict']
    torch.save(state, other)
    finished = run(tool, config, trained, other)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert finished.stdout.count('all 9 keys of the backbone loaded') == 2
    rows = finished.stdout.splitlines()[-2:]
    # The same weights give the same row; folders tell the two files apart.
    assert rows[0].split()[1:] == rows[1].split()[1:]
    assert rows[0].split()[0] != rows[1].split()[0]
    assert 10 < float(rows[0].split()[1]) <= 100
    del state['backbone.layers.0.conv.weight']
    torch.save(state, other)
    fails_with(
        run(tool, config, other),
        f'{other} does not fit SmallConvNet: it lacks backbone.layers.0.conv.weight; 1 of 9 keys',
    )
    fails_with(
        run(tool, 'configs/baselines/simclr_r50.py', trained),
        'data/vipriors',
        'which is not a folder',
    )


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
    fails_with(
        finished, "VIPriors.data_root is 'data/vipriors'", 'tools/dataset_converters/vipriors.py'
    )


def test_truncated_checkpoint_of_an_automatic_resume_is_named(tmp_path):
    whole = io.BytesIO()
    torch.save(dict(state_dict=dict(weight=torch.zeros(1000))), whole)
    broken = tmp_path / 'epoch_1.pth'
    broken.write_bytes(whole.getvalue()[:2000])
    (tmp_path / 'last_checkpoint').write_text(str(broken))
    config = 'configs/quickstart/simclr.py'
    finished = run('tools/train.py', config, '--work-dir', tmp_path, '--resume')
    fails_with(finished, 'there is no checkpoint to resume', f'{broken} is truncated')
    broken.unlink()
    finished = run('tools/train.py', config, '--work-dir', tmp_path, '--resume')
    fails_with(finished, f'names {broken}, which is not there')


def test_garbage_for_a_checkpoint_is_one_sentence(tmp_path):
    garbage = tmp_path / 'garbage.pth'
    garbage.write_bytes(bytes(range(123, 223)) * 10)
    finished = run(
        'tools/test.py', 'configs/quickstart/simclr.py', garbage, '--work-dir', tmp_path
    )
    fails_with(finished, 'cannot be read, because it is damaged or could run code')
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
        *(
            f'{name}_dataloader.dataset.{key}'
            for name in ('train', 'val')
            for key in ('num_classes=2', 'per_class=4')
        ),
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


@pytest.mark.parametrize(
    'tool,fourth', [('train', '--work-dir=work_dirs/x'), ('test', 'work_dirs/x')]
)
def test_slurm_scripts_hand_everything_to_srun(tmp_path, tool, fourth):
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    script = ROOT / f'tools/slurm_{tool}.sh'
    arguments = ['gpu', 'job', 'configs/a.py', 'work_dirs/x', '--amp', '--cfg-options', 'a=b c']
    environment = {**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'GPUS': '4'}
    finished = subprocess.run(
        ['bash', str(script), *arguments], env=environment, capture_output=True, text=True
    )
    handed = finished.stdout.splitlines()
    assert finished.returncode == 0, finished.stderr
    assert handed[:2] == ['-p', 'gpu'] and '--ntasks=4' in handed and '--gres=gpu:4' in handed
    at = next(place for place, word in enumerate(handed) if word.endswith(f'/{tool}.py'))
    expected = ['configs/a.py', fourth, '--launcher=slurm', '--amp', '--cfg-options', 'a=b c']
    assert handed[at + 1 :] == expected
    short = subprocess.run(['bash', str(script), 'gpu'], capture_output=True, text=True)
    assert short.returncode == 2 and f'usage: slurm_{tool}.sh PARTITION' in short.stderr


@pytest.mark.parametrize(
    'script,arguments',
    [
        ('dist_train.sh', ['config.py', '2']),
        ('dist_test.sh', ['config.py', 'checkpoint.pth', '2']),
        ('slurm_train.sh', ['gpu', 'job', 'config.py', 'work_dir']),
    ],
)
def test_processes_start_with_a_whole_cache_of_yapf(script, arguments, tmp_path):
    """On a fresh machine, the import of mmengine in one of several processes could fail."""
    size = 'stat -c %s "$XDG_CACHE_HOME"/YAPF/*/PatternGrammar*\n'
    python = f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} "$@"\n{size}'
    for name, text in {'python': python, 'srun': f'#!/bin/sh\n{size}'}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {
        **os.environ,
        'PATH': f'{tmp_path}:{os.environ["PATH"]}',
        'XDG_CACHE_HOME': str(tmp_path / 'cache'),
    }
    environment.pop('PYTHON', None)
    finished = subprocess.run(
        ['bash', str(ROOT / 'tools' / script), *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert int(finished.stdout) > 0, finished.stderr


@pytest.mark.parametrize('name', ['model.losses.stages', 'model.losses.3.stages'])
def test_options_that_do_not_fit_the_config_are_named(name, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text("model = dict(losses=[dict(type='OFD')])")
    with pytest.raises(UserError, match=f'--cfg-options {name}: does not fit .* by its number'):
        cli.load_config(str(path), {name: 'last'})
    config = cli.load_config(str(path), {'model.losses.0.stages': 'last'})
    assert config.model.losses[0].stages == 'last'
