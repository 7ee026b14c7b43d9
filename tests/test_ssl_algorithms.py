"""Every self-supervised algorithm of MMPretrain, and ours: k-NN tells three kinds of pictures."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, run_tool
from mmpretrain.models import ImageClassifier, VisionTransformer
from mmpretrain.models.utils.sparse_modules import SparseHelper
from mmpretrain.registry import MODELS
from PIL import Image

from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import build_loader, extract_features, knn_accuracy
from ipirm_mm.models.distillation.outputs import collect_outputs
from ipirm_mm.models.utils import pooled_feature

SCRIPT = runpy.run_path(str(ROOT / 'docs/list_algorithms.py'), run_name='not_main')
PAGE = (ROOT / 'docs/algorithms.md').read_text(encoding='utf-8')
ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=32)
VIT = dict(arch=ARCH, img_size=64, patch_size=8)
HIVIT = dict(arch=dict(embed_dims=32, depths=[1, 1, 7], num_heads=2), img_size=64)
SWIN = dict(arch=dict(embed_dims=8, depths=[1] * 4, num_heads=[1, 2, 4, 8]), img_size=64)
# Backbones that are masked while their algorithm trains.
MASKED = {
    'MAEViT': VIT,
    'MFFViT': dict(VIT, out_indices=[0, 1]),
    'MILANViT': VIT,
    'MaskFeatViT': VIT,
    'BEiTPretrainViT': VIT,
    'CAEPretrainViT': dict(VIT, layer_scale_init_value=0.1),
    'MAEHiViT': HIVIT,
    'iTPNHiViT': HIVIT,
    'MixMIMPretrainTransformer': dict(SWIN, window_size=[2] * 4),
    'SimMIMSwinTransformer': dict(SWIN, stage_cfgs=dict(block_cfgs=dict(window_size=2))),
    'SparseResNet': dict(depth=18, base_channels=8, stem_channels=8),
}


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """Folder of the pictures of the sweep."""
    folder = tmp_path_factory.mktemp('pictures')
    SCRIPT['draw_pictures'](folder)
    return folder


def read(folder):
    """Pictures and their kinds."""
    paths = sorted(Path(folder).rglob('*.png'))
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 64 - 2
    return images, torch.tensor([int(path.parent.name) for path in paths])


def build(kind, **options):
    torch.manual_seed(0)
    backbone = MODELS.build(dict(type=kind, **options))
    backbone.eval()  # not chained: that of some backbones returns None
    return backbone


def rows_of_page():
    lines = [line for line in PAGE.splitlines() if line.startswith('|')]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines[2:]]


def test_the_page_has_every_algorithm_of_the_registry():
    shown = {cells[0] for cells in rows_of_page()}
    assert shown == SCRIPT['self_supervised']()
    assert len(shown) >= 21
    for cells in rows_of_page():
        for cell in cells[4:]:
            assert cell == 'works' or cell.startswith('refused (')


def test_the_pictures_tell_wrong_features(pictures):
    """Mean over positions: right. Mean over channels, or numbers of what a mask left: chance."""
    (bank, labels), (query, truth) = read(pictures / 'train'), read(pictures / 'val')
    backbone = build('MAEViT', **VIT)

    def accuracy(feature):
        with torch.no_grad():
            return knn_accuracy(feature(bank), labels, feature(query), truth, SCRIPT['NEIGHBORS'])

    assert accuracy(lambda images: backbone(images, None)[-1].mean(1)) >= SCRIPT['LEAST']
    assert accuracy(lambda images: backbone(images, None)[-1].mean(2)) < 70
    assert accuracy(lambda images: backbone(images)[-1].float()) < 70


@pytest.mark.parametrize('kind', MASKED)
def test_a_classifier_sees_whole_images_through_a_backbone_that_is_masked(kind, pictures):
    """As a teacher or an encoder; the same rows twice, and unlike those of other pictures."""
    images, _ = read(pictures / 'val')
    images = images[::6]
    model = ImageClassifier(backbone=build(kind, **MASKED[kind])).eval()
    with torch.no_grad():
        rows = pooled_feature(model, images)
        # Another draw of a mask, and another batch, would change them.
        torch.testing.assert_close(pooled_feature(model, images[:2]), rows[:2])
        torch.testing.assert_close(collect_outputs(model, images, []).feature, rows)
    assert rows.is_floating_point() and rows.shape[0] == len(images) and rows.ndim == 2
    assert torch.pdist(rows).min() > 0
    assert not model.backbone._forward_pre_hooks


def test_mff_encodes_whole_images():
    backbone = build('MFFViT', **MASKED['MFFViT'])
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        found, expected = backbone(images, mask=None), VisionTransformer.forward(backbone, images)
        assert len(backbone(images)) == 4  # with a mask in training, as before
    assert len(found) == 2
    for own, other in zip(found, expected):
        assert torch.equal(own, other)


def test_spark_encodes_without_a_mask_of_the_training():
    """``extract_feat`` itself, which MMPretrain's ``FeatureExtractor`` calls."""
    torch.manual_seed(0)
    small = dict(type='SparseResNet', out_indices=(0, 1, 2, 3), **MASKED['SparseResNet'])
    neck = dict(type='SparKLightDecoder', feature_dim=32, upsample_ratio=32, mid_channels=0)
    head = dict(
        type='SparKPretrainHead', loss=dict(type='PixelReconstructionLoss', criterion='L2')
    )
    spark = MODELS.build(
        dict(
            type='SparK', backbone=small, neck=neck, head=head, input_size=64, enc_dec_norm_dim=64
        )
    )
    spark.eval()
    images = torch.rand(2, 3, 64, 64)
    found = []
    for mask in (None, torch.zeros(2, 1, 2, 2, dtype=torch.bool)):
        SparseHelper._cur_active = mask
        with torch.no_grad():
            found.append(spark.extract_feat(images)[-1])
        assert SparseHelper._cur_active is mask
    SparseHelper._cur_active = None
    assert torch.equal(*found) and found[0].abs().sum() > 0


