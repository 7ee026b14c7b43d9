"""Crops that PyTorch resizes, against MMPretrain's by Pillow."""

from __future__ import annotations

import numpy as np
import pytest
from mmengine.dataset import Compose
from mmpretrain.datasets.transforms import RandomResizedCrop
from mmpretrain.registry import TRANSFORMS
from PIL import Image

from ipirm_mm.datasets import TorchRandomResizedCrop
from ipirm_mm.errors import UserError


def photo(height, width, channels=3):
    coarse = np.random.default_rng(height).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return image if channels == 3 else image[..., :channels].copy()


def crop(transform, image, seed):
    np.random.seed(seed)
    return transform(dict(img=image))


@pytest.mark.parametrize('size', [(30, 40), (375, 500), (60, 200)])
@pytest.mark.parametrize('scale', [224, (20, 33)])
def test_crops_are_those_of_pillow_but_for_rounding(size, scale):
    ours = TorchRandomResizedCrop(scale)
    theirs = RandomResizedCrop(scale, backend='pillow')
    for seed in range(8):
        found = crop(ours, photo(*size), seed)
        wanted = crop(theirs, photo(*size), seed)
        assert found['img_shape'] == wanted['img_shape'] == found['img'].shape
        assert found['img'].dtype == np.uint8
        apart = np.abs(found['img'].astype(int) - wanted['img'])
        assert apart.max() <= 2
        assert (apart > 1).mean() < 1e-3


def test_gray_images():
    theirs = RandomResizedCrop(20, backend='pillow')
    for image in (photo(50, 40)[..., 0], photo(50, 40, channels=1)):
        found = crop(TorchRandomResizedCrop(20), image, 3)['img']
        wanted = crop(theirs, photo(50, 40)[..., 0], 3)['img']
        assert found.shape == (20, 20, *image.shape[2:])
        assert np.abs(found.reshape(20, 20).astype(int) - wanted).max() <= 1


def test_the_transforms_that_follow_take_its_images():
    steps = [
        dict(type='RandomFlip', prob=1.0),
        dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
        dict(type='RandomGrayscale', prob=1.0, keep_channels=True),
        dict(type='GaussianBlur', magnitude_range=(1.0, 1.0), magnitude_std='inf', prob=1.0),
        dict(type='Solarize', thr=128, prob=1.0),
        dict(type='PackInputs'),
    ]
    following = Compose([TRANSFORMS.build(step) for step in steps])
    image = crop(TorchRandomResizedCrop(32), photo(60, 80), 5)['img']
    packed = []
    for given in (image, np.ascontiguousarray(image)):
        np.random.seed(1)
        packed.append(following(dict(img=given))['inputs'])
    assert packed[0].shape == (3, 32, 32)
    assert packed[0].equal(packed[1])


def test_what_it_does_not_take():
    with pytest.raises(UserError, match='neither backend nor interpolation'):
        TorchRandomResizedCrop(20, backend='cv2')
    with pytest.raises(UserError, match='takes uint8 images, but got float32'):
        TorchRandomResizedCrop(20)(dict(img=photo(30, 30).astype(np.float32)))
