"""Views of a batch at once, against torchvision and MMPretrain image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from helpers import ROOT, checkpoint, losses, partitions, train_stage_one
from mmengine.config import Config
from mmengine.dataset import Compose
from mmpretrain.datasets import PackInputs, RandomResizedCrop
from mmpretrain.registry import MODELS, TRANSFORMS
from mmpretrain.structures import DataSample

from ipirm_mm.datasets import PackWithSeed
from ipirm_mm.errors import UserError
from ipirm_mm.models.views import (
    Draws,
    apply_to_axes,
    blur_matrix,
    crop_matrix,
    jitter_colors,
    to_gray,
    turn_hue,
)
from ipirm_mm.models.views.batched_views import make_views
from ipirm_mm.models.views.steps import build_steps

SIMCLR = Config.fromfile(ROOT / 'configs/_base_/datasets/vipriors_simclr.py')
CROP = dict(type='RandomResizedCrop', scale=20, backend='pillow')
FLIP = dict(type='RandomFlip', prob=0.5)


def photos(count=6, height=37, width=52, channels=3, seed=0):
    """Smooth random images, 0 to 255."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, channels, 9, 9, generator=generator) * 255
    return torch.nn.functional.interpolate(images, (height, width), mode='bilinear')


def preprocessor(*transforms, **options):
    return MODELS.build(dict(type='BatchedViews', transforms=transforms, **options))


def batch(images, seeds):
    return dict(
        inputs=images, data_samples=[DataSample(metainfo=dict(view_seed=int(s))) for s in seeds]
    )


def test_draws_are_split_mix_with_a_sequence_per_image():
    mask, gamma = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(z):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    seeds = [0, 1, 2**62 + 12345]
    draws = Draws(torch.tensor(seeds))
    found = torch.cat([draws.uniform(2), draws.uniform(3)], 1)
    for seed, row in zip(seeds, found):
        start = mix(seed)
        wanted = [(mix((start + n * gamma) & mask) >> 11) / 2**53 for n in range(1, 6)]
        assert row.tolist() == wanted


def test_draws_are_uniform_and_independent():
    draws = Draws(torch.arange(20000))
    x = torch.cat([draws.uniform(3), draws.uniform(2, 0.0, 1.0)], 1)
    assert x.min() >= 0 and x.max() < 1
    torch.testing.assert_close(x.mean(0), torch.full((5,), 0.5).double(), atol=0.01, rtol=0)
    torch.testing.assert_close(x.var(0), torch.full((5,), 1 / 12).double(), atol=0.003, rtol=0)
    assert (torch.corrcoef(x.T) - torch.eye(5)).abs().max() < 0.03
    assert torch.corrcoef(torch.stack([x[:-1, 0], x[1:, 0]]))[0, 1].abs() < 0.03
    orders = Draws(torch.arange(24000)).order(4)
    counts = torch.unique(orders, dim=0, return_counts=True)[1]
    assert len(counts) == 24 and counts.min() > 850 and counts.max() < 1150


@pytest.mark.parametrize('out', [(8, 8), (37, 52), (64, 48)])
def test_crops_are_those_of_torchvision(out):
    images = photos()
    boxes = [(0, 0, 37, 52), (3, 5, 20, 31), (36, 51, 1, 1), (0, 40, 37, 12), (10, 0, 2, 52)]
    top, left, h, w = torch.tensor([*boxes, (1, 1, 35, 50)]).T
    rows, columns = crop_matrix(top, h, 37, out[0]), crop_matrix(left, w, 52, out[1])
    found = apply_to_axes(images, rows, columns)
    for image, y, box in zip(images, found, [*boxes, (1, 1, 35, 50)]):
        wanted = tv.resized_crop(image, *box, list(out), antialias=True)
        torch.testing.assert_close(y, wanted, atol=0.05, rtol=0)


