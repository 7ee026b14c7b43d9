"""The wheel carries configs, tools and model index; ``python -m ipirm_mm`` runs the tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from ipirm_mm import __main__ as command
from ipirm_mm import resources

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = (
    '--cfg-options',
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'train_dataloader.dataset.indices=128',
    'train_dataloader.batch_size=64',
    'default_hooks.checkpoint.interval=1',
)


def test_tools_are_listed_and_found(monkeypatch, capsys):
    tools = command.find_tools()
    assert {'train', 'test', 'ensemble', 'search_tta', 'show_partition', 'vipriors'} <= set(tools)
    monkeypatch.setattr(sys, 'argv', ['ipirm_mm'])
    command.main()
    printed = capsys.readouterr().out
    lines = {line.split()[0]: line for line in printed.splitlines()[2:]}
    assert set(lines) == set(tools)
    assert all(len(line.split()) > 3 for line in lines.values()), 'each tool says what it is for'
    for typed, sentence in (('trian', 'did you mean train'), ('nothing', 'there is no tool noth')):
        monkeypatch.setattr(sys, 'argv', ['ipirm_mm', typed])
        with pytest.raises(SystemExit, match=sentence):
            command.main()
    monkeypatch.setattr(sys, 'argv', ['ipirm_mm', 'train', '--help'])
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 0
    assert '--auto-scale-lr' in capsys.readouterr().out


def test_a_member_of_an_ensemble_may_be_a_name(monkeypatch, capsys):
    name = 'ipirm_mm::quickstart/student_kl.py'
    monkeypatch.setattr(sys, 'argv', ['ipirm_mm', 'ensemble', name])
    with pytest.raises(SystemExit):
        command.main()
    assert f'{name} is a config: give its checkpoint too' in capsys.readouterr().err


def test_a_checkout_uses_its_own_folders():
    assert resources.resource_root() == ROOT
    assert (ROOT / 'ipirm_mm' / 'py.typed').is_file()


def run(*parts, cwd, check=True):
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    environment |= dict(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='', PYTHONWARNINGS='ignore')
    finished = subprocess.run(
        [str(part) for part in parts],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    if check:
        assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return finished


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """The Python of a fresh environment with the wheel, and the names of the wheel's files.

    Other packages are those of this environment, by a path: nothing is downloaded.
    """
    folder = tmp_path_factory.mktemp('wheel')
    ignored = shutil.ignore_patterns(
        '.git', '.venv*', 'work_dirs', 'build', '*.egg-info', '.*cache'
    )
    shutil.copytree(ROOT, folder / 'source', ignore=ignored, symlinks=True)
    flags = ('--no-deps', '--no-build-isolation', '--quiet', '--disable-pip-version-check')
    pip = (sys.executable, '-m', 'pip')
    run(*pip, 'wheel', folder / 'source', *flags, '--wheel-dir', folder, cwd=folder)
    (wheel,) = folder.glob('*.whl')
    run(sys.executable, '-m', 'venv', '--without-pip', folder / 'venv', cwd=folder)
    python = folder / 'venv/bin/python'
    where = 'import sysconfig; print(sysconfig.get_path("purelib"))'
    site = Path(run(python, '-c', where, cwd=folder).stdout.strip())
    (site / 'others.pth').write_text(sysconfig.get_path('purelib') + '\n')
    run(*pip, 'install', '--no-deps', '--quiet', '--target', site, wheel, cwd=folder)
    return python, set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.slow
def test_the_wheel_holds_what_a_checkout_has(installed):
    _, names = installed
    for folder in ('configs', 'tools'):
        for path in (ROOT / folder).rglob('*'):
            if path.is_file() and '__pycache__' not in path.parts:
                assert f'ipirm_mm/.mim/{path.relative_to(ROOT).as_posix()}' in names
    assert {'ipirm_mm/.mim/model-index.yml', 'ipirm_mm/py.typed'} <= names
    assert 'ipirm_mm/datasets/data/fashion_mnist_50.npz' in names
    assert not [name for name in names if name.startswith(('tests/', 'configs/', 'tools/'))]
    assert not [name for name in names if '__pycache__' in name]


@pytest.mark.slow
def test_the_wheel_trains_and_tests_in_an_empty_folder(installed, tmp_path):
    python, _ = installed
    where = run(python, '-c', 'import ipirm_mm; print(ipirm_mm.__file__)', cwd=tmp_path)
    assert Path(where.stdout.strip()).is_relative_to(python.parents[1])
    tool = (python, '-m', 'ipirm_mm')
    name = 'ipirm_mm::quickstart/ipirm_simclr.py'
    run(*tool, 'train', name, '--work-dir', 'first', *OPTIONS, cwd=tmp_path)
    assert (tmp_path / 'first/epoch_1.pth').is_file()

    own = tmp_path / 'own.py'
    own.write_text(
        f"_base_ = '{name}'\n"
        'train_cfg = dict(max_epochs=1, val_interval=1)\n'
        'train_dataloader = dict(batch_size=64, dataset=dict(indices=128))\n'
        'default_hooks = dict(checkpoint=dict(interval=1))\n'
    )
    run(*tool, 'train', 'own.py', cwd=tmp_path)
    checkpoint = 'work_dirs/own/epoch_1.pth'
    printed = run(*tool, 'test', 'own.py', checkpoint, cwd=tmp_path)
    assert 'knn/top1' in printed.stdout + printed.stderr

    launcher = (python, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2')
    launcher += ('-m', 'ipirm_mm')
    run(*launcher, 'train', 'own.py', '--work-dir', 'two', '--launcher', 'pytorch', cwd=tmp_path)
    assert (tmp_path / 'two/epoch_1.pth').is_file()

    code = (
        'import ipirm_mm, mmpretrain; assert "ipirm_simclr_r50" in mmpretrain.list_models(); '
        'print(mmpretrain.get_model("quickstart_ipirm_simclr")._config.filename)'
    )
    filename = Path(run(python, '-c', code, cwd=tmp_path).stdout.strip().splitlines()[-1])
    assert '.mim' in filename.parts and filename.is_relative_to(python.parents[1])

    finished = run(*tool, 'train', 'configs/kl_r50.py', cwd=tmp_path, check=False)
    assert finished.returncode == 1
    assert 'the config of this name is ipirm_mm::distill/kl_r50.py' in finished.stderr
    listing = run(*tool, cwd=tmp_path).stdout
    assert 'train ' in listing and 'search_tta ' in listing
