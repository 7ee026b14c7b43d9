"""Every config builds, and its model takes a step; MMPretrain's interfaces accept ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.model import revert_sync_batchnorm
from mmpretrain import FeatureExtractor, get_model
from mmpretrain.registry import HOOKS, MODELS, TRANSFORMS
from mmpretrain.structures import DataSample
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in path.parts
)
QUICKSTART = ROOT / 'configs/quickstart/ipirm_simclr.py'


def test_there_are_configs():
    assert 'configs/ipirm_simclr_r50.py' in CONFIGS and len(CONFIGS) >= 9


@pytest.mark.parametrize('path', CONFIGS)
def test_config_builds_and_its_pipelines_and_model_work(path, tmp_path):
    config = Config.fromfile(ROOT / path)
    assert 'ipirm_mm' in config.custom_imports['imports']
    assert path.startswith('configs/quickstart') or 'Report' in (ROOT / path).read_text()
    for hook in config.get('custom_hooks', []):
        HOOKS.build(hook)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / 'image.png')
    size = 28 if 'quickstart' in path else 224
    batches = []
    for loader in (config.train_dataloader, config.test_dataloader):
        pipeline = Compose([TRANSFORMS.build(step) for step in loader.dataset.pipeline])
        samples = []
        for index in range(2):
            known = dict(sample_idx=index, gt_label=index, img_path=str(tmp_path / 'image.png'))
            if 'quickstart' in path:
                known['img'] = image[:28, :28].copy()
            samples.append(pipeline(known))
        batches.append(default_collate(samples))
    if path.endswith('linear_r50.py'):
        config.model.backbone.pop('init_cfg')
    preprocessor = config.model.get('data_preprocessor') or config.data_preprocessor
    model = revert_sync_batchnorm(
        MODELS.build({**config.model, 'data_preprocessor': preprocessor})
    )
    data = model.data_preprocessor(batches[0], True)
    losses = model(**data, mode='loss')
    losses['loss'].backward()
    assert torch.isfinite(losses['loss'])
    model.eval()
    data = model.data_preprocessor(batches[1], False)
    assert data['inputs'].shape == (2, 3, size, size)
    with torch.no_grad():
        assert len(model(**data, mode='predict')) == 2


def test_get_model_and_feature_extractor():
    model = get_model(Config.fromfile(QUICKSTART), device='cpu')
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    features = FeatureExtractor(model)([image, image])
    assert len(features) == 2 and features[0][0].shape == (128, 4, 4)
    assert len(model(torch.zeros(1, 3, 28, 28), [DataSample()], mode='predict')) == 1
