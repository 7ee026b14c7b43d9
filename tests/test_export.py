"""Exported models give the probabilities of PyTorch, and published ones say what they are."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import runpy
import sys

import numpy as np
import pytest
import torch
import yaml
from helpers import ROOT, fails_with, run_tool
from mmengine.config import Config
from mmpretrain.registry import MODELS

from ipirm_mm.datasets import FashionMNIST50
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import ModelSource, Predictions, save_predictions
from ipirm_mm.evaluation.model_source import selections
from ipirm_mm.model_card import (
    Card,
    Training,
    check_license,
    controls_of,
    read_results,
    stage_one_settings,
)
from ipirm_mm.model_card.training import data_set_lines

CONFIG = ROOT / 'configs/quickstart/student_kl.py'


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """An encoder of Stage I and a student from it, as trainings leave them."""
    root = tmp_path_factory.mktemp('export')
    torch.manual_seed(0)
    encoder, config = ROOT / 'configs/quickstart/ipirm_simclr_sum.py', Config.fromfile(CONFIG)
    save(root / 'encoder.pth', Config.fromfile(encoder), {}, 'ipirm_simclr_sum_20260101_101010')
    config.model.backbone.init_cfg.checkpoint = str(root / 'encoder.pth')
    model = MODELS.build(Config.fromfile(ROOT / 'configs/quickstart/supervised.py').model)
    for module in model.modules():  # statistics that a training would leave
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    torch.nn.init.normal_(model.head.fc.weight)
    save(root / 'student.pth', config, model.state_dict(), '', FashionMNIST50.METAINFO['classes'])
    return root


def save(path, config, state, experiment, classes=()):
    meta = dict(
        cfg=config.pretty_text,
        epoch=3,
        iter=21,
        seed=5,
        experiment_name=experiment,
        dataset_meta=dict(classes=classes),
    )
    torch.save(dict(meta=meta, state_dict=state), path)


def export(files, out, *options, **more):
    return run_tool(
        'tools/export_model.py', CONFIG, files / 'student.pth', '--out', out, *options, **more
    )


def expected(files, tmp_path):
    """Images of the test data, normalized, and the scores of tools/test.py for them."""
    pkl = tmp_path / 'scores.pkl'
    run_tool('tools/test.py', CONFIG, files / 'student.pth', '--work-dir', tmp_path, '--out', pkl)
    from mmpretrain.registry import DATASETS

    from ipirm_mm.evaluation import load_predictions

    config = Config.fromfile(CONFIG)
    dataset = DATASETS.build(config.test_dataloader.dataset)
    images = torch.stack([dataset[n]['inputs'] for n in range(5)]).flip(1).float()
    return (images - 73) / 90, load_predictions(str(pkl)).scores[:5]


@pytest.mark.slow
def test_onnx_gives_the_scores_of_the_test_tool(files, tmp_path):
    for name in ('onnx', 'onnxscript'):
        pytest.importorskip(name)
    runtime = pytest.importorskip('onnxruntime')
    out = tmp_path / 'deep/student.onnx'
    finished = export(files, out)
    assert 'on 8 images of the test data' in finished.stdout
    images, scores = expected(files, tmp_path)
    session = runtime.InferenceSession(out, providers=['CPUExecutionProvider'])
    for count in (1, 5):
        found = session.run(['output'], {'input': images[:count].numpy()})[0]
        np.testing.assert_allclose(found, scores[:count], atol=1e-4)
    about = session.get_modelmeta().custom_metadata_map
    assert about['output'] == 'probabilities (softmax)'
    assert json.loads(about['mean']) == [73.0] * 3 and about['channel_order'] == 'RGB'
    assert json.loads(about['classes'])[-1] == 'Ankle boot'
    digest = hashlib.sha256((files / 'student.pth').read_bytes()).hexdigest()
    assert about['checkpoint_sha256'] == digest
    assert not list(tmp_path.rglob('*.part'))


def test_pt2_takes_pixels_and_gives_logits(files, tmp_path):
    out = tmp_path / 'student.pt2'
    export(files, out, '--normalize', '--logits')
    images, scores = expected(files, tmp_path)
    extra = {'metadata.json': ''}
    network = torch.export.load(out, extra_files=extra).module()
    logits = network(images * 90 + 73)
    assert logits.shape == (5, 10) and float(logits.max()) > 1
    torch.testing.assert_close(logits.softmax(1), scores, atol=1e-4, rtol=0)
    assert json.loads(extra['metadata.json'])['normalization'].startswith('inside')


@pytest.mark.slow
def test_torchscript_gives_the_scores_of_the_test_tool(files, tmp_path):
    out = tmp_path / 'student.pt'
    assert 'has deprecated TorchScript' in export(files, out).stdout
    images, scores = expected(files, tmp_path)
    torch.testing.assert_close(torch.jit.load(out)(images), scores, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    'kind, scale, certain', [('softmax', 1e3, True), ('softmax', 1.0, False), (None, 1e3, False)]
)
def test_probabilities_of_0_and_1_are_told(kind, scale, certain):
    tool = runpy.run_path(str(ROOT / 'tools/export_model.py'), run_name='not_main')
    torch.manual_seed(0)
    logits = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
    with torch.no_grad():
        logits[1].weight.mul_(scale)
        exported = tool['Exported'](logits, kind, normalize=False)
        images = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
        assert tool['are_all_certain'](exported, images) is certain


def test_a_model_that_differs_is_not_written(files, tmp_path):
    out = tmp_path / 'student.pt2'
    finished = export(files, out, '--tolerance', '-1', check=False)
    fails_with(finished, 'student.pt2 is not written', 'more than --tolerance -1')
    assert not list(tmp_path.iterdir())


def test_without_data_random_images_are_checked(files, tmp_path):
    option = ('--cfg-options', 'test_dataloader.dataset.split=nothing')
    finished = export(files, tmp_path / 'a.pt2', *option, check=False)
    fails_with(finished, 'the size of the images is not known', 'give --shape')
    finished = export(files, tmp_path / 'a.pt2', '--shape', 20, 28, '--images', 3, *option)
    assert 'on 3 random images' in finished.stdout
    assert torch.export.load(tmp_path / 'a.pt2').module()(torch.zeros(4, 3, 20, 28)).shape[0] == 4


def test_a_missing_library_is_named(monkeypatch):
    check_out = runpy.run_path(str(ROOT / 'tools/export_model.py'))['check_out']
    needed = check_out.__globals__['NEEDED']
    monkeypatch.setitem(needed, '.onnx', ('no_such_library', 'onnx'))
    with pytest.raises(UserError, match='pip install no_such_library onnx'):
        check_out(ROOT / 'a.onnx')


def publish(files, out, *options, **more):
    return run_tool(
        'tools/publish_model.py', CONFIG, files / 'student.pth', '--out', out, *options, **more
    )


def test_published_files_have_equal_weights_and_a_card(files, tmp_path):
    pkl = tmp_path / 'predictions.pkl'
    write_predictions(pkl, files / 'student.pth')
    out = tmp_path / 'out'
    publish(files, out, '--results', pkl, '--license', 'apache-2.0')
    hashed = [*out.glob('*.pth'), *out.glob('*.safetensors')]
    if importlib.util.find_spec('safetensors') is not None:  # in make test-all
        from safetensors.torch import load_file

        weights = torch.load(hashed[0], weights_only=True)['state_dict']
        others = load_file(hashed[1])
        assert weights.keys() == others.keys()
        assert all(torch.equal(weights[key], others[key]) for key in weights)
    (card,) = out.glob('*.md')
    text = card.read_text()
    _, matter, body = text.split('---\n', 2)
    assert yaml.safe_load(matter) == dict(
        license='apache-2.0',
        library_name='mmpretrain',
        pipeline_tag='image-classification',
        tags=['image-classification', 'mmpretrain', 'ipirm_mm', 'knowledge-distillation'],
        metrics=['accuracy'],
    )
    for path in hashed:
        assert hashlib.sha256(path.read_bytes()).hexdigest() in body
    for part in (
        'data set: `FashionMNIST50`',
        'images: 500, counted in the data at hand',
        'this checkpoint is of | epoch 3, iter 21',
        '| num_subsets | 50 |',
        '| head.objective | report |',
        '| head.penalty | vector (default) |',
        '| partition strategy | kmeans |',
        'loss: LogitKL (loss_weight=4.0, temperature=4.0)',
        'work_dirs/teacher/epoch_300.pth',
        'configs/quickstart/student_scratch.py',
        'configs/quickstart/sum_random_partition.py',
        'top-1 accuracy: 75.0 %, 95 % confidence interval',
    ):
        assert part in body, part


def test_without_safetensors_the_rest_is_published(files, tmp_path, monkeypatch, capsys):
    functions = runpy.run_path(str(ROOT / 'tools/publish_model.py'))
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    arguments = [CONFIG, files / 'student.pth', '--out', tmp_path]
    monkeypatch.setattr(sys, 'argv', ['publish_model.py', *map(str, arguments)])
    functions['main']()
    assert {path.suffix for path in tmp_path.iterdir()} == {'.pth', '.py', '.md'}
    printed = [
        line for line in capsys.readouterr().out.splitlines() if 'the library is missing' in line
    ]
    assert len(printed) == 1 and printed[0].endswith('pip install safetensors')


def test_a_card_counts_the_part_of_the_images_that_was_trained_on():
    """As of a student of `distill`, whose data set is within KFoldDataset."""
    inner = dict(type='FashionMNIST50', split='val', pipeline=[])
    wrapper = dict(type='KFoldDataset', dataset=inner, fold=0, num_splits=5, seed=0)
    for test_mode, which, count in ((False, 'all but part', 400), (True, 'part', 100)):
        found = selections(dict(wrapper, test_mode=test_mode))
        lines = data_set_lines(found, count=True)
        assert f'- of these images: {which} 0 of 5, counted from 0 (KFoldDataset, seed=0)' in lines
        assert f'- images: {count}, counted in the data at hand' in lines


def test_a_card_does_not_invent(files, tmp_path):
    """Of a published checkpoint, which has neither settings nor results."""
    publish(files, tmp_path / 'one')
    (pth,), (config,) = tmp_path.glob('one/*.pth'), tmp_path.glob('one/*.py')
    text = next(tmp_path.glob('one/*.md')).read_text()
    assert 'license:' not in text and 'None is stated.' in text
    assert 'metrics:' not in text and '--results predictions.pkl' in text
    training = Training.of(config.stem, str(pth), Config.fromfile(config))
    card = Card('x', 'x.py', 'x.pth', training, None, None, None, None, {}, False).text()
    assert 'From the config that was given; the checkpoint has none.' in card
    assert '- data set: not known' in card and '- classes: not known' in card
    for name in ('optimizer', 'schedule', 'seed', 'this checkpoint is of', 'number of processes'):
        assert f'| {name} | not known |' in card
    assert card.count('This is not known.') == 2  # the start, and the distillation
    assert 'No control was run' in card


def write_predictions(path, checkpoint, name='student_kl', classes=10):
    scores = torch.full((40, classes), 0.1)
    scores[:, 0] = 0.4
    scores /= scores.sum(1, keepdim=True)
    labels = torch.zeros(40, dtype=torch.long)
    labels[:10] = 1
    source = ModelSource(name, str(checkpoint), [], [dict(type='FashionMNIST50', split='test')])
    images = [str(n) for n in range(40)]
    save_predictions(str(path), Predictions(scores, labels, images, 'x', source=source))


def test_results_are_of_the_published_model(tmp_path):
    path = tmp_path / 'a.pkl'
    given = (str(path), 'configs/student_kl.py', 'runs/student.pth', 10)
    write_predictions(path, 'elsewhere/student.pth')
    lines = read_results(*given)
    assert lines[0].startswith('- top-1 accuracy: 75.0 %, 95 % confidence interval ')
    low, high = map(float, lines[0].split('interval ')[1].rstrip(' %').split(' to '))
    assert 55 < low < 70 and 80 < high < 95
    assert '- split: test' in lines and '- images: 40' in lines
    write_predictions(path, 'elsewhere/epoch_9.pth')
    with pytest.raises(UserError, match='predictions of student_kl and epoch_9.pth, but'):
        read_results(*given)
    write_predictions(path, 'student.pth', name='student_ofd')
    with pytest.raises(UserError, match='predictions of student_ofd'):
        read_results(*given)
    write_predictions(path, 'student.pth', classes=7)
    with pytest.raises(UserError, match='scores of 7 classes, but the model has 10'):
        read_results(*given)


def test_metrics_have_no_interval(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text('{"accuracy/top1": 71.25, "confusion": [[1]]}')
    lines = read_results(str(path), 'a.py', 'a.pth', 10)
    assert lines[0] == '- accuracy/top1: 71.25' and 'no confidence interval' in lines[-1]
    path.write_text('{}')
    with pytest.raises(UserError, match='holds no metrics'):
        read_results(str(path), 'a.py', 'a.pth', 10)
    path.write_text('{')
    with pytest.raises(UserError, match='cannot be read'):
        read_results(str(path), 'a.py', 'a.pth', 10)


@pytest.mark.parametrize('name', ['two words', '', 'a: b', '-'])
def test_a_license_is_an_identifier(name):
    with pytest.raises(UserError, match='--license'):
        check_license(name)


def test_controls_are_those_of_the_index():
    entries = [
        ('a', 'Our recipe', 'configs/x/a.py'),
        ('a_random', 'Control of a.py: a random partition', 'configs/x/a_random.py'),
        ('aa_random', 'Control of aa.py: a random partition', 'configs/x/aa_random.py'),
        ('b', 'Stage I, Table 3, row "B"', 'configs/b.py'),
        ('b_alone', 'Control for Table 3, row "B": penalty alone', 'configs/c/b_alone.py'),
    ]
    assert [path for path, _ in controls_of('a', entries)] == ['configs/x/a_random.py']
    assert [path for path, _ in controls_of('b', entries)] == ['configs/c/b_alone.py']
    assert controls_of('none', entries) == []


@pytest.mark.parametrize(
    'name,expected',
    [
        ('ipirm_simclr_r50', {'simclr_r50_penalty_only', 'simclr_r50_random_partition'}),
        (
            'ipirm_simsiam_r50_ours',
            {'simsiam_r50_ours_penalty_only', 'simsiam_r50_ours_random_partition'},
        ),
        ('ipirm_byol', {'byol', 'byol_penalty_only', 'byol_random_partition'}),
        ('student_ofd', {'student_scratch', 'student_finetuned'}),
        ('supervised', set()),
        ('simclr', set()),
    ],
)
def test_controls_of_our_configs(name, expected):
    from ipirm_mm.model_card.controls import index_entries

    found = controls_of(name, list(index_entries()))
    assert {path.rpartition('/')[2].removesuffix('.py') for path, _ in found} == expected


def test_settings_of_stage_one_are_those_of_the_config():
    config = Config.fromfile(ROOT / 'configs/ipirm_simclr_r50.py')
    rows = dict(stage_one_settings(Training('x', '', dict(config._cfg_dict))))
    assert rows['method'] == 'IPIRMSimCLR' and rows['num_subsets'].startswith('2')
    assert rows['head.irm_weight'].startswith('0.2')
    assert rows['head.objective'] == 'authors (default)'
    assert rows['partition interval'] == '50'


TOOL = ROOT / 'tools/export_model.py'
NETWORK = dict(
    backbone=dict(type='SmallConvNet', channels=(8, 16)), neck=dict(type='GlobalAveragePooling')
)


@pytest.mark.parametrize(
    'head,kind',
    [
        ('LinearClsHead', 'softmax'),
        ('MultiLabelLinearClsHead', 'sigmoid'),
        ('timm', 'softmax'),
    ],
)
def test_scores_are_those_that_the_classifier_predicts(head, kind):
    functions = runpy.run_path(str(TOOL))
    if head == 'timm':
        pytest.importorskip('timm')
        model = MODELS.build(dict(type='TimmClassifier', model_name='resnet10t', num_classes=3))
    else:
        model = dict(type='ImageClassifier', **NETWORK)
        model = MODELS.build(dict(model, head=dict(type=head, num_classes=3, in_channels=16)))
    model.eval()
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = functions['find_kind'](Config(), model, images)
    assert found == kind
    with torch.no_grad():
        scores = functions['Exported'](model, kind, False)(images)
        predicted = torch.stack([one.pred_score for one in model(images, mode='predict')])
    torch.testing.assert_close(scores, predicted)


def test_heads_without_one_row_of_logits_are_refused():
    heads = {name: dict(type='LinearClsHead', num_classes=2) for name in ('color', 'shape')}
    head = dict(type='MultiTaskHead', in_channels=16, task_heads=heads)
    model = MODELS.build(dict(type='ImageClassifier', **NETWORK, head=head)).eval()
    with pytest.raises(
        UserError, match=r'one output per task \(color, shape\): only a classifier'
    ):
        runpy.run_path(str(TOOL))['find_kind'](Config(), model, torch.zeros(2, 3, 16, 16))
