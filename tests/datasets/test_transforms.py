"""Transforms."""

from __future__ import annotations

import random

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from torch.utils.data import DataLoader

from ipirm_mm.datasets import FashionMNIST50, tint
from ipirm_mm.errors import UserError


def build(**config):
    return TRANSFORMS.build(config)


def gray(index, label=3):
    image = np.random.default_rng(index).integers(0, 256, (28, 28, 1), dtype=np.uint8)
    return dict(img=image.repeat(3, 2), sample_idx=index, gt_label=label)


def test_tint_is_the_palette_times_the_grey_value():
    transform = build(type='TintByFactor')
    out = transform(gray(7))
    expected = tint(gray(7)['img'][None, ..., 0], np.array([out['factor']]))[0]
    np.testing.assert_array_equal(out['img'][..., ::-1], expected)
    assert out['img'].shape == (28, 28, 3) and out['img'].flags.writeable
    white = tint(np.full((1, 1, 1), 255, np.uint8), np.array([2]))
    assert white[0, 0, 0].tolist() == [40, 40, 255]


def test_factor_is_seeded_uniform_and_independent_of_the_class():
    transform = build(type='TintByFactor', seed=5)
    factors = np.array([transform.factor_of(i, i % 10) for i in range(5000)])
    assert [transform.factor_of(i, 0) for i in range(50)] == factors[:50].tolist()
    assert np.bincount(factors).min() > 400
    assert abs((factors == np.arange(5000) % 10).mean() - 0.1) < 0.02
    other = build(type='TintByFactor', seed=6)
    assert np.mean([other.factor_of(i, 0) for i in range(500)] == factors[:500]) < 0.2


@pytest.mark.parametrize('follow', [0.5, 0.9, 1.0])
def test_factor_follows_the_class_to_the_given_degree(follow):
    transform = build(type='TintByFactor', follow=follow, shift=4)
    share = np.mean([transform.factor_of(i, i % 10) == (i + 4) % 10 for i in range(4000)])
    assert abs(share - (follow + (1 - follow) / 10)) < 0.03


VIEWS = [dict(type='RandomResizedCrop', scale=28), dict(type='RandomFlip', prob=0.5)]


def test_views_depend_on_seed_epoch_and_image_only():
    transform = build(type='SeededMultiView', num_views=2, transforms=[VIEWS])
    transform.set_epoch(3)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    first = transform(gray(1))['img']
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    np.random.seed(99)
    transform(gray(2))
    again = transform(gray(1))['img']
    assert all((a == b).all() for a, b in zip(first, again))
    assert (first[0] != first[1]).any()
    for change in ((4, 0), (3, 1)):
        transform.set_epoch(*change)
        assert any((a != b).any() for a, b in zip(first, transform(gray(1))['img']))


def test_views_leave_the_generators_of_accelerators_alone(monkeypatch):
    def refuse(*_):
        raise AssertionError('seeded')

    # All that torch.manual_seed seeds beside the generator of the CPU.
    monkeypatch.setattr(torch.cuda, 'manual_seed_all', refuse)
    with pytest.raises(AssertionError, match='seeded'):
        torch.manual_seed(0)
    transform = build(type='SeededMultiView', num_views=2, transforms=[VIEWS])
    transform.set_epoch(0)
    assert len(transform(gray(1))['img']) == 2


def test_draws_of_torch_are_seeded():
    transform = build(type='SeededMultiView', num_views=2, transforms=[VIEWS])
    transform.transforms = [lambda inputs: dict(img=torch.rand(3))] * 2
    transform.set_epoch(0)
    first = transform(gray(1))['img']
    torch.rand(1)
    again = transform(gray(1))['img']
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first[0], first[1])


def test_views_may_load_the_image_themselves(tmp_path):
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), gray(0)['img'])
    transform = build(
        type='SeededMultiView', num_views=2, transforms=[[dict(type='LoadImage'), *VIEWS]]
    )
    assert len(transform(dict(img_path=str(path)))['img']) == 2
    transform.set_epoch(0)
    assert len(transform(dict(img_path=str(path), sample_idx=0))['img']) == 2
    with pytest.raises(UserError, match='needs sample_idx'):
        transform(dict(img_path=str(path)))


def test_without_an_epoch_draws_are_global():
    transform = build(type='SeededMultiView', num_views=2, transforms=[VIEWS])
    np.random.seed(0)
    random.seed(0)
    first = transform(gray(1))['img']
    second = transform(gray(1))['img']
    assert any((a != b).any() for a, b in zip(first, second))


