"""One call each on a folder of images: pretrain, distill, predict."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, fails_with, open_in_browser, run_tool
from mmpretrain import get_model
from PIL import Image

import ipirm_mm
from ipirm_mm.apis import image_folder
from ipirm_mm.apis.image_folder import (
    choose_batch_size,
    choose_epochs,
    choose_image_size,
    choose_sizes,
    choose_subsets,
    read_folder,
)
from ipirm_mm.apis.pretraining import pretraining_config
from ipirm_mm.apis.runs import last_accuracy
from ipirm_mm.errors import UserError

MODES = ('RGB', 'L', 'P', 'RGBA', 'CMYK', 'I;16', '1')
SMALL = dict(model='resnet18', image_size=64, batch_size=8, workers=0)


def picture(path, number, color):
    """A picture of a mode and size of its own, of noise around a color."""
    draw = np.random.default_rng(number)
    size = (*draw.integers(40, 120, 2), 3)
    pixels = (np.asarray(color) + draw.integers(0, 60, size)).astype(np.uint8)
    image, mode = Image.fromarray(pixels), MODES[number % len(MODES)]
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == 'I;16':
        gray = np.asarray(image.convert('L')).astype(np.uint16) * 257
        Image.fromarray(gray).save(path.with_suffix('.png'))
    elif mode in ('RGB', 'L', 'CMYK'):
        image.convert(mode).save(path.with_suffix('.jpg'))
    else:
        image.convert(mode).save(path.with_suffix('.PNG'))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('pictures')
    for number in range(40):
        color = ((200, 0, 0), (0, 0, 180))[number % 2]
        picture(root / ('red', 'blue')[number % 2] / 'deeper' / f'{number}', number, color)
    return root


@pytest.fixture(scope='module')
def trained(folder, tmp_path_factory):
    """The folder of a finished pretraining of two epochs, trained by the command."""
    out = tmp_path_factory.mktemp('trained') / 'run'
    flags = ('--model', 'resnet18', '--image-size', 64, '--batch-size', 8, '--workers', 0)
    run_tool('tools/pretrain.py', '--data', folder, '--out', out, '--epochs', 2, *flags)
    return out


def test_sizes_fit_the_images(tmp_path, monkeypatch):
    assert [choose_batch_size(n) for n in (16, 40, 300, 1000, 1024, 10**6)] == [
        8,
        8,
        64,
        128,
        256,
        256,
    ]
    assert [choose_subsets(n) for n in (8, 64, 256, 1024)] == [2, 12, 50, 50]
    assert [choose_epochs(n) for n in (300, 50_000, 100_000, 10**6)] == [800, 800, 400, 100]
    for number, side in enumerate([30] * 8 + [130] * 12):
        Image.new('RGB', (side, side + 50)).save(tmp_path / f'{number}.png')
    found = read_folder(tmp_path, tmp_path.parent / 'out')
    assert (found.count, found.classes, found.smallest_class, found.short_side) == (20, (), 0, 130)
    assert choose_image_size(found) == 128


def test_folders_are_classes_if_each_image_is_in_one(folder, tmp_path):
    assert read_folder(folder, tmp_path).classes == ('blue', 'red')
    copy = tmp_path / 'copy'
    shutil.copytree(folder, copy)
    (copy / 'few').mkdir()
    for number in range(9):
        Image.new('RGB', (50, 50)).save(copy / f'few/{number}.png')
    with pytest.raises(UserError, match='3 classes, the smallest of 9 images'):
        ipirm_mm.pretrain(copy, tmp_path / 'out', labels=True, **SMALL)
    Image.new('RGB', (50, 50)).save(copy / 'loose.png')
    assert read_folder(copy, tmp_path / 'out').classes == ()
    with pytest.raises(UserError, match='labels=True needs each image'):
        ipirm_mm.pretrain(copy, tmp_path / 'out', labels=True, **SMALL)


def test_what_cannot_be_trained_is_refused_before_anything_is_written(folder, tmp_path):
    empty = tmp_path / 'empty'
    empty.mkdir()
    for data, out, words in (
        (tmp_path / 'none', 'out', 'no such folder'),
        (empty, 'out', 'has 0 images, but at least 16'),
        (folder, folder / 'out', 'is in the folder of the images'),
    ):
        with pytest.raises(UserError, match=words):
            ipirm_mm.pretrain(data, tmp_path / out, **SMALL)
    for option, value, words in (
        ('model', 'resnet51', "model must be one of .*'resnet50'"),
        ('method', 'ipirm', "method must be one of .*'ipirm-simclr'"),
        ('epochs', 0, 'epochs must be at least 1'),
        ('num_subsets', 1, 'num_subsets must be at least 2'),
        ('batch_size', 64, 'drop_last'),
    ):
        with pytest.raises(UserError, match=words):
            ipirm_mm.pretrain(folder, tmp_path / 'out', **{**SMALL, option: value})
    for number in range(20):
        (empty / f'{number}.jpg').write_bytes(b'no image')
    with pytest.raises(UserError, match='cannot be read as an image'):
        ipirm_mm.pretrain(empty, tmp_path / 'out', **SMALL)
    assert not (tmp_path / 'out').exists() and image_folder.LEAST_IMAGES == 16


def test_encoder_is_read_by_mmpretrain_and_torchvision(trained):
    from torchvision.models import resnet18

    images = torch.randn(3, 3, 64, 64)
    state = torch.load(trained / 'encoder.pth', weights_only=True)
    theirs = resnet18()
    theirs.fc = torch.nn.Identity()
    theirs.load_state_dict(state)
    files = (str(trained / f'encoder_mmpretrain.{ending}') for ending in ('py', 'pth'))
    ours = get_model(next(files), pretrained=next(files))
    with torch.no_grad():
        (features,) = ours.eval().extract_feat(images)
        torch.testing.assert_close(theirs.eval()(images), features, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_encoder_is_read_by_timm(trained):
    timm = pytest.importorskip('timm')
    model = timm.create_model('resnet18', num_classes=0)
    model.load_state_dict(torch.load(trained / 'encoder.pth', weights_only=True))
    ours = get_model(
        str(trained / 'encoder_mmpretrain.py'), pretrained=str(trained / 'encoder_mmpretrain.pth')
    )
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        (features,) = ours.eval().extract_feat(images)
        torch.testing.assert_close(model.eval()(images), features, rtol=1e-5, atol=1e-5)


def test_page_shows_the_training(trained):
    page = (trained / 'index.html').read_text()
    for words in ('All 2 epochs are done', 'k-NN accuracy', 'Partition 1', 'Nearest neighbors'):
        assert words in page
    assert 'http-equiv="refresh"' not in page and '<script' not in page
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    rows = json.loads((trained / 'page/epochs.json').read_text())
    assert [row['epoch'] for row in rows] == [1, 2]
    assert all({'loss', 'risk_batch', 'knn', 'seconds'} <= row.keys() for row in rows)
    events = list(trained.rglob('events.out.tfevents*'))
    assert events and b'neighbors' in events[0].read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which('chromium'), reason='needs Chromium')
@pytest.mark.parametrize('width', [1280, 390])
def test_page_in_a_browser(trained, tmp_path, width):
    assert open_in_browser(trained / 'index.html', width, tmp_path / 'page.png') == []
    picture = np.asarray(Image.open(tmp_path / 'page.png').convert('L'))
    assert picture.shape == (2400, width)
    # Nothing reaches the right edge: the page is as wide as the window.
    assert picture[:, -4:].min() > 200 and picture[:, : width // 2].min() < 100


def test_a_finished_run_is_left_as_it_is(folder, trained):
    before = (trained / 'encoder.pth').stat().st_mtime_ns, (trained / 'epoch_2.pth').read_bytes()
    ipirm_mm.pretrain(folder, trained, epochs=2, **SMALL)
    assert (trained / 'epoch_2.pth').read_bytes() == before[1]
    with pytest.raises(UserError, match=r'max_epochs was 2 and is now 3\): to go on'):
        ipirm_mm.pretrain(folder, trained, epochs=3, **SMALL)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_the_config_trains_alike(folder, trained, tmp_path):
    """Interrupted by Ctrl-C, continued by the same call: the weights of an uninterrupted run."""
    code = (
        'import os, signal, sys; import ipirm_mm\n'
        'from mmengine.hooks import Hook\n'
        'from mmpretrain.registry import HOOKS\n'
        'import ipirm_mm.apis.runs as runs\n'
        'class Stop(Hook):\n'
        '    def after_train_iter(self, runner, *a, **k):\n'
        '        if runner.iter == 6: os.kill(os.getpid(), signal.SIGINT)\n'
        'add = runs.add_training_hooks\n'
        'runs.add_training_hooks = lambda r: (r.register_hook(Stop()), add(r))\n'
        f'ipirm_mm.pretrain({str(folder)!r}, sys.argv[1], epochs=2, **{SMALL!r})\n'
    )
    run = tmp_path / 'run'
    command = [sys.executable, '-W', 'ignore', '-c', code, str(run)]
    stopped = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert stopped.returncode == 143, stopped.stderr[-2000:]
    assert 'the same command goes on' in stopped.stdout + stopped.stderr
    assert not (run / 'encoder.pth').exists() and (run / 'iter_7.pth').exists()
    assert 'http-equiv="refresh"' in (run / 'index.html').read_text()
    ipirm_mm.pretrain(folder, run, epochs=2, **SMALL)
    run_tool('tools/train.py', run / 'config.py', '--work-dir', tmp_path / 'again')
    expected = torch.load(trained / 'encoder.pth', weights_only=True)
    for found in (run, tmp_path / 'again'):
        state = torch.load(found / 'encoder.pth', weights_only=True)
        assert all(torch.equal(state[key], value) for key, value in expected.items())


def test_tools_measure_a_training_by_its_config(trained):
    config, checkpoint = trained / 'config.py', trained / 'epoch_2.pth'
    table = run_tool('tools/benchmark_ssl.py', config, checkpoint, '--test', '--k', 5).stdout
    assert 'knn_bank: 32 of 32 images used' in table
    assert 'test_dataloader: 8 of 8 images used' in table and 'linear probe' in table


@pytest.mark.slow
def test_the_test_tool_measures_a_training_by_its_config(trained):
    output = run_tool('tools/test.py', trained / 'config.py', trained / 'epoch_2.pth').stdout
    assert 'knn/top1' in output


@pytest.mark.parametrize('method', ['simclr', 'simsiam'])
def test_controls_differ_from_the_method_in_the_partition_only(folder, tmp_path, method):
    found = read_folder(folder, tmp_path)
    sizes = choose_sizes(found, 8, 64, 0)
    configs = {
        name: pretraining_config(found, found.classes, 'resnet18', name, 8, sizes, 3, 0)
        for name in (f'ipirm-{method}', f'{method}-penalty-only', f'{method}-random-partition')
    }
    ours, alone, random = configs.values()
    for control in (alone, random):
        # Of SimSiam alone the weight that does best.
        same = not (control is alone and method == 'simsiam')
        assert (control.model.head.irm_weight == ours.model.head.irm_weight) == same
        assert control.model.head.irm_warmup_epochs == ours.model.head.irm_warmup_epochs == 2
        for section in ('train_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg'):
            assert control.get(section) == ours.get(section)
    hooks = [config.custom_hooks[0] for config in (ours, random)]
    assert [hook.solver.strategy for hook in hooks] == ['kmeans', 'random']
    assert all((hook.interval, hook.max_partitions) == (2, 1) for hook in hooks)
    assert {config.model.num_subsets for config in configs.values()} == {3}
    assert alone.custom_hooks[0].max_partitions == 0 and alone.model.head.penalize_batch


@pytest.mark.slow
@pytest.mark.parametrize(
    'method',
    ['ipirm-simsiam', 'simclr', 'simsiam', 'simclr-penalty-only', 'simclr-random-partition'],
)
def test_other_methods(folder, tmp_path, method):
    encoder = ipirm_mm.pretrain(folder, tmp_path, method=method, epochs=1, **SMALL)
    assert encoder.is_file()


@pytest.mark.slow
@pytest.mark.parametrize('loss', ['ofd', 'kl'])
def test_distill_and_predict(folder, trained, tmp_path, loss, capsys):
    more = dict(loss=loss, epochs=3, **SMALL)
    student = ipirm_mm.distill(folder, tmp_path, trained / 'encoder.pth', **more)
    table = capsys.readouterr().out
    assert re.search(r'teacher +\d+\.\d\n *student +\d+\.\d\n', table), table[-500:]
    state = student.read_bytes()
    assert ipirm_mm.distill(folder, tmp_path, trained / 'encoder.pth', **more) == student
    assert student.read_bytes() == state
    found = ipirm_mm.predict(folder, tmp_path)
    assert len(found) == 40 and {Path(one['image']).parts[-3] for one in found} == {'red', 'blue'}
    assert sorted(found[0]['names']) == ['blue', 'red']
    assert sum(found[0]['scores']) == pytest.approx(1, abs=1e-5)
    merged = ipirm_mm.predict(folder / 'red', tmp_path, tta_crops='ten', topk=1)
    assert len(merged) == 20 and len(merged[0]['labels']) == 1
    for flags in ((), ('--tta-crops', 'ten')):  # its data set is within a wrapper
        output = run_tool('tools/test.py', tmp_path / 'student.py', student, *flags).stdout
        assert 'accuracy/top1' in output
    output = run_tool('tools/search_tta.py', tmp_path / 'student/config.py', student).stdout
    assert 'ten' in output


@pytest.mark.slow
def test_trainings_of_one_second_keep_their_curves_apart(folder, trained, tmp_path, monkeypatch):
    """MMEngine names a runner by its config's file and the second; those of one name share logs."""
    began = int(time.time()) + 0.5
    clock = types.SimpleNamespace(**{**vars(time), 'time': lambda: began})
    monkeypatch.setattr('mmengine.runner.runner.time', clock)
    more = dict(loss='kl', epochs=1, **SMALL)
    ipirm_mm.distill(folder, tmp_path, trained / 'encoder.pth', **more)
    for name in ('teacher', 'student'):
        assert last_accuracy(tmp_path / name) != '-', name


