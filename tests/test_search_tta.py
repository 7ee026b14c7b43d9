"""The command that tools/search_tta.py prints has to run, and to give what was printed."""

from __future__ import annotations

import io
import re
import runpy
import shlex
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from helpers import write_cropped_config
from mmengine.config import Config
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import MODELS

from ipirm_mm.evaluation import load_predictions
from ipirm_mm.models.utils import plain_classifier

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'configs/quickstart/student_scratch.py'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Random weights of a classifier."""
    torch.manual_seed(0)
    model = MODELS.build(plain_classifier(Config.fromfile(ROOT / CONFIG)))
    path = tmp_path_factory.mktemp('weights') / 'weights of seed 0.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


def run_tool(*words):
    """Run a tool in this process; returns what it printed."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(sys, 'argv', [*map(str, words)])
        patch.setattr(sys, 'stdout', out)
        runpy.run_path(words[0], run_name='__main__')
    return out.getvalue()


def test_each_choice_is_one_that_the_test_tool_takes(checkpoint, monkeypatch):
    monkeypatch.chdir(ROOT)
    search = runpy.run_path('tools/search_tta.py')
    test = runpy.run_path('tools/test.py')
    given = ['--cfg-options', 'val_dataloader.num_workers=0', 'a.b="[1, 2]"']
    for crops in (search['PLAIN'], *search['VIEWS']['ten']):
        for resize, crop_size in ((None, None), ([256], [224])):
            args = Namespace(
                config=CONFIG, checkpoint=str(checkpoint), resize=resize, crop_size=crop_size
            )
            monkeypatch.setattr(sys, 'argv', ['search_tta.py', *given, '--rows', '3'])
            row = dict(crops=crops, policy='mean', resize=256, crop_size=224)
            words = shlex.split(search['command'](args, row))
            assert words[:4] == ['python', 'tools/test.py', CONFIG, str(checkpoint)]
            monkeypatch.setattr(sys, 'argv', words[1:])
            parsed = test['parse_args']()
            assert parsed.cfg_options == {'val_dataloader.num_workers': 0, 'a.b': [1, 2]}
            plain = crops == search['PLAIN']
            assert parsed.tta_crops == (None if plain else crops)
            assert parsed.tta_resize == (256 if resize and not plain else None)
            assert parsed.tta_crop_size == (224 if crop_size and not plain else None)


def test_pairs_of_sizes_without_room_are_left_out(checkpoint, tmp_path):
    """Of sizes that each fit some other size; where image and crop are equal, there are flips."""
    config = tmp_path / 'cropped.py'
    write_cropped_config(config, CONFIG)
    given = ['tools/search_tta.py', config, checkpoint, '--work-dir', tmp_path, '--rows', 99]
    sizes = ['--resize', 28, 32, '--crop-size', 24, 28, 32]
    printed = run_tool(*given, '--policies', 'mean', *sizes)
    assert printed.count('left out: a crop of 32x32 does not fit the image of 28 pixels') == 1
    found = re.findall(r'^ *(28|32) +(\d+) +(\w+) +mean', printed, re.M)
    every, flips = ('center', 'five', 'flip', 'ten'), ('center', 'flip')
    room = {(28, 24): every, (28, 28): flips, (32, 24): every, (32, 28): every, (32, 32): flips}
    assert sorted(found) == [(str(a), str(b), c) for (a, b), views in room.items() for c in views]
    with pytest.raises(SystemExit):
        run_tool(*given, '--resize', 28, '--crop-size', 32)


def test_the_printed_command_gives_the_printed_accuracy(checkpoint, tmp_path):
    printed = run_tool(
        'tools/search_tta.py',
        CONFIG,
        checkpoint,
        *('--crop-size', '24', '--policies', 'mean', '--work-dir', tmp_path),
        *('--cfg-options', 'val_dataloader.dataset.indices=200', 'val_dataloader.num_workers=0'),
    )
    lines = printed.splitlines()
    rule = next(n for n, line in enumerate(lines) if line.startswith('---'))
    best = lines[rule + 1].split()
    accuracy = next(float(word) for word in best[::-1] if word.replace('.', '').isdigit())
    python, *words = shlex.split(lines[-1])
    assert python == 'python'
    out = tmp_path / 'out.pkl'
    # On the split that was searched; the command as printed is for the test split.
    run_tool(*words, *('--val', '--out', out, '--work-dir', tmp_path))
    correct = load_predictions(str(out)).correct()
    assert len(correct) == 200
    assert f'{100 * float(correct.double().mean()):.2f}' == f'{accuracy:.2f}'


def test_probabilities_are_not_reused_for_other_images(tmp_path):
    """Of the same config, whose list or pictures have changed."""
    cache_file = runpy.run_path(str(ROOT / 'tools/search_tta.py'))['cache_file']
    config = Config(dict(model={}, val_dataloader=dict(dataset={})), filename=__file__)
    args = Namespace(checkpoint=str(tmp_path / 'c.pth'), work_dir=tmp_path)
    (tmp_path / 'c.pth').touch()
    (tmp_path / 'a.png').write_bytes(b'one')

    def name(text):
        (tmp_path / 'list.txt').write_text(text)
        data = CustomDataset(data_prefix=str(tmp_path), ann_file=str(tmp_path / 'list.txt'))
        return cache_file(config, data, args)

    first = name('a.png 0\n')
    assert name('a.png 0\n') == first
    assert len({first, name('a.png 1\n'), name('a.png 0\nb.png 0\n')}) == 3
    (tmp_path / 'a.png').write_bytes(b'another')
    assert name('a.png 0\n') != first
