"""Crops and flips for test-time augmentation, where torchvision has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain.registry import TRANSFORMS
from torchvision.transforms import functional as tv

from ipirm_mm.datasets import FiveCrop, HorizontalFlip, PositionCrop, TenCrop
from ipirm_mm.errors import UserError

ORACLE = Path(__file__).parents[1] / 'data' / 'kd_oracle_merging.npz'
PACK = [dict(type='PackInputs')]


def views(transform, image):
    packed = transform(dict(img=image, gt_label=3, sample_idx=7))
    assert all(sample.gt_label.item() == 3 for sample in packed['data_samples'])
    return packed['inputs']


def test_crops_of_the_authors():
    with np.load(ORACLE, allow_pickle=False) as arrays:
        height, width, *crop = arrays['crop/a/size'].tolist()
        five, ten = arrays['crop/a/tv_five'], arrays['crop/a/tv_ten']
    image = np.arange(height * width, dtype=np.int16).reshape(height, width, 1)
    for kind, expected in ((FiveCrop, five), (TenCrop, ten)):
        for view, array in zip(views(kind(tuple(crop), PACK), image), expected):
            assert view[0].tolist() == array.tolist()


@pytest.mark.parametrize('shape,crop', [((9, 12), 4), ((8, 7), (5, 6)), ((5, 5), 5), ((6, 9), 1)])
def test_crops_of_torchvision(shape, crop):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    size = [crop, crop] if isinstance(crop, int) else list(crop)
    for kind, expected in (
        (FiveCrop, tv.five_crop(tensor, size)),
        (TenCrop, tv.ten_crop(tensor, size)),
    ):
        for ours, theirs in zip(views(kind(crop, PACK), image), expected):
            assert torch.equal(ours, theirs)


def test_flip():
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    plain, mirrored = views(HorizontalFlip(PACK), image)
    assert torch.equal(plain, torch.from_numpy(image).permute(2, 0, 1))
    assert torch.equal(mirrored, plain.flip(-1))


def test_what_is_refused():
    image = np.zeros((4, 6, 3), np.uint8)
    with pytest.raises(UserError, match='a crop of 5x5 does not fit the image of 4x6'):
        views(FiveCrop(5, PACK), image)
    with pytest.raises(UserError, match="'center'.*but is 'middle'"):
        PositionCrop(3, 'middle')
    with pytest.raises(UserError, match='crop_size must be positive'):
        TRANSFORMS.build(dict(type='TenCrop', crop_size=0, transforms=PACK))
