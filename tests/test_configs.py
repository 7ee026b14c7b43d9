"""Every config builds, takes a step and passes `val`; names, model index and bases of the configs.

``make test`` builds every config without initial weights and steps those in ``STEPPED``;
``make test-all`` steps all of them at their full size.
"""

from __future__ import annotations

import argparse
import functools
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmpretrain import FeatureExtractor, get_model, list_models
from mmpretrain.apis.model import ModelHub
from mmpretrain.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS
from mmpretrain.structures import DataSample
from PIL import Image

from ipirm_mm import cli, compat, resources
from ipirm_mm.datasets import number_images
from ipirm_mm.errors import UserError
from ipirm_mm.models.distillation import CRD
from ipirm_mm.resources import find_config

ROOT = Path(__file__).resolve().parents[1]
ALL_CONFIGS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.parts
)
# Nothing of these is trained.
ENSEMBLES = [path for path in ALL_CONFIGS if Path(path).stem.startswith('ensemble')]
CONFIGS = [path for path in ALL_CONFIGS if path not in ENSEMBLES]
QUICKSTART = ROOT / 'configs/quickstart/ipirm_simclr.py'
# One for each stage, data set and kind of loss, which `make test` steps at full size: all of the
# quickstart, and these. The families of larger backbones it steps on small images.
STEPPED = (
    'configs/ipirm_simclr_r50.py',
    'configs/ipirm_simsiam_r50.py',
    'configs/baselines/supervised_r50.py',
    'configs/linear/linear_ipirm_simclr_r50.py',
    'configs/cifar100/linear_cifar100_authors.py',
    'configs/stl10/ipirm_simclr_stl10.py',
    'configs/glyphs/ipirm_simclr_glyphs.py',
    'configs/finetune/teacher_r50.py',
    'configs/distill/kl_r50.py',
    'configs/distill/ofd_r50.py',
    'configs/distill/crd_kl_r50.py',
)
SMALL_STEPS = (
    'resnest101',
    'seresnext101',
    pytest.param('wide_resnet101', marks=pytest.mark.slow),
)
# OFD on the backbones of Table 1, which `make test` steps and builds for one family.
OFD_LAST = [path for path in CONFIGS if re.search(r'/ofd_last_(?!r50)', path)]
# Full-scale classifiers, which have test-time augmentation at their own resolution.
CLASSIFIERS = [
    path for path in CONFIGS if re.search(r'/(finetune|distill|linear)/|/supervised_r50', path)
]


def sizes(path):
    """Size of an image, of a view and of a test image."""
    if 'quickstart' in path or 'glyphs' in path:
        return 28, 28, 28
    if 'stl10' in path:
        return 96, 32, 96
    if 'cifar100' in path:
        return 32, 32, 32
    size = re.search(r'_(3\d\d|4\d\d)\.py$', path)
    if size:
        return 250, int(size[1]), int(size[1])
    if re.search(r'/(ofd|ofd_last|crd|crd_kl)_r50(?!_224)', path):
        return 250, 330, 330
    teacher = re.search(r'/teacher_(\w+)\.py', path)
    if teacher and not teacher[1].startswith('r50'):  # at the (smaller) resolution of its student
        side = min(int(name[-6:-3]) for name in CONFIGS if f'/kl_{teacher[1]}_' in name)
        return 250, side, side
    return 250, 224, 224


def make_samples(path, pipeline, folder, number=2):
    """What a pipeline of a config makes of a random image of the size of its data set's."""
    size = sizes(path)[0]
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(image).save(folder / 'image.png')
    transform = Compose([TRANSFORMS.build(step) for step in pipeline])
    samples = []
    for index in range(number):
        known = dict(sample_idx=index, gt_label=index)
        if size == 250:
            known['img_path'] = str(folder / 'image.png')
        else:
            known['img'] = image.copy()
        samples.append(transform(known))
    return samples


def check_heading(path):
    """A config says what it stands for, and registers what it needs."""
    config = Config.fromfile(ROOT / path)
    assert 'ipirm_mm' in config.custom_imports['imports']
    heading = (ROOT / path).read_text().split('\n_base_')[0]
    origin = ('Report, ', "Wang et al.'s script", 'laptop', 'Control: ')
    assert any(word in heading for word in origin), 'what does it stand for?'
    for hook in config.get('custom_hooks', []):
        HOOKS.build(hook)
    return config


