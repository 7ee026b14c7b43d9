"""Ensembles as a model, the views of their members, and pipelines of several views."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmpretrain.registry import MODELS, TRANSFORMS

from ipirm_mm.errors import UserError
from ipirm_mm.functional import merge_scores
from ipirm_mm.models import plain_classifier
from ipirm_mm.models.tta import tta_pipeline

CONFIG = """
data_preprocessor = dict(mean=[{mean}] * 3, std=[50.0] * 3, to_rgb=True)
model = dict(
    type='{kind}',
    backbone=dict(type='SmallConvNet', channels=(8, {width}), norm_cfg=dict(type='BN')),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes={classes}, in_channels={width}),
    {more}
)
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type='ResizeEdge', scale={resize}, edge='short'),
    dict(type='CenterCrop', crop_size={crop}),
    dict(type='PackInputs'),
]))
"""
DISTILLED = "distill_losses=[dict(type='LogitKL')], teacher=dict(model='none', checkpoint='none')"


def member(folder, name, seed=0, **options):
    """Config and checkpoint of a small classifier with weights of a seed."""
    defaults = dict(
        mean=100.0, kind='ImageClassifier', width=16, classes=5, resize=20, crop=16, more=''
    )
    path = folder / f'{name}.py'
    path.write_text(CONFIG.format(**defaults | options))
    torch.manual_seed(seed)
    model = MODELS.build(plain_classifier(Config.fromfile(path)))
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.1)
    torch.nn.init.normal_(model.head.fc.weight)
    torch.save(dict(state_dict=model.state_dict()), folder / f'{name}.pth')
    return dict(config=str(path), checkpoint=str(folder / f'{name}.pth'))


def images(count=3):
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (24, 30, 3), dtype=np.uint8) for _ in range(count)]


def batch_of(pipeline):
    built = TRANSFORMS.build(dict(type='Compose', transforms=pipeline))
    return default_collate(
        [built(dict(img=image, sample_idx=n, gt_label=n)) for n, image in enumerate(images())]
    )


def scores_of(samples):
    return torch.stack([sample.pred_score for sample in samples])


def alone(one):
    """Probabilities of a member by itself, with its own test-time augmentation."""
    config = Config.fromfile(one['config'])
    model = MODELS.build(plain_classifier(config))
    model.load_state_dict(torch.load(one['checkpoint'])['state_dict'])
    pipeline = config.test_dataloader.dataset.pipeline
    options = {key: one[key] for key in ('crops', 'crop_size', 'resize') if key in one}
    if options:
        model = MODELS.build(
            dict(type='ScoreMergingTTA', module=model, policy=one.get('policy', 'mean'))
        )
        pipeline = tta_pipeline(pipeline, **options)
    model.eval()
    return scores_of(model.test_step(batch_of(pipeline)))


@pytest.mark.parametrize('policy', ['mean', 'gmean', 'tsharpen', 'weighted', 'weighted_tsharpen'])
def test_members_of_different_resolution_and_views(tmp_path, policy):
    members = [
        member(tmp_path, 'a'),
        member(tmp_path, 'b', 1, width=24, resize=24, crop=20, mean=50.0)
        | dict(crops='ten', policy='tsharpen'),
        member(tmp_path, 'c', 2, kind='DistillingClassifier', more=DISTILLED)
        | dict(crops='flip', resize=22),
    ]
    weights = [0.5, 0.2, 0.3] if policy.startswith('weighted') else None
    model = MODELS.build(
        dict(type='EnsembleClassifier', members=members, policy=policy, weights=weights)
    )
    model.eval()
    data = batch_of([dict(type='MemberViews', members=members)])
    assert [tuple(view.shape[1:]) for view in data['inputs']] == [
        (3, 16, 16), *[(3, 20, 20)] * 10, *[(3, 16, 16)] * 2
    ]  # fmt: skip
    merged = model.test_step(data)
    expected = merge_scores(torch.stack([alone(one) for one in members]), policy, weights)
    torch.testing.assert_close(scores_of(merged), expected)
    assert [int(sample.pred_label) for sample in merged] == expected.argmax(1).tolist()
    assert [int(sample.gt_label) for sample in merged] == [0, 1, 2]
    torch.testing.assert_close(scores_of(model(**data)), expected)


def test_of_a_model_with_itself(tmp_path):
    one = member(tmp_path, 'a')
    model = MODELS.build(dict(type='EnsembleClassifier', members=[one, one]))
    model.eval()
    data = batch_of([dict(type='MemberViews', members=[one, one])])
    torch.testing.assert_close(scores_of(model.test_step(data)), alone(one))


def test_what_an_ensemble_refuses(tmp_path):
    one, other = member(tmp_path, 'a'), member(tmp_path, 'b', classes=7)

    def build(**options):
        return MODELS.build(dict(type='EnsembleClassifier', **dict(members=[one]) | options))

    for options, message in (
        (dict(members=[]), 'members is empty'),
        (dict(policy='median'), "policy must be one of .* but is 'median'"),
        (dict(policy='weighted'), "'weighted' needs weights"),
        (dict(weights=[1.0]), "policy is 'mean' and weights are"),
        (dict(policy='weighted', weights=[0.5, 0.5]), '1 members, but 2 weights'),
        (dict(policy='weighted', weights='none.json'), 'no file of weights none.json: make it'),
        (dict(members=[dict(config='x.py')]), "has config and checkpoint.* one has .'config'."),
        (dict(members=[one | dict(crop=3)]), 'has config and checkpoint'),
        (dict(members=[one | dict(crop_size=3)]), 'sets crop_size or resize: set crops too'),
        (dict(members=[one | dict(config='x.py')]), 'no config file x.py of a member'),
        (dict(members=[one | dict(checkpoint='x.pth')]), 'no checkpoint x.pth of .*a.py'),
        (dict(members=[one | dict(checkpoint=other['checkpoint'])]), 'does not fit'),
    ):
        with pytest.raises(UserError, match=message):
            build(**options)
    for text in ('', '{}', '{"weights": [-1, 2]}', '{"weights": "x"}'):
        (tmp_path / 'w.json').write_text(text)
        with pytest.raises(UserError, match='w.json'):
            build(policy='weighted', weights=str(tmp_path / 'w.json'))
    (tmp_path / 'w.json').write_text(json.dumps(dict(weights=[2], members=['a'])))
    assert build(policy='weighted', weights=str(tmp_path / 'w.json')).weights == [2.0]
    model = build(members=[one, other])
    with pytest.raises(UserError, match=r'members of the ensemble have \[5, 7\] classes'):
        model.test_step(batch_of([dict(type='MemberViews', members=[one, other])]))
    with pytest.raises(UserError, match='needs 2 views of each image, but gets 1'):
        model.test_step(batch_of([dict(type='MemberViews', members=[one])]))
    with pytest.raises(UserError, match="called in mode 'loss': train its members"):
        model(None, None, mode='loss')


LOAD = dict(type='LoadImageFromFile')
EDGE = dict(type='ResizeEdge', scale=256, edge='short')
CENTER = dict(type='mmpretrain.CenterCrop', crop_size=224)
PACK = dict(type='PackInputs')


def test_pipelines_of_several_views():
    pipeline = [LOAD, EDGE, CENTER, PACK]
    ten = dict(type='TenCrop', crop_size=224, transforms=[PACK])
    assert tta_pipeline(pipeline, 'ten') == [LOAD, EDGE, ten]
    five = dict(type='FiveCrop', crop_size=192, transforms=[PACK])
    assert tta_pipeline(pipeline, 'five', 192, 288) == [LOAD, EDGE | dict(scale=288), five]
    flip = dict(type='HorizontalFlip', transforms=[PACK])
    assert tta_pipeline(pipeline, 'flip') == [LOAD, EDGE, CENTER, flip]
    center = dict(type='CenterCrop', crop_size=192)
    assert tta_pipeline(pipeline, 'flip', 192) == [LOAD, EDGE, center, flip]
    once = dict(type='TestTimeAug', transforms=[[PACK]])
    assert tta_pipeline(pipeline, 'center') == [LOAD, EDGE, CENTER, once]
    assert pipeline == [LOAD, EDGE, CENTER, PACK]
    whole = [LOAD, dict(type='Resize', scale=32), PACK]
    with pytest.raises(UserError, match='ten crops need a size, but the test pipeline has no'):
        tta_pipeline(whole, 'ten')
    with pytest.raises(UserError, match='has 0 ResizeEdge, of which one is needed'):
        tta_pipeline([LOAD, PACK], 'flip', resize=256)
    with pytest.raises(UserError, match="crops must be one of .*'ten'.* but is 'twelve'"):
        tta_pipeline(pipeline, 'twelve')


def test_a_config_without_a_classifier_is_refused():
    with pytest.raises(UserError, match='has no classifier: its model.type is IPIRMSimCLR'):
        plain_classifier(Config(dict(model=dict(type='IPIRMSimCLR'))))
