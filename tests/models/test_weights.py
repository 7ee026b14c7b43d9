"""Loading of weights: keys are mapped and counted, and a file that fits nothing is an error."""

from __future__ import annotations

import pytest
import torch
from mmpretrain.registry import MODELS

from ipirm_mm.errors import UserError
from ipirm_mm.models import load_weights

BASIC = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
CLASSIFIER = dict(
    type='ImageClassifier',
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=5, in_channels=64),
)


@pytest.mark.parametrize('prefix', ['', 'backbone.', 'module.backbone.', 'encoder_q.'])
@pytest.mark.parametrize('wrapped', [False, True])
def test_keys_are_mapped_and_counted(tmp_path, prefix, wrapped):
    torch.manual_seed(3)
    source = MODELS.build(BASIC)
    state = {prefix + key: value for key, value in source.state_dict().items()}
    state['head.weight'] = torch.zeros(3)
    path = tmp_path / 'encoder.pth'
    torch.save(dict(state_dict=state) if wrapped else state, path)
    torch.manual_seed(4)
    target = MODELS.build(BASIC)
    report = load_weights(target, str(path))
    assert report.loaded == len(source.state_dict()) and not report.missing
    assert report.left_over == (0 if prefix else 1)
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value)


def test_a_checkpoint_that_fits_nothing_is_an_error(tmp_path):
    path = tmp_path / 'other.pth'
    torch.save(dict(state_dict={'layer.weight': torch.zeros(2)}), path)
    config = dict(
        BASIC, init_cfg=dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    )
    backbone = MODELS.build(config)
    with pytest.raises(UserError, match='does not fit ResNet: it lacks backbone.conv1.weight'):
        backbone.init_weights()


def test_missing_keys_and_other_shapes_are_counted(tmp_path):
    state = MODELS.build(BASIC).state_dict()
    state.pop('conv1.weight')
    state['bn1.weight'] = torch.zeros(3)
    path = tmp_path / 'part.pth'
    torch.save(state, path)
    report = load_weights(MODELS.build(BASIC), str(path))
    assert report.missing == ['conv1.weight', 'bn1.weight']
    with pytest.raises(UserError, match='it lacks conv1.weight; 2 of'):
        load_weights(MODELS.build(BASIC), str(path), strict=True)


def test_a_pretrained_encoder_is_not_initialised_again(tmp_path):
    torch.manual_seed(5)
    source = MODELS.build(BASIC)
    path = tmp_path / 'encoder.pth'
    torch.save(dict(state_dict={f'backbone.{k}': v for k, v in source.state_dict().items()}), path)
    init = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    model = MODELS.build(dict(CLASSIFIER, backbone=dict(BASIC, init_cfg=init)))
    model.init_weights()
    for key, value in source.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[key], value), key
    missing = 'work_dirs/ipirm_simclr_r50/epoch_800.pth'
    init = dict(type='Pretrained', checkpoint=missing, prefix='backbone.')
    model = MODELS.build(dict(CLASSIFIER, backbone=dict(BASIC, init_cfg=init)))
    message = f'there is no checkpoint {missing} .* train the config ipirm_simclr_r50 first'
    with pytest.raises(UserError, match=message):
        model.init_weights()