def build_model(config):
    """The model of a config as on one device, without the checkpoint of Stage I."""
    if config.model.backbone.get('init_cfg'):
        assert config.model.backbone.init_cfg.prefix == 'backbone.'
        config.model.backbone.pop('init_cfg')
    preprocessor = config.model.get('data_preprocessor') or config.data_preprocessor
    model = revert_sync_batchnorm(
        MODELS.build({**config.model, 'data_preprocessor': preprocessor})
    )
    for teacher in getattr(model, 'beside', ()):
        kind = 'ipirm_simclr_r50/' if 'stage1_teacher' in config.filename else 'teacher'
        assert teacher.checkpoint.startswith(f'work_dirs/{kind}')
    return model, preprocessor


@functools.cache
def read(path):
    """A config that a test does not change."""
    return Config.fromfile(ROOT / path)


def test_there_are_configs():
    stems = [Path(path).stem for path in CONFIGS]
    for name in ('ipirm_simclr_r50', 'ipirm_simsiam_r50', 'supervised_r50', 'linear_simsiam_r50'):
        assert name in stems
    for name in ('ipirm_simclr_r50', 'ipirm_simsiam_r50', 'ipirm_simclr_r50_own_images'):
        assert f'configs/{name}.py' in CONFIGS
    assert len([name for name in CONFIGS if '/kl_res' in name]) >= 6
    assert len(CONFIGS) >= 90
    # Runs are named after the file, and a config that moved is found by its name.
    assert len({Path(path).stem for path in ALL_CONFIGS}) == len(ALL_CONFIGS)
    assert set(STEPPED) <= set(CONFIGS)


def built_elsewhere(paths):
    """Slow: of OFD on larger backbones all but one family, and what has the networks of `distill`."""
    return [
        pytest.param(path, marks=pytest.mark.slow)
        if '/final/' in path or (path in OFD_LAST and 'seresnext' not in path)
        else path
        for path in paths
    ]


@pytest.mark.parametrize('path', built_elsewhere(CONFIGS))
def test_config_builds(path, tmp_path, monkeypatch):
    """Pipelines, shapes through the network, trained parameters and metric; no initial weights."""
    config = check_heading(path)
    monkeypatch.setattr(torch.nn.init, 'kaiming_uniform_', lambda tensor, *_, **__: tensor)
    model, preprocessor = build_model(config)
    _, view, test_size = sizes(path)
    (sample,) = make_samples(path, config.train_dataloader.dataset.pipeline, tmp_path, 1)
    selfsup = 'Cls' not in preprocessor.get('type', 'Cls')
    inputs = model.data_preprocessor(default_collate([sample]), True)['inputs']
    views = inputs if selfsup else [inputs]
    assert [one.shape for one in views] == [(1, 3, view, view)] * (2 if selfsup else 1)
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    trained = {id(p) for group in optimizer.param_groups for p in group['params'] if group['lr']}
    backbone = [p for p in model.backbone.parameters() if id(p) in trained and p.requires_grad]
    assert bool(backbone) != ('linear' in path)
    with torch.no_grad():
        features = model.backbone(torch.zeros(2, 3, 32, 32))
        features = model.neck(features)
        if not selfsup:
            features = (model.head.fc(features[-1]),)
    classes = config.model.head.get('num_classes')
    assert features[-1].shape == (2, config.model.neck.out_channels if selfsup else classes)
    assert selfsup or config.data_preprocessor.num_classes == classes
    if config.get('val_dataloader') is None:
        assert path.endswith('own_images.py') or '/final/' in path
        return
    assert config.test_dataloader.dataset.pipeline == config.val_dataloader.dataset.pipeline
    (sample,) = make_samples(path, config.val_dataloader.dataset.pipeline, tmp_path, 1)
    assert sample['inputs'].shape == (3, test_size, test_size)
    for evaluator in (config.val_evaluator, config.test_evaluator):
        METRICS.build(evaluator)
    assert evaluator.type == ('KNNAccuracy' if selfsup else 'Accuracy')