@pytest.mark.parametrize('direction', ['horizontal', 'vertical'])
@pytest.mark.parametrize('prob', [0.0, 0.3, 1.0])
def test_a_flip_after_a_crop_is_done_by_the_crop(direction, prob):
    """Every bit is that of a flip of its own, also of a flip that follows."""
    flips = [dict(type='RandomFlip', prob=prob, direction=direction), FLIP]
    apart = [build_steps([TRANSFORMS.build(step)], rgb=True)[0] for step in (CROP, *flips)]
    together = build_steps([TRANSFORMS.build(step) for step in (CROP, *flips)], rgb=True)
    assert (len(apart), len(together)) == (3, 2)
    images, seeds = photos(40).byte(), torch.arange(40)[None]
    (wanted,), (found,) = (make_views([images], seeds, steps) for steps in (apart, together))
    assert torch.equal(found, wanted)
    (plain,) = make_views([images], seeds, apart[:1])
    unchanged = (found == plain).flatten(1).all(1).float().mean()
    share = 0.5 if direction == 'horizontal' else (1 - prob) / 2  # two flips are none
    assert abs(unchanged - share) < 0.2


def test_views_of_a_pipeline_are_those_of_as_many_pipelines():
    images, seeds = photos(6).byte(), range(6)
    steps = SIMCLR.view_pipeline[1:]
    short = preprocessor([CROP], [CROP, *steps], num_views=[1, 2])
    long = preprocessor([CROP], [CROP, *steps], [CROP, *steps], num_views=[1, 1, 1])
    found, wanted = (p(batch(images, seeds), True)['inputs'] for p in (short, long))
    assert len(found) == 3 and all(map(torch.equal, found, wanted))
    assert not torch.equal(found[1], found[2])


def test_colors_are_those_of_torchvision():
    count = 24
    images = photos(count)
    images[0] = images[0, :1]  # gray: no hue
    images[1] = 0
    generator = torch.Generator().manual_seed(3)
    factors = 0.2 + 1.6 * torch.rand(count, 3, generator=generator).double()
    hue = torch.rand(count, generator=generator).double() - 0.5
    order = torch.stack([torch.randperm(4, generator=generator) for _ in range(count)])
    found = jitter_colors(images.clone(), factors, hue, order)
    for n in range(count):
        x = images[n] / 255
        for step in order[n].tolist():
            if step == 3:
                x = tv.adjust_hue(x, float(hue[n]))
            else:
                name = ('brightness', 'contrast', 'saturation')[step]
                x = getattr(tv, f'adjust_{name}')(x, float(factors[n, step]))
        torch.testing.assert_close(found[n] / 255, x, atol=1 / 255, rtol=0)
    unchanged = jitter_colors(images.clone(), torch.ones(count, 3).double(), None, order)
    torch.testing.assert_close(unchanged, images, atol=1e-3, rtol=0)


def test_a_turn_of_the_hue_and_back_changes_nothing():
    images = photos(4)
    turn = torch.tensor([0.0, 0.1, 0.5, -0.37])
    torch.testing.assert_close(turn_hue(turn_hue(images, turn), -turn), images, atol=0.01, rtol=0)
    assert (turn_hue(images, turn)[1:] - images[1:]).abs().max() > 20


@pytest.mark.parametrize('radius', [2, 6])
def test_blur_is_that_of_torchvision(radius):
    images = photos()
    sigma = torch.tensor([0.1, 0.5, 1.0, 1.3, 2.0, 7.0])
    rows, columns = (blur_matrix(sigma, size, radius) for size in images.shape[2:])
    found = apply_to_axes(images, rows, columns)
    for n in range(6):
        wanted = tv.gaussian_blur(images[n], [2 * radius + 1] * 2, [float(sigma[n])] * 2)
        torch.testing.assert_close(found[n], wanted, atol=0.05, rtol=0)


def test_gray_is_that_of_torchvision():
    images = photos()
    torch.testing.assert_close(to_gray(images), tv.rgb_to_grayscale(images), atol=0.1, rtol=0)


