"""Every config builds, takes a step and passes `val`; MMPretrain's interfaces accept ours."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from ipirm_mm.models.distillers import CRD
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmpretrain import FeatureExtractor, get_model
from mmpretrain.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS
from mmpretrain.structures import DataSample
from PIL import Image

from ipirm_mm.datasets import base_dataset

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.parts
)
# Nothing of these is trained.
ENSEMBLES = [path for path in CONFIGS if '/ensemble' in path]
CONFIGS = [path for path in CONFIGS if path not in ENSEMBLES]
QUICKSTART = ROOT / 'configs/quickstart/ipirm_simclr.py'


def sizes(path):
    """Size of an image, of a view and of a test image."""
    if 'quickstart' in path:
        return 28, 28, 28
    if 'stl10' in path:
        return 96, 32, 96
    if 'cifar100' in path:
        return 32, 32, 32
    size = re.search(r'_(3\d\d|4\d\d)\.py$', path)
    if size:
        return 250, int(size[1]), int(size[1])
    if re.search(r'/(ofd|ofd_last|crd|crd_kl)_r50', path):
        return 250, 330, 330
    teacher = re.search(r'/teacher_(\w+)\.py', path)
    if teacher and teacher[1] != 'r50':  # at the (smaller) resolution of its student
        side = min(int(name[-6:-3]) for name in CONFIGS if f'/kl_{teacher[1]}_' in name)
        return 250, side, side
    return 250, 224, 224


def test_there_are_configs():
    for name in ('ipirm_simclr_r50', 'ipirm_simsiam_r50', 'supervised_r50', 'linear_simsiam_r50'):
        assert f'configs/{name}.py' in CONFIGS
    assert len([name for name in CONFIGS if '/kl_res' in name]) >= 6
    assert len(CONFIGS) >= 70


@pytest.mark.parametrize('path', CONFIGS)
def test_config_takes_a_step_and_passes_val(path, tmp_path):
    config = Config.fromfile(ROOT / path)
    assert 'ipirm_mm' in config.custom_imports['imports']
    heading = (ROOT / path).read_text().split('\n_base_')[0]
    origin = ('Report, ', "authors' script", 'laptop', 'Control: ')
    assert any(word in heading for word in origin), 'what does it stand for?'
    for hook in config.get('custom_hooks', []):
        HOOKS.build(hook)
    size, view, test_size = sizes(path)
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / 'image.png')

    def batch(loader):
        pipeline = Compose([TRANSFORMS.build(step) for step in loader.dataset.pipeline])
        samples = []
        for index in range(2):
            known = dict(sample_idx=index, gt_label=index)
            if size == 250:
                known['img_path'] = str(tmp_path / 'image.png')
            else:
                known['img'] = image.copy()
            samples.append(pipeline(known))
        return default_collate(samples)

    if config.model.backbone.get('init_cfg'):  # the checkpoint of Stage I
        assert config.model.backbone.init_cfg.prefix == 'backbone.'
        config.model.backbone.pop('init_cfg')
    preprocessor = config.model.get('data_preprocessor') or config.data_preprocessor
    model = revert_sync_batchnorm(
        MODELS.build({**config.model, 'data_preprocessor': preprocessor})
    )
    for teacher in getattr(model, 'beside', ()):  # as if its checkpoint had been there
        assert teacher.checkpoint.startswith('work_dirs/teacher')
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
    data = batch(config.train_dataloader)
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
        assert path.endswith('own_images.py')
        return
    model.eval()
    data = batch(config.val_dataloader)
    assert data['inputs'][0].shape == (3, test_size, test_size)
    outputs = model.val_step(data)
    assert len(outputs) == 2
    metric = METRICS.build(config.val_evaluator)
    metric.process(data, [sample.to_dict() for sample in outputs])
    scores = metric.evaluate(2)
    assert scores and all(0 <= float(score) <= 100 for score in scores.values())


@pytest.mark.parametrize('path', ENSEMBLES)
def test_ensembles_name_their_members_and_show_each_its_views(path):
    config = Config.fromfile(ROOT / path)
    assert re.search("Report, Table 2|Table 2 at a laptop's scale", (ROOT / path).read_text())
    members = config.model.members
    (step,) = config.test_dataloader.dataset.pipeline
    assert step.members == members
    image = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    for member in members:
        epochs = Config.fromfile(ROOT / member.config).train_cfg.max_epochs
        name = Path(member.config).stem
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


@pytest.mark.parametrize('name', ['flip', 'five_crop', 'ten_crop'])
def test_bases_of_test_time_augmentation(name):
    config = Config.fromfile(ROOT / f'configs/_base_/tta/{name}.py')
    pipeline = Compose([TRANSFORMS.build(step) for step in config.tta_pipeline[1:]])
    image = np.zeros((300, 280, 3), np.uint8)
    views = pipeline(dict(img=image, img_shape=(300, 280)))['inputs']
    assert len(views) == dict(flip=2, five_crop=5, ten_crop=10)[name]
    assert {tuple(view.shape) for view in views} == {(3, 224, 224)}
    layer = dict(
        type='ImageClassifier',
        backbone=dict(type='SmallConvNet', channels=(8, 16)),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=16),
    )
    assert MODELS.build({**config.tta_model, 'module': layer}).policy in ('gmean', 'tsharpen')


@pytest.mark.parametrize(
    'name', ['ipirm_simclr_r50', 'ipirm_simsiam_r50', 'supervised_r50', 'ipirm_simclr_stl10']
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
    assert base_dataset(data) is data
    for index, sample in enumerate(data):
        assert [tuple(view.shape) for view in sample['inputs']] == [(3, 224, 224)] * 2
        assert sample['data_samples'].sample_idx == index


def test_get_model_and_feature_extractor():
    model = get_model(Config.fromfile(QUICKSTART), device='cpu')
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    features = FeatureExtractor(model)([image, image])
    assert len(features) == 2 and features[0][0].shape == (128, 4, 4)
    assert len(model(torch.zeros(1, 3, 28, 28), [DataSample()], mode='predict')) == 1