@pytest.mark.parametrize(
    'path',
    [
        path
        if path in STEPPED or 'quickstart' in path
        else pytest.param(path, marks=pytest.mark.slow)
        for path in CONFIGS
    ],
)
def test_config_takes_a_step_and_passes_val(path, tmp_path):
    config = check_heading(path)
    model, preprocessor = build_model(config)
    _, view, test_size = sizes(path)
    for teacher in getattr(model, 'beside', ()):  # as if its checkpoint had been there
        teacher.loaded = True
        for loss in model.distill_losses:
            loss.teacher_loaded(teacher.network)
            if isinstance(loss, CRD):
                loss.num_negatives = 2
                loss.allocate(torch.tensor([0, 1, 2, 3]))
    model.train()
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    frozen = 'linear' in path
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pipeline = config.train_dataloader.dataset.pipeline
    data = default_collate(make_samples(path, pipeline, tmp_path))
    shape = (
        data['inputs'][0][0].shape if 'SelfSup' in str(preprocessor) else data['inputs'][0].shape
    )
    assert shape[-2:] == (view, view)
    logged = model.train_step(data, optimizer)
    assert torch.isfinite(logged['loss'])
    for name, value in model.state_dict().items():
        if frozen and name.startswith('backbone'):
            moves = path.endswith('_authors.py') and 'running' in name or 'num_batches' in name
            assert moves or torch.equal(value, before[name]), name
    changed = [name for name, value in model.state_dict().items() if (value != before[name]).any()]
    assert any('running' not in name for name in changed)
    if config.get('val_dataloader') is None:
        assert path.endswith('own_images.py') or '/final/' in path
        return
    model.eval()
    pipeline = config.val_dataloader.dataset.pipeline
    data = default_collate(make_samples(path, pipeline, tmp_path))
    assert data['inputs'][0].shape == (3, test_size, test_size)
    outputs = model.val_step(data)
    assert len(outputs) == 2
    metric = METRICS.build(config.val_evaluator)
    metric.process(data, [sample.to_dict() for sample in outputs])
    scores = metric.evaluate(2)
    assert scores and all(0 <= float(score) <= 100 for score in scores.values())


@pytest.mark.parametrize('backbone', SMALL_STEPS)
def test_a_step_of_each_family_of_backbones_on_small_images(backbone):
    config = Config.fromfile(ROOT / f'configs/backbones/ipirm_simclr_{backbone}.py')
    model, _ = build_model(config)
    model.train()
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    before = {name: value.clone() for name, value in model.named_parameters()}
    views = [torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8) for _ in range(2)]
    samples = [DataSample(metainfo=dict(sample_idx=index)) for index in range(2)]
    logged = model.train_step(dict(inputs=views, data_samples=samples), optimizer)
    assert torch.isfinite(logged['loss'])
    for name in ('backbone', 'neck'):
        changed = [
            not torch.equal(value, before[key])
            for key, value in model.named_parameters()
            if key.startswith(name)
        ]
        assert sum(changed) > 0.9 * len(changed)


@pytest.mark.parametrize('path', built_elsewhere(OFD_LAST))
def test_a_step_of_ofd_of_the_last_stage_on_small_images(path):
    """The loss reaches the student through the last stage, and there are margins."""
    config = check_heading(path)
    (loss,) = config.model.distill_losses
    assert (loss.type, loss.stages, config.model.ce_weight) == ('OFD', 'last', 1)
    model, _ = build_model(config)
    for teacher in model.beside:
        teacher.loaded = True
        model.distill_losses[0].teacher_loaded(teacher.network)
    assert model.distill_losses[0].margin3.shape == (2048,)
    assert (model.distill_losses[0].margin3 < 0).all()
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    before = {name: value.clone() for name, value in model.named_parameters()}
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    samples = [DataSample().set_gt_label(label) for label in (0, 1)]
    model.train()
    logged = model.train_step(dict(inputs=images, data_samples=samples), optimizer)
    assert torch.isfinite(logged['loss']) and logged['loss_ofd'] > 0
    for name in ('backbone', 'head', 'distill_losses'):
        changed = [
            not torch.equal(value, before[key])
            for key, value in model.named_parameters()
            if key.startswith(name)
        ]
        assert sum(changed) > 0.9 * len(changed)


def test_configs_of_table_4_at_equal_settings_differ_only_in_the_loss():
    """As the README of `distill` says, in its order; and the control has the same images."""
    readme = (ROOT / 'configs/distill/README.md').read_text()
    section = readme.split('## Table 4 at equal settings')[1].split('\n## ')[0]
    table = section.split('| config | loss |')[1]
    names = re.findall(r'^\| `(\w+)\.py`', table, re.M)
    assert len(names) == 8
    configs = [read(f'configs/distill/{name}.py').to_dict() for name in names]
    losses = [str(config['model'].pop('distill_losses')) for config in configs]
    assert len(set(losses)) == 8
    for config in configs:
        assert config['model'].pop('ce_weight', 1.0) == 1
        hooks = config.pop('custom_hooks')
        assert [hook['type'] for hook in hooks if hook['type'] != 'CRDMemoryHook'] == [
            'SetEpochHook'
        ]
        assert config == configs[0]
    control = read('configs/finetune/teacher_r50.py').to_dict()
    for key in ('train_dataloader', 'val_dataloader', 'train_cfg', 'param_scheduler'):
        assert control[key] == configs[0][key]
    student = {key: configs[0]['model'][key] for key in ('backbone', 'neck', 'head')}
    assert student == {key: control['model'][key] for key in student}