@pytest.mark.parametrize('height,width', [(40, 40), (20, 90), (100, 10)])
def test_boxes_of_crops_are_distributed_as_those_of_mmpretrain(height, width):
    theirs = RandomResizedCrop(20, crop_ratio_range=(0.2, 1.0))
    (step,) = build_steps([theirs], rgb=True)
    count = 3000
    found = torch.stack(step.draw(Draws(torch.arange(count)), height, width), 1).numpy()
    np.random.seed(0)
    image = np.zeros((height, width, 3), np.uint8)
    wanted = np.array([theirs.rand_crop_params(image) for _ in range(count)])
    for place, (ours, own) in enumerate(zip(found.T, wanted.T)):
        for level in (5, 25, 50, 75, 95):
            near = np.abs(np.percentile(ours, level) - np.percentile(own, level))
            assert near <= 1 + 0.03 * (height, width)[place % 2], (place, level)
    assert (found[:, 0] + found[:, 2]).max() <= height
    assert (found[:, 1] + found[:, 3]).max() <= width
    assert found.min() >= 0


@pytest.mark.parametrize('to_rgb', [True, False])
def test_views_have_the_statistics_of_the_pipeline_per_image(to_rgb):
    """Mean and deviation over 300 draws of every channel, and how many views are gray."""
    pipeline = [dict(step) for step in SIMCLR.view_pipeline]
    pipeline[0] = dict(CROP, scale=24)
    image = photos(1, 32, 32)[0].round().byte()
    count = 300
    ours = preprocessor(pipeline, num_views=1, to_rgb=to_rgb)
    images = image.expand(count, -1, -1, -1)
    (views,) = ours(batch(images, range(count)), training=True)['inputs']
    views = views.flip(1) if to_rgb else views
    torch.manual_seed(0)
    np.random.seed(0)
    compose = Compose(pipeline)
    array = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    theirs = np.stack([compose(dict(img=array.copy()))['img'] for _ in range(count)])
    theirs = torch.from_numpy(theirs).permute(0, 3, 1, 2).float()
    assert views.shape == theirs.shape
    for statistic, limit in (
        (lambda x: x.mean((0, 2, 3)), 8),
        (lambda x: x.std((2, 3)).mean(0), 4),
        (lambda x: x.mean((2, 3)).std(0), 6),
    ):
        torch.testing.assert_close(statistic(views), statistic(theirs), atol=limit, rtol=0)
    gray = [((x.amax(1) - x.amin(1)).amax((1, 2)) < 1.5).float().mean() for x in (views, theirs)]
    assert abs(gray[0] - gray[1]) < 0.1 and 0.1 < gray[0] < 0.3


def test_views_depend_on_the_seed_only(monkeypatch):
    """Not on the order, the batch, or the size of the chunks."""
    ours = preprocessor([CROP, *SIMCLR.view_pipeline[1:]])
    images, seeds = photos(7).byte(), torch.tensor([5, 3, 2**61, 8, 1, 0, 77])
    first, second = ours(batch(images, seeds), training=True)['inputs']
    assert (first - second).abs().mean() > 5
    order = torch.tensor([4, 2, 6])
    again = ours(batch(images[order], seeds[order]), training=True)['inputs']
    torch.testing.assert_close(again[0], first[order], atol=1e-3, rtol=0)
    monkeypatch.setitem(ours.forward.__globals__, 'CHUNK_BYTES', {'cpu': 1})
    again = ours(batch(images, seeds), training=True)['inputs']
    torch.testing.assert_close(again[1], second, atol=1e-3, rtol=0)
    other = ours(batch(images, seeds + 1), training=True)['inputs']
    assert (other[0] - first).flatten(1).abs().mean(1).min() > 1


@pytest.mark.parametrize('shape', [(28, 28, 3), (37, 52, 3), (5, 4, 1), (6, 7), (2, 3, 4, 5, 3)])
@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_images_are_packed_as_mmpretrain_packs_them(shape, dtype):
    image = (np.random.default_rng(0).random(shape) * 255).astype(dtype)
    ours = PackWithSeed()
    views = [image, image[::-1].copy()]
    if image.ndim == 3:
        views.append(np.asfortranarray(image))
    for given in (*views, views):
        found = ours.transform(dict(img=given, sample_idx=0))['inputs']
        wanted = PackInputs().transform(dict(img=given))['inputs']
        for x, y in zip(*((z if isinstance(z, list) else [z]) for z in (found, wanted))):
            assert x.dtype == y.dtype and torch.equal(x, y)
            assert x.is_contiguous()


