"""The tools that draw Figures 2 (a) and 2 (b) of the report."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
import torch
from helpers import ROOT, STAGE_ONE, fails_with, run_tool
from mmpretrain.registry import MODELS
from PIL import Image

from ipirm_mm.cli_encoders import (
    add_encoder_arguments,
    check_encoder_arguments,
    encoder_names,
    without_infinity,
)
from ipirm_mm.evaluation import EncoderFiles
from ipirm_mm.visualization import (
    Accuracy,
    EncoderResponse,
    FilterPanel,
    FilterRow,
    draw_filters,
    draw_responses,
)
from ipirm_mm.visualization.filter_figure import gradient_picture

FIRST, SECOND = 'tools/analysis/figure2a.py', 'tools/analysis/figure2b.py'
FEW = ('--num-images', '40', '--draws', '1')


@pytest.mark.slow
def test_figure2a(stage_one, tmp_path):
    encoder = f'{STAGE_ONE}:{stage_one / "epoch_5.pth"}'
    out = tmp_path / 'new/a.png'
    given = ('--random-splits', '2', '--share', '0.25', '--names', 'one', 'two', '--out', out)
    finished = run_tool(FIRST, encoder, encoder, *FEW, *given)
    one, two = json.loads(out.with_suffix('.json').read_text())
    assert (one.pop('name'), two.pop('name')) == ('one', 'two')
    assert one == two  # the same encoder sees the same images
    assert list(one['responses']) == ['crop', 'flip'] and one['color']
    width = len(one['dimensions'])
    assert sorted(one['dimensions']) == list(range(width)) and one['first'] == width // 4
    mean = np.array(list(one['responses'].values())).mean(0)
    assert (np.diff(mean) <= 1e-12).all() and mean[0] > mean[-1] > 0
    for part, count in (
        ('all', width),
        ('equivariant', width // 4),
        ('unrelated', width * 3 // 4),
    ):
        found = one['accuracy'][part]
        assert found['interval'][0] <= found['value'] <= found['interval'][1]
        assert len(found['random']) == (0 if part == 'all' else 2)
        row = next(line for line in finished.stdout.splitlines() if f'{part}  ' in line
                   and f' {count} ' in line)  # fmt: skip
        assert f'{found["value"]:.1f}' in row
    # The accuracy of all dimensions is that of the tool that compares encoders.
    other = run_tool('tools/benchmark_ssl.py', STAGE_ONE, stage_one / 'epoch_5.pth')
    assert f' {one["accuracy"]["all"]["value"]:.1f} ' in other.stdout.splitlines()[-1]
    assert Image.open(out).size[0] > 600
    assert not list(out.parent.glob('*.part'))


def test_figure2b(stage_one, tmp_path):
    encoder = f'{STAGE_ONE}:{stage_one / "epoch_5.pth"}'
    out = tmp_path / 'b.png'
    given = ('--clusters', '3', '--per-filter', '2', '--out', out)
    finished = run_tool(SECOND, encoder, *FEW, *given)
    rows = json.loads(out.with_suffix('.json').read_text())
    layers = [row['layer'] for row in rows]
    assert layers == ['backbone.layers.1'] * 3 + ['backbone.layers.2'] * 3
    for layer in set(layers):
        own = [row for row in rows if row['layer'] == layer]
        assert sum(row['size'] for row in own) == own[0]['clustered'] <= 64
        assert len({row['filter'] for row in own}) == 3
    # Forty images, spread over the 500.
    numbers = [number for row in rows for number in row['images']]
    assert max(numbers) > 40 and len(rows[0]['images']) == 2
    assert all(f'  {row["filter"]}  ' in finished.stdout for row in rows)
    assert Image.open(out).size[0] > 300


RESNET = """
default_scope = 'mmpretrain'
model = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=512))
data_preprocessor = dict(num_classes=2, mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True)
start = [dict(type='LoadImageFromFile')]
augment = [dict(type='RandomResizedCrop', scale=32), dict(type='RandomFlip', prob=0.5)]
test = [dict(type='ResizeEdge', scale=36), dict(type='CenterCrop', crop_size=32)]
pack = [dict(type='PackInputs')]
train_dataloader = dict(batch_size=2, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root='{root}/img', pipeline=start + augment + pack))
val_dataloader = dict(batch_size=2, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root='{root}/img', pipeline=start + test + pack))
"""


@pytest.mark.slow
def test_classifier_of_mmpretrain(tmp_path):
    """A config without anything of ours: a ResNet, which uses each in-place ReLU several times."""
    generator = np.random.default_rng(0)
    for number in range(6):
        folder = tmp_path / 'img' / 'ab'[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        noise = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f'{number}.png')
    torch.manual_seed(0)
    backbone = MODELS.build(dict(type='ResNet', depth=18))
    torch.save(dict(state_dict=backbone.state_dict()), tmp_path / 'resnet.pth')
    config = tmp_path / 'config.py'
    config.write_text(RESNET.format(root=tmp_path))
    encoder, out = f'{config}:{tmp_path / "resnet.pth"}', tmp_path / 'b.png'
    run_tool(SECOND, encoder, *FEW, '--per-filter', '2', '--out', out)
    rows = json.loads(out.with_suffix('.json').read_text())
    assert {row['layer'] for row in rows} == {'backbone.layer3', 'backbone.layer4'}
    assert {row['color'] for row in rows} == {None}
    out.unlink()
    run = lambda *given: run_tool(*given, '--out', out, check=False)  # noqa: E731
    fails_with(
        run(SECOND, encoder, *FEW, '--layers', 'backbone.layer9'),
        'has no layer backbone.layer9: there are backbone.conv1',
    )
    fails_with(run(FIRST, encoder), f'{config} has no knn_bank: the first config needs')
    assert not out.exists() and not list(tmp_path.glob('*.part'))


def test_values_out_of_range(capsys):
    parser = argparse.ArgumentParser()
    add_encoder_arguments(parser, 'a.png')
    check_encoder_arguments(parser, parser.parse_args(['a.py:b.pth', '--names', 'a']))
    for given, message in (
        (('--num-images', '1'), '--num-images must be at least 2'),
        (('--draws', '0'), '--draws at least 1'),
        (('--out', 'x.jpg'), '--out must be a .png file, but is x.jpg'),
        (('--names', 'a', 'b'), '--names must be 1 different names'),
    ):
        with pytest.raises(SystemExit):
            check_encoder_arguments(parser, parser.parse_args(['a.py:b.pth', *given]))
        assert message in capsys.readouterr().err


def test_names_of_encoders():
    one = EncoderFiles('ipirm_mm::quickstart/simclr.py', 'runs/a/epoch_1.pth')
    assert encoder_names([one]) == ['simclr']
    assert encoder_names([one, one._replace(config='x/ipirm.py')]) == ['simclr', 'ipirm']
    later = one._replace(checkpoint='runs/a/epoch_2.pth')
    assert encoder_names([one, later]) == ['epoch_1.pth', 'epoch_2.pth']
    other = one._replace(checkpoint='runs/b/epoch_1.pth')
    assert encoder_names([one, other]) == ['a/epoch_1.pth', 'b/epoch_1.pth']
    assert encoder_names([one, one]) == ['1: a/epoch_1.pth', '2: a/epoch_1.pth']


def test_json_has_no_infinity():
    value = dict(a=[1.0, float('inf')], b=(float('nan'), 'x'), c=3)
    assert without_infinity(value) == dict(a=[1.0, None], b=[None, 'x'], c=3)


def test_gradient_picture():
    gradient = np.zeros((3, 2, 2))
    gradient[0, 0, 0], gradient[2, 1, 1], gradient[1, 0, 1] = 4.0, -4.0, 0.05
    picture = gradient_picture(gradient)
    assert picture.shape == (2, 2, 3)
    assert picture[0, 0].tolist() == [255, 128, 128] and picture[1, 1].tolist() == [128, 128, 0]
    assert picture[0, 1].tolist() == [128, 128, 128]  # near zero
    assert (gradient_picture(np.zeros((3, 2, 2))) == 128).all()
    assert gradient_picture(np.ones((1, 4, 5))).shape == (4, 5, 3)


@pytest.mark.parametrize('encoders', [1, 3])
@pytest.mark.parametrize('color', [False, True])
def test_drawing_of_responses(encoders, color):
    responses = {f'augmentation {n}': np.linspace(2, 0, 9) for n in range(5)}
    responses['augmentation 1'][0] = np.inf
    extra = dict(color=np.ones(9)) if color else {}
    accuracy = {
        'all': Accuracy(99.0, (98.0, 100.0)),
        'equivariant': Accuracy(50.0, (45.0, 55.0), [40.0, 60.0]),
        'unrelated': Accuracy(0.0, (0.0, 0.0), [1.0]),
    }
    drawn = [EncoderResponse(f'e{n}', responses, extra, 3, accuracy) for n in range(encoders)]
    assert draw_responses(drawn)[:4] == b'\x89PNG'


def test_drawing_of_filters():
    row = FilterRow('filter 3', [np.zeros((8, 8, 3), np.uint8)] * 2, [np.ones((3, 8, 8))] * 2)
    panels = [FilterPanel('a', 'x', [row] * 2), FilterPanel('a', 'y', [row]),
              FilterPanel('b', 'x', [row])]  # fmt: skip
    assert draw_filters(panels)[:4] == b'\x89PNG'


def test_pictures_of_the_docs_are_small():
    for name in ('figure2a.png', 'figure2b.png'):
        assert (ROOT / 'docs' / name).stat().st_size < 150_000