def test_numbers_of_patches_are_no_features():
    class Numbers(torch.nn.Module):
        def forward(self, x):
            return x, torch.arange(6).reshape(2, 3)

    with pytest.raises(UserError, match='Numbers gives torch.int64 instead of features'):
        pooled_feature(ImageClassifier(backbone=Numbers()), torch.rand(2, 3, 8, 8))


def test_one_view_gets_the_first_of_two_norms():
    norms = dict(mean=[1, 2, 3], std=[2, 2, 2], second_mean=[9, 9, 9], second_std=[5, 5, 5])
    prepare = MODELS.build(dict(type='TwoNormDataPreprocessor', to_rgb=True, **norms))
    images = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8)
    expected = (images.flip(1).float() - torch.tensor([1.0, 2, 3]).view(3, 1, 1)) / 2
    assert torch.equal(prepare(dict(inputs=images, data_samples=[]))['inputs'], expected)
    pair = prepare(dict(inputs=[images, images], data_samples=[]))['inputs']
    assert torch.equal(pair[0], expected)
    assert torch.equal(pair[1], (images.flip(1).float() - 9) / 5)


def test_each_of_two_views_gets_the_first_norm(pictures):
    """Features of the second view are not those of a target."""
    views = dict(type='MultiView', num_views=2, transforms=[[dict(type='RandomFlip', prob=0.0)]])
    data = dict(
        type='CustomDataset',
        data_root=str(pictures / 'val'),
        pipeline=[dict(type='LoadImageFromFile'), views, dict(type='PackInputs')],
    )
    norms = dict(mean=[1, 2, 3], std=[2, 2, 2], second_mean=[9, 9, 9], second_std=[5, 5, 5])
    preprocessor = dict(type='TwoNormDataPreprocessor', **norms)
    backbone = dict(type='BEiTPretrainViT', **VIT)
    model = MODELS.build(dict(type='BEiT', backbone=backbone, data_preprocessor=preprocessor))
    first, second = extract_features(model, build_loader(dict(dataset=data)))['features']
    assert first.shape == (24, 32) and torch.equal(first, second)


@pytest.mark.slow
def test_algorithms_are_as_the_page_says():
    SCRIPT['prepare']()
    assert SCRIPT['page'](SCRIPT['rows']([], run_tool)) == PAGE