def test_rgb_and_bgr_give_the_same():
    images, seeds = photos(5).byte(), range(5)
    steps = [CROP, *SIMCLR.view_pipeline[1:]]
    rgb, bgr = (preprocessor(steps, to_rgb=to_rgb) for to_rgb in (True, False))
    for one, other in zip(*(p(batch(images, seeds), True)['inputs'] for p in (rgb, bgr))):
        torch.testing.assert_close(one.flip(1), other, atol=1e-3, rtol=0)


def test_views_of_the_loader_are_transformed_further():
    images = [photos(3, seed=1).byte(), photos(3, seed=2).byte()]
    ours = preprocessor([dict(type='Solarize', thr=100, prob=1.0)], mean=[10.0] * 3, std=[2.0] * 3)
    for image, view in zip(images, ours(batch(images, range(3)), True)['inputs']):
        wanted = torch.stack([tv.solarize(x, 100) for x in image]).float()
        torch.testing.assert_close(view, (wanted - 10) / 2)


def test_views_of_the_loader_may_have_several_sizes():
    """Those of one pipeline too: each is as if it were alone."""
    images = [photos(3, size, size, seed=size).byte() for size in (24, 24, 16, 24)]
    steps = SIMCLR.view_pipeline[1:]
    together = preprocessor(steps, num_views=4)
    alone = preprocessor(*[steps] * 4, num_views=[1] * 4)
    found, wanted = (p(batch(images, range(3)), True)['inputs'] for p in (together, alone))
    assert [view.shape[-1] for view in found] == [24, 24, 16, 24]
    assert all(map(torch.equal, found, wanted))


def test_gray_images_and_evaluation():
    ours = preprocessor([CROP, *SIMCLR.view_pipeline[1:]], mean=[5.0], std=[1.0])
    images = photos(4, channels=1).byte()
    views = ours(batch(images, range(4)), True)['inputs']
    assert [view.shape for view in views] == [(4, 1, 20, 20)] * 2
    plain = ours(dict(inputs=images, data_samples=[DataSample() for _ in range(4)]))
    torch.testing.assert_close(plain['inputs'], images.float() - 5)


def test_probabilities_are_kept():
    flip = dict(type='RandomFlip', prob=0.25)
    ours = preprocessor([flip], num_views=1)
    image = photos(1).byte()
    (views,) = ours(batch(image.expand(4000, -1, -1, -1), range(4000)), True)['inputs']
    flipped = (views == image.flip(-1)).flatten(1).all(1).float().mean()
    assert abs(flipped - 0.25) < 0.03
    never = preprocessor([dict(type='RandomFlip', prob=0.0)], num_views=1)
    assert torch.equal(never(batch(image, [1]), True)['inputs'][0], image.float())


@pytest.mark.parametrize(
    'transforms,options,message',
    [
        ([dict(type='Rotate', angle=30.0)], {}, 'has Rotate, which does not work on batches'),
        ([CROP], dict(num_views=[1, 1]), 'give one number per pipeline'),
        ([dict(type='RandomGrayscale', prob=0.2)], {}, 'keep_channels=True'),
        ([dict(CROP, interpolation='bicubic')], {}, "must be 'bilinear'"),
        ([dict(type='GaussianBlur', magnitude_range=(1, 2), prob=0.5)], {}, "magnitude_std='inf'"),
        ([dict(type='RandomApply', transforms=[CROP], prob=0.5)], {}, 'all images or none'),
    ],
)
def test_what_does_not_work_is_refused(transforms, options, message):
    with pytest.raises(UserError, match=message):
        preprocessor(transforms, **options)