@pytest.mark.parametrize('workers,batch', [(0, 4), (2, 3)])
def test_workers_that_live_on_see_the_epoch(workers, batch):
    pipeline = [
        dict(type='SeededMultiView', num_views=2, transforms=[VIEWS]),
        dict(type='PackInputs'),
    ]
    dataset = FashionMNIST50(indices=12, pipeline=pipeline)
    loader = DataLoader(
        dataset,
        batch_size=batch,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=default_collate,
    )
    expected = FashionMNIST50(indices=12, pipeline=pipeline)
    for epoch in (0, 1):
        dataset.pipeline.transforms[0].set_epoch(epoch)
        expected.pipeline.transforms[0].set_epoch(epoch)
        seen = torch.cat([batch['inputs'][0] for batch in loader])
        for index in range(12):
            assert torch.equal(seen[index], expected[index]['inputs'][0])


def test_load_image_names_the_file(tmp_path):
    broken = tmp_path / 'broken.jpg'
    broken.write_bytes(b'\xff\xd8\xff\xe0 no image')
    for path in (broken, tmp_path / 'missing.jpg'):
        with pytest.raises(UserError, match=f'{path} cannot be read as an image'):
            build(type='LoadImage')(dict(img_path=str(path)))
    with pytest.raises(UserError, match='No such file'):
        build(type='LoadImage')(dict(img_path=str(path)))
    cv2.imwrite(str(tmp_path / 'good.png'), gray(0)['img'])
    transform = build(type='LoadImage', imdecode_backend='opencv')
    with pytest.raises(UserError, match='backend: opencv is not supported'):
        transform(dict(img_path=str(tmp_path / 'good.png')))


def colors():
    """Red, green, blue and white quarters, (40, 60, 3) RGB."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :30], pixels[20:, :30] = (255, 0, 0), (0, 255, 0)
    pixels[:20, 30:], pixels[20:, 30:] = (0, 0, 255), 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    'mode,name',
    [
        ('RGB', 'a.jpg'),
        ('RGB', 'a.webp'),
        ('RGBA', 'a.png'),
        ('P', 'a.png'),
        ('CMYK', 'a.jpg'),
        ('CMYK', 'a.tif'),
    ],
)
def test_images_of_any_mode_become_bgr(tmp_path, mode, name):
    colors().convert(mode).save(tmp_path / name)
    image = build(type='LoadImage')(dict(img_path=str(tmp_path / name)))['img']
    assert image.shape == (40, 60, 3) and image.dtype == np.uint8
    expected = np.array(colors())[..., ::-1].astype(int)
    for row, column in ((5, 5), (35, 5), (5, 55), (35, 55)):
        assert np.abs(image[row, column] - expected[row, column]).max() <= 3


def test_grey_16_bits_and_rotated_images(tmp_path):
    load = build(type='LoadImage')
    ramp = (np.arange(2400).reshape(40, 60) * 27).astype(np.uint16)
    for name in ('deep.png', 'deep.tif'):
        Image.fromarray(ramp).save(tmp_path / name)
        image = load(dict(img_path=str(tmp_path / name)))['img']
        assert np.abs(image[..., 0].astype(int) - ramp // 256).max() <= 1
    for mode in ('L', 'LA', '1'):
        colors().convert(mode).save(tmp_path / f'{mode}.png')
        assert load(dict(img_path=str(tmp_path / f'{mode}.png')))['img'].shape == (40, 60, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    colors().save(tmp_path / 'turned.jpg', exif=exif, quality=95)
    image = load(dict(img_path=str(tmp_path / 'turned.jpg')))['img']
    assert image.shape == (60, 40, 3)
    assert np.abs(image[5, 5].astype(int) - (0, 255, 0)).max() <= 3  # green was at the lower left


def test_a_jpeg_that_breaks_off_is_named(tmp_path):
    path = tmp_path / 'broken.jpg'
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for options in (dict(), dict(progressive=True)):
        Image.fromarray(noise).save(path, **options)
        load = build(type='LoadImage')
        assert load(dict(img_path=str(path)))['img'].shape == (64, 64, 3)
        whole = path.read_bytes()
        path.write_bytes(whole + b'\0' * 9)  # bytes after the end do no harm
        load(dict(img_path=str(path)))
        path.write_bytes(whole[: len(whole) * 2 // 3])
        with pytest.raises(UserError, match=f'{path} cannot be read .* is truncated after'):
            load(dict(img_path=str(path)))
        assert build(type='LoadImage', ignore_empty=True)(dict(img_path=str(path))) is None


@pytest.mark.parametrize(
    'options,message',
    [
        (dict(num_factors=11), 'num_factors must be from 2 to 10, but is 11'),
        (dict(num_factors=2.5), 'num_factors must be a whole number, from 2 to 10, but is 2.5'),
        (dict(seed=-1), 'seed must be at least 0, but is -1'),
        (dict(follow=1.5), 'follow must be from 0 to 1, but is 1.5'),
    ],
)
def test_bad_tint_options(options, message):
    with pytest.raises(UserError, match=message):
        build(type='TintByFactor', **options)


def test_colour_that_follows_the_class_needs_the_class():
    with pytest.raises(UserError, match='needs gt_label'):
        build(type='TintByFactor', follow=1.0).factor_of(0)