def test_table_of_the_settings_of_table_4():
    """What the README of `distill` says of pixels and weights is in the configs."""
    readme = (ROOT / 'configs/distill/README.md').read_text()
    rows = re.findall(r'^\| (`.*`) \| (\d{3}) \| ([\d.]+) \| (.*) \|$', readme, re.M)
    assert len(rows) == 5
    for names, pixels, alpha, beta in rows:
        for name in re.findall(r'`(\w+)\.py`', names):
            path = f'configs/distill/{name}.py'
            config = read(path)
            assert sizes(path)[1] == config.random_crop.scale == int(pixels)
            assert config.model.get('ce_weight', 1.0) == float(alpha)
            weights = [MODELS.build(loss).loss_weight for loss in config.model.distill_losses]
            assert weights == [float(number) for number in re.findall(r'[\d.]+', beta)]


@pytest.mark.parametrize('name', ['feature_kl', 'ofd', 'ofd_last', 'crd'])
def test_a_teacher_of_stage_one_changes_nothing_else(name):
    literal = read(f'configs/distill/{name}_r50_stage1_teacher.py').to_dict()
    usual = read(f'configs/distill/{name}_r50.py').to_dict()
    teacher = literal['model'].pop('teacher')
    usual['model'].pop('teacher')
    assert literal == usual
    # The student starts from the weights that its teacher has.
    assert teacher['checkpoint'] == usual['model']['backbone']['init_cfg']['checkpoint']
    assert find_config(teacher['model']) == str(ROOT / 'configs/ipirm_simclr_r50.py')


@pytest.mark.parametrize('path', ENSEMBLES)
def test_ensembles_name_their_members_and_show_each_its_views(path):
    config = Config.fromfile(ROOT / path)
    assert re.search(
        "Report, Table 2|Report, Section 4.2|Table 2 at a laptop's scale",
        (ROOT / path).read_text(),
    )
    members = config.model.members
    (step,) = config.test_dataloader.dataset.pipeline
    assert step.members == members
    image = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    for member in members:
        epochs = Config.fromfile(member.config).train_cfg.max_epochs
        name = Path(find_config(member.config)).stem
        assert member.checkpoint == f'work_dirs/{name}/epoch_{epochs}.pth'
    if 'quickstart' in path:
        image = image[:28, :28]
        expected = [28] * 4
    else:
        expected = [int(member.config[-6:-3]) for member in members for _ in range(10)]
    views = TRANSFORMS.build(step)
    if 'quickstart' not in path:
        load = views.shared.transforms.pop(0)
        assert type(load).__name__ == 'LoadImage'
    packed = views(dict(img=image, img_shape=image.shape[:2], sample_idx=0, gt_label=0))
    assert [view.shape[-1] for view in packed['inputs']] == expected


@pytest.mark.parametrize('name,weight', [('stl10', 0.5), ('cifar100', 0.2)])
def test_weights_of_the_scripts_of_wang(name, weight):
    """Their --penalty_weight, --irm_weight_maxim, --temperature, --maximize_iter and --epochs."""
    config = read(f'configs/{name}/ipirm_simclr_{name}.py')
    hook = config.custom_hooks[0]
    assert (config.model.head.irm_weight, hook.solver.irm_weight) == (0.2, weight)
    assert (config.model.head.temperature, hook.interval) == (0.5, 50)
    assert config.train_cfg.max_epochs == 400 and hook.solver.strategy == 'authors'


@pytest.mark.parametrize('method', ['simclr', 'simsiam'])
@pytest.mark.parametrize(
    'recipe,control',
    [
        ('ipirm_{}_r50.py', 'controls/{}_r50'),
        ('ours/ipirm_{}_r50_ours.py', 'ours/{}_r50_ours'),
    ],
)
def test_controls_differ_from_their_recipe_in_the_partitions_only(recipe, control, method):
    ours = recipe.startswith('ours')
    recipe = read(f'configs/{recipe.format(method)}')
    random, alone = (
        read(f'configs/{control.format(method)}_{name}.py')
        for name in ('random_partition', 'penalty_only')
    )
    for key in ('train_cfg', 'optim_wrapper', 'train_dataloader', 'auto_scale_lr'):
        assert random[key] == alone[key] == recipe[key]
    assert random.model == recipe.model
    head = {**recipe.model.head, 'penalize_batch': True}
    if ours and method == 'simsiam':
        # With the contrast of the whole batch, which the sum over no subsets lacks.
        head |= dict(objective='authors', irm_weight=0.2)
    assert alone.model == {**recipe.model, 'head': head}
    hooks = [dict(config.custom_hooks[0]) for config in (recipe, random, alone)]
    found, drawn = (hook.pop('solver')['strategy'] for hook in hooks[:2])
    assert drawn == 'random' != found
    assert hooks[0] == hooks[1] and hooks[2]['max_partitions'] == 0
    if ours:  # the partition comes when the warm-up ends
        assert hooks[0]['interval'] == recipe.model.head.irm_warmup_epochs > 0