def test_accuracy_of_a_training_that_ended_before_its_evaluation(tmp_path):
    assert last_accuracy(tmp_path) == '-'
    file = tmp_path / '20260101_000000/vis_data/scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text('{"loss": 1.0}\n')
    assert last_accuracy(tmp_path) == '-'
    file.write_text('{"accuracy/top1": 40.0}\n{"accuracy/top1": 51.25}\n{"loss": 1.0}\n{"acc')
    assert last_accuracy(tmp_path) == '51.2'


def test_distill_says_what_it_needs(folder, tmp_path):
    run = lambda **more: ipirm_mm.distill(folder, tmp_path / 'out', **more)  # noqa: E731
    with pytest.raises(UserError, match='give encoder.pth, which pretrain writes'):
        run(encoder=tmp_path / 'none.pth')
    torch.save({}, tmp_path / 'encoder.pth')
    with pytest.raises(UserError, match="loss must be one of \\('ofd', 'kl'\\)"):
        run(encoder=tmp_path / 'encoder.pth', loss='dkd')
    copy = tmp_path / 'copy'
    shutil.copytree(folder, copy)
    (copy / 'amber').mkdir()  # the first class by name: it would shift the numbers of the others
    with pytest.raises(UserError, match='folders without an image, .*: amber; remove them'):
        ipirm_mm.distill(copy, tmp_path / 'out', tmp_path / 'encoder.pth', **SMALL)
    with pytest.raises(UserError, match='there is no config'):
        ipirm_mm.predict(folder, tmp_path / 'model')
    finished = run_tool(
        'tools/distill.py', '--data', folder, '--encoder', 'none', '--out', tmp_path, check=False
    )
    fails_with(finished, 'give encoder.pth')