def test_batches_that_do_not_fit_are_refused():
    ours = preprocessor([CROP])
    images = photos(2).byte()
    with pytest.raises(UserError, match="end the pipeline .* in dict\\(type='PackWithSeed'\\)"):
        ours(dict(inputs=images, data_samples=[DataSample(), DataSample()]), True)
    with pytest.raises(UserError, match='makes 2 views, but a batch has 3 inputs'):
        ours(batch([images] * 3, range(2)), True)
    with pytest.raises(UserError, match='with images of several sizes'):
        ours(batch([images[0], images[1, :, :9]], range(2)), True)


def test_classifiers_see_the_same_views(monkeypatch):
    """The same steps as in self-supervised learning, then MMPretrain's preprocessor."""
    steps = [dict(CROP), dict(type='RandomFlip', prob=0.5)]
    norm = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=True)
    options = dict(num_classes=4, batch_augments=dict(augments=dict(type='Mixup', alpha=1.0)))
    ours = MODELS.build(dict(type='ClsBatchedViews', transforms=steps, **norm, **options))
    images = photos().byte()
    data = batch(images, range(6))
    expected = preprocessor(steps, num_views=1, **norm)(data)['inputs'][0]
    for label, sample in enumerate(data['data_samples']):
        sample.set_gt_label(label % 4)
    found = ours(data)
    torch.testing.assert_close(found['inputs'], expected)
    assert 'gt_score' in found['data_samples'][0]  # one-hot, for Mixup
    mixed = ours(batch(images, range(6)), True)
    assert mixed['inputs'].shape == expected.shape  # nothing to mix without labels
    plain = MODELS.build(dict(type='ClsDataPreprocessor', **norm))(dict(inputs=images))
    torch.testing.assert_close(ours(dict(inputs=images))['inputs'], plain['inputs'])
    with pytest.raises(UserError, match=r'ClsBatchedViews needs view_seed .*PackWithSeed'):
        ours(dict(inputs=images, data_samples=[DataSample()] * 6), True)
    with pytest.raises(UserError, match='images of one size'):
        ours(batch([images[0], images[1]], range(2)))


@pytest.mark.parametrize('kind', ['BatchedViews', 'ClsBatchedViews'])
def test_channels_last_changes_the_memory_format_only(kind, monkeypatch):
    steps = [dict(CROP), dict(type='RandomFlip', prob=0.5)]
    options = dict(type=kind, mean=[9.0] * 3, std=[2.0] * 3, to_rgb=True)
    options['transforms'] = [steps] if kind == 'BatchedViews' else steps
    found = []
    for channels_last in (False, True):
        views = MODELS.build(dict(options, channels_last=channels_last))(
            batch(photos().byte(), range(6))
        )['inputs']
        for view in [views] if torch.is_tensor(views) else views:
            assert view.is_contiguous(memory_format=torch.channels_last) == channels_last
            found.append(view)
    for one, other in zip(found[: len(found) // 2], found[len(found) // 2 :]):
        assert torch.equal(one, other)


def test_training_with_batched_views(tmp_path):
    """A resumed run ends like an uninterrupted one; the partition sees two views as well."""
    config = tmp_path / 'batched.py'
    config.write_text(f"""
_base_ = ['{ROOT}/configs/quickstart/ipirm_simclr.py']
data_preprocessor = dict(
    _delete_=True, type='BatchedViews', mean=[73.0] * 3, std=[90.0] * 3, to_rgb=True,
    transforms=[_base_.view_pipeline])
train_pipeline = [
    _base_.tint, dict(type='PackWithSeed', meta_keys=('sample_idx', 'factor', 'img_path'))]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
""")
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    options = ['partition_hook.interval=1', 'train_cfg.max_epochs=3']
    train_stage_one(whole, *options, config=config)
    train_stage_one(parts, *options[:1], 'train_cfg.max_epochs=2', config=config)
    train_stage_one(parts, *options, config=config, arguments=['--resume'])
    assert losses(whole) == losses(parts) and len(losses(whole)) > 2
    one, other = (checkpoint(folder, 3)['state_dict'] for folder in (whole, parts))
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert len(partitions(whole, 3)) == 1
    assert not any('data_preprocessor' in key for key in one)