@pytest.mark.parametrize('method', ['simclr', 'simsiam'])
def test_the_equations_of_the_report_to_the_letter(method):
    config = read(f'configs/report/ipirm_{method}_r50_report.py')
    head, hook = config.model.head, HOOKS.build(config.custom_hooks[0])
    assert (head.penalty, head.objective) == ('scalar', 'report')
    assert (head.irm_weight, head.temperature, hook.interval) == (0.2, 0.5, 50)
    assert hook.solver_cfg == dict(strategy='authors', irm_weight=0.5, balance='none')
    base = read(f'configs/ipirm_{method}_r50.py')
    for key in ('train_cfg', 'optim_wrapper', 'train_dataloader'):
        assert config[key] == base[key]


def test_one_config_for_each_row_of_table_3():
    rows = []
    for file in ROOT.glob('configs/**/metafile.yml'):
        models = yaml.safe_load(file.read_text())['Models']
        rows += [
            metadata['Stands For'].partition(', row ')[2]
            for metadata in (model['Metadata'] for model in models)
            if re.match('Report, Table 3, row', metadata['Stands For'])
        ]
    names = ('Supervised Training', 'SimCLR', 'SimSiam', 'SimCLR+IP-IRM', 'SimSiam+IP-IRM')
    assert sorted(rows) == sorted(f'"{name}"' for name in names)
    full_scale = [path for path in CONFIGS if 'quickstart' not in path]
    claims = [path for path in full_scale if 'row "Supervised' in (ROOT / path).read_text()]
    assert claims == [
        'configs/baselines/supervised_r50.py',
        'configs/linear/linear_supervised_r50.py',  # which says that it is not
    ]
    assert 'stands for no row' in (ROOT / claims[1]).read_text()


def strings(value):
    """All strings in a config."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from strings(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from strings(one)


def test_checkpoints_that_configs_name_are_those_that_configs_write():
    configs = {Path(path).stem: read(path) for path in ALL_CONFIGS}
    named = [text for config in configs.values() for text in strings(config._cfg_dict)]
    named += [
        text for path in sorted(ROOT.glob('configs/**/*.yml')) for text in [path.read_text()]
    ]
    found = {match for text in named for match in re.findall(r'work_dirs/(\w+)/epoch_(\d+)', text)}
    assert len(found) > 20
    for name, epoch in found:
        assert configs[name].train_cfg.max_epochs == int(epoch), name


def test_bases_leave_to_configs_what_is_theirs():
    bases = ROOT / 'configs/_base_'
    for path in (bases / 'datasets').glob('*.py'):
        assert 'custom_hooks' not in Config.fromfile(path), path
    for path in (bases / 'models').glob('*.py'):
        assert 'work_dirs' not in path.read_text(), path
    # Each backbone of Table 1 stands once: Stage I, teacher and students have the same.
    for path in (bases / 'backbones').glob('*.py'):
        ((name, backbone),) = Config.fromfile(path).items()
        if name == 'resnet50':
            continue
        users = [other for other in CONFIGS if f'_{name}' in other]
        assert len(users) >= 3
        for user in users:
            model = read(user).model
            for one in (model, model.teacher.model) if 'teacher' in model else (model,):
                assert {k: v for k, v in one.backbone.items() if k != 'init_cfg'} == backbone


def resize_steps(value):
    """All steps that resize to a size without randomness."""
    if isinstance(value, dict):
        if value.get('type') == 'ResizeEdge':
            yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from resize_steps(one)


@pytest.mark.parametrize('name', ['flip', 'five_crop', 'ten_crop'])
def test_bases_of_test_time_augmentation(name):
    config = Config.fromfile(ROOT / f'configs/_base_/tta/{name}.py')
    pipeline = Compose([TRANSFORMS.build(step) for step in config.tta_pipeline[1:]])
    image = np.zeros((300, 280, 3), np.uint8)
    views = pipeline(dict(img=image, img_shape=(300, 280)))['inputs']
    assert len(views) == dict(flip=2, five_crop=5, ten_crop=10)[name]
    assert {tuple(view.shape) for view in views} == {(3, 224, 224)}
    # They resize as the test pipelines that they replace.
    assert {step.backend for step in resize_steps(config._cfg_dict)} == {'pillow'}
    layer = dict(
        type='ImageClassifier',
        backbone=dict(type='SmallConvNet', channels=(8, 16)),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=16),
    )
    assert MODELS.build({**config.tta_model, 'module': layer}).policy in ('gmean', 'tsharpen')


@pytest.mark.parametrize('path', CLASSIFIERS)
def test_classifiers_have_test_time_augmentation_at_their_resolution(path, tmp_path):
    """Ten crops of the resolution of the test pipeline, whose image is the central one."""
    config = Config.fromfile(ROOT / path)
    assert config.tta_model == dict(type='ScoreMergingTTA', policy='tsharpen')
    assert {step.backend for step in resize_steps(config._cfg_dict)} == {'pillow'}
    resize, crops = config.tta_pipeline[1:]
    size = sizes(path)[2]
    assert (crops.type, crops.crop_size, resize.scale) == (
        'TenCrop',
        size,
        round(size * 256 / 224),
    )
    assert resize == config.test_dataloader.dataset.pipeline[1]
    (plain,) = make_samples(path, config.test_dataloader.dataset.pipeline, tmp_path, 1)
    (views,) = make_samples(path, config.tta_pipeline, tmp_path, 1)
    assert plain['inputs'].shape[-1] == size
    assert [view.shape for view in views['inputs']] == [plain['inputs'].shape] * 10
    assert torch.equal(views['inputs'][4], plain['inputs'])
    # At the top left of the mirror image is the mirrored crop at the top right.
    assert torch.equal(views['inputs'][5], views['inputs'][1].flip(-1))


def test_other_views_in_a_config_of_ones_own(tmp_path):
    """The lines in the README of `finetune`."""
    readme = (ROOT / 'configs/finetune/README.md').read_text()
    lines = re.search(r"    _base_ = 'teacher_r50.py'\n(?:    .*\n)+", readme)[0]
    lines = re.sub('^    ', '', lines, flags=re.M)
    path = tmp_path / 'own.py'
    base = 'ipirm_mm::distill/kl_resnest101_330.py'
    path.write_text(lines.replace('teacher_r50.py', base))
    config = Config.fromfile(path)
    assert config.tta_model.policy == 'gmean'
    (sample,) = make_samples('_330.py', config.tta_pipeline, tmp_path, 1)
    assert [view.shape for view in sample['inputs']] == [(3, 330, 330)] * 2


def test_auto_augment_in_a_config_of_ones_own(tmp_path):
    """The lines in the README of `finetune`, at 330 pixels; draws depend on epoch and image only."""
    readme = (ROOT / 'configs/finetune/README.md').read_text()
    lines = re.search(r"    _base_ = 'ipirm_mm::distill/kl_.*\n(?:    .*\n)+", readme)[0]
    path = tmp_path / 'own.py'
    path.write_text(re.sub('^    ', '', lines, flags=re.M))
    config = Config.fromfile(path)
    steps = [step.type for step in config.train_pipeline[1].transforms]
    assert steps == ['RandomResizedCrop', 'RandomFlip', 'AutoAugment', 'RandomErasing']
    base = Config.fromfile(ROOT / 'configs/distill/kl_resnest101_330.py').train_pipeline[1]
    for own, other in zip(config.train_pipeline[1].transforms, base.transforms):
        assert own == other or (own.type, other.type) == ('AutoAugment', 'RandAugment')
    assert config.train_dataloader.dataset.pipeline == config.train_pipeline
    seeded = TRANSFORMS.build(config.train_pipeline[1])
    image = np.random.default_rng(0).integers(0, 256, (250, 250, 3), dtype=np.uint8)

    def draw(epoch, index, state):
        random.seed(state)
        np.random.seed(state)
        torch.manual_seed(state)
        seeded.set_epoch(epoch, seed=3)
        return seeded(dict(img=image.copy(), img_shape=(250, 250), sample_idx=index))['img']

    for epoch in range(4):
        first = draw(epoch, 5, 0)
        assert first.shape == (330, 330, 3)
        assert np.array_equal(first, draw(epoch, 5, 1))
        assert not np.array_equal(first, draw(epoch, 6, 0))
        assert not np.array_equal(first, draw(epoch + 1, 5, 0))


def test_names_of_configs_work_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('ipirm_simclr_r50.py', 'quickstart/ipirm_simclr.py'):
        expected = Config.fromfile(ROOT / 'configs' / name)
        assert find_config(f'ipirm_mm::{name}') == str(ROOT / 'configs' / name)
        assert Config.fromfile(f'ipirm_mm::{name}').model == expected.model
        own = tmp_path / 'own.py'
        for base in (f"'ipirm_mm::{name}'", f"['ipirm_mm::{name}']"):
            own.write_text(f'_base_ = {base}\nmodel = dict(num_subsets=3)\n')
            config = Config.fromfile(own)
            assert config.model == {**expected.model, 'num_subsets': 3}
            assert config.optim_wrapper == expected.optim_wrapper
    # The run is named as by a path, and so later stages find its checkpoints.
    monkeypatch.setenv('LOCAL_RANK', '0')  # which merge_common would set
    args = argparse.Namespace(local_rank=0, launcher='none', work_dir=None)
    config = cli.load_config('ipirm_mm::ipirm_simclr_r50.py')
    cli.merge_common(config, args, ())
    assert Path(config.work_dir) == Path('work_dirs/ipirm_simclr_r50')
    # What is not ours is left to MMEngine.
    with pytest.raises(UserError, match='there is no config file mmpretrain::a/x9z.py$'):
        find_config('mmpretrain::a/x9z.py')
    with pytest.raises(ValueError, match='_get_package_and_cfg_path'):
        Config._get_cfg_path('mmpretrain::noslash', 'a.py')
    before = Config.fromfile
    compat.resolve_own_config_names()  # a second time, nothing changes
    assert Config.fromfile is before


@pytest.mark.parametrize(
    'name,sentence',
    [
        ('configs/kl_r50.py', 'no config file configs/kl_r50.py: .* is configs/distill/kl_r50.py'),
        ('configs/nothing.py', 'there is no config file configs/nothing.py$'),
        ('ipirm_mm::kl_r50.py', 'has no config .*kl_r50.py: .* is ipirm_mm::distill/kl_r50.py'),
        ('ipirm_mm::ipirm_simclr_50.py', 'nearly this name are ipirm_mm::ipirm_simclr_r50.py, '),
        ('ipirm_mm::x', 'the names are the paths below .*configs'),
    ],
)
def test_a_config_that_is_not_there_gets_a_sentence(name, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=sentence):
        find_config(name)
    monkeypatch.chdir(tmp_path)  # where configs/ means nothing
    with pytest.raises(UserError, match=sentence.replace('is configs/', 'is ipirm_mm::')):
        find_config(name)
    if '::' in name:
        with pytest.raises(UserError, match=sentence):
            Config.fromfile(name)
        own = tmp_path / 'own.py'
        own.write_text(f'_base_ = [{name!r}]\n')
        with pytest.raises(UserError, match=sentence):
            Config.fromfile(own)
    with pytest.raises(UserError, match='of the teacher'):
        find_config(name, 'of the teacher')


def test_a_base_that_moved_gets_a_sentence(tmp_path):
    own = tmp_path / 'own.py'
    own.write_text("_base_ = ['configs/teacher_r50.py']\n")
    with pytest.raises(UserError, match='of this name is ipirm_mm::finetune/teacher_r50.py'):
        Config.fromfile(own)
    own.write_text("_base_ = ['configs/someone_elses.py']\n")
    with pytest.raises(FileNotFoundError, match='someone_elses'):
        Config.fromfile(own)


def test_model_index_and_readmes_know_every_config():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    folders = {Path(path).parent for path in ALL_CONFIGS}
    assert sorted(index) == sorted((folder / 'metafile.yml').as_posix() for folder in folders)
    paths, names = [], []
    for file in index:
        content = yaml.safe_load((ROOT / file).read_text())
        (collection,) = content['Collections']
        readme = ROOT / collection['README']
        assert readme == (ROOT / file).with_name('README.md')
        for model in content['Models']:
            assert model['In Collection'] == collection['Name']
            assert model['Metadata']['Command'].split()[2] == model['Config']
            assert Path(model['Config']).parent == Path(file).parent
            assert f'`{Path(model["Config"]).name}`' in readme.read_text()
            stem = Path(model['Config']).stem
            prefix = 'quickstart_' if '/quickstart/' in file else ''
            assert model['Name'] == prefix + stem == model['Name'].lower()
            paths.append(model['Config'])
            names.append(model['Name'])
            for result in model['Results'] or []:
                for metric, accuracy in result['Metrics'].items():
                    assert '(report, not reproduced)' in metric
                    # One decimal in Table 3, two in the others.
                    published = str(accuracy) if accuracy < 50 else f'{accuracy:.2f}'
                    assert f' {published}' in readme.read_text()
                    if accuracy > 50:
                        assert f' {published} ' in (ROOT / model['Config']).read_text().replace(
                            '(', ' '
                        )
    assert sorted(paths) == ALL_CONFIGS
    assert set(names) <= set(list_models())
    assert (
        ModelHub.get('teacher_r50').config.model == read('configs/finetune/teacher_r50.py').model
    )
    for name, path in zip(names, paths):
        entry, config = ModelHub._models_dict[name], read(path)
        assert Path(entry.config) == ROOT / path
        metadata = entry.metadata.data
        if 'teacher' in config.model:
            stem = Path(config.model.teacher.checkpoint).parent.name
            prefix = 'quickstart_' if '/quickstart/' in path else ''
            assert metadata['Teacher'] == prefix + stem
        if path in CONFIGS:
            assert metadata.get('Resolution', sizes(path)[1]) == sizes(path)[1]
            assert (
                metadata.get('Epochs', config.train_cfg.max_epochs) == config.train_cfg.max_epochs
            )


def test_registering_models_twice_changes_nothing(monkeypatch):
    before = ModelHub._register_mmpretrain_models
    resources.register_models()
    assert ModelHub._register_mmpretrain_models == before
    # Where the index is missing, as in a copy of the package alone, nothing is registered.
    monkeypatch.setattr(resources, 'resource_root', lambda: Path('nowhere'))
    resources.register_models()
    assert ModelHub._register_mmpretrain_models == before
    assert resources.list_configs() == []
    # Nor where MMPretrain's hub cannot be imported, which reads files by `modelindex`.
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, 'mmpretrain.apis.model', None)
    resources.register_models()
    assert ModelHub._register_mmpretrain_models == before


@pytest.mark.parametrize(
    'name',
    [
        'ipirm_simclr_r50',
        'ipirm_simsiam_r50',
        'baselines/supervised_r50',
        'stl10/ipirm_simclr_stl10',
    ],
)
def test_learning_rate_scales_to_the_number_of_gpus(name):
    """What --auto-scale-lr does on 8, 4 and 1 GPUs."""
    from mmengine.runner import Runner

    config = Config.fromfile(ROOT / f'configs/{name}.py')
    per_gpu = config.train_dataloader.batch_size
    base = config.auto_scale_lr.base_batch_size
    assert base == 256
    for gpus in (1, 4, 8):
        layer = torch.nn.Linear(2, 2)
        wrapper = build_optim_wrapper(layer, config.optim_wrapper)
        lr = wrapper.param_groups[0]['lr']

        class Fake:
            """What scale_lr asks of a runner."""

            _train_dataloader = dict(batch_size=per_gpu)
            _optim_wrapper = wrapper
            world_size = gpus
            param_schedulers = None

            class logger:  # noqa: N801
                info = staticmethod(lambda text: None)

        Runner.scale_lr(Fake(), wrapper, dict(enable=True, base_batch_size=base))
        assert wrapper.param_groups[0]['lr'] == pytest.approx(lr * per_gpu * gpus / 256)


def test_a_folder_of_ones_own_images(tmp_path):
    """Any depth, size and mode, by changing one path."""
    generator = np.random.default_rng(0)
    for number, (name, mode) in enumerate(
        [('a.png', 'L'), ('deep/b.PNG', 'RGBA'), ('deep/er/c.jpg', 'CMYK'), ('d.webp', 'RGB')]
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (30 + 9 * number, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(path)
    Image.fromarray((np.arange(900).reshape(30, 30) * 72).astype(np.uint16)).save(
        tmp_path / 'deep' / 'e.tif'
    )
    (tmp_path / 'notes.txt').write_text('no image')
    config = Config.fromfile(ROOT / 'configs/ipirm_simclr_r50_own_images.py')
    config.merge_from_dict({'train_dataloader.dataset.data_root': str(tmp_path)})
    data = DATASETS.build(config.train_dataloader.dataset)
    assert len(data) == 5
    assert number_images(data).is_plain
    for index, sample in enumerate(data):
        assert [tuple(view.shape) for view in sample['inputs']] == [(3, 224, 224)] * 2
        assert sample['data_samples'].sample_idx == index


def test_get_model_and_feature_extractor():
    model = get_model(Config.fromfile(QUICKSTART), device='cpu')
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    features = FeatureExtractor(model)([image, image])
    assert len(features) == 2 and features[0][0].shape == (128, 4, 4)
    assert len(model(torch.zeros(1, 3, 28, 28), [DataSample()], mode='predict')) == 1


@pytest.mark.parametrize('name', ['ipirm_simclr_r50', 'quickstart_student_ofd', 'kl_r50'])
def test_get_model_by_name(name):
    model = get_model(name)
    assert type(model).__name__ == model._config.model.type
    assert model._metainfo.name == name
