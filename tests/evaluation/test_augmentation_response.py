"""Responses to augmentations against loops, and on networks of which they are known."""

from __future__ import annotations

import math

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch import nn

from ipirm_mm.datasets import augmented_dataset, recolored_dataset, single_augmentations
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import (
    EncoderFiles,
    LinearProbe,
    augmentation_response,
    choose_filters,
    encoder_files,
    find_layers,
    image_numbers,
    last_stages,
    mean_difference,
    measure_response,
    probe_parts,
    random_parts,
    split_dimensions,
)


def slow_response(features, draws):
    """Image by image, pair by pair."""
    images, dimensions = features.shape
    response = []
    for d in range(dimensions):
        value = [float(features[n, d]) for n in range(images)]
        change = [abs(float(draw[n, d]) - value[n]) for draw in draws for n in range(images)]
        pairs = [abs(value[i] - value[j]) for i in range(images) for j in range(images) if i != j]
        change, scale = sum(change) / len(change), sum(pairs) / len(pairs)
        response.append(0.0 if not change else change / scale if scale else math.inf)
    return torch.tensor(response, dtype=torch.float64)


@pytest.mark.parametrize('images', [2, 3, 17])
@pytest.mark.parametrize('draws', [1, 3])
@pytest.mark.parametrize('dimensions', [1, 6])
def test_response_against_loops(images, draws, dimensions):
    torch.manual_seed(images)
    features = torch.randn(images, dimensions, dtype=torch.float64).relu() * 10
    views = [features + torch.randn(images, dimensions, dtype=torch.float64) for _ in range(draws)]
    expected = slow_response(features, views)
    found = augmentation_response(features, views)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    scaled = augmentation_response(-7 * features + 5, [-7 * view + 5 for view in views])
    torch.testing.assert_close(scaled, expected, rtol=1e-10, atol=1e-10)


def test_difference_of_pairs_and_of_other_images():
    features = torch.randn(40, 3, dtype=torch.float64)
    # Views that are another image at random respond with 1.
    views = [features.roll(shift, 0) for shift in range(1, 40)]
    ones = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(
        augmentation_response(features, views), ones, rtol=1e-10, atol=1e-10
    )
    two = torch.tensor([[1.0], [4.0]])
    assert mean_difference(two).tolist() == [3.0]


def test_constant_dimensions():
    features = torch.tensor([[0.0, 2.0, 1.0, 1.0], [0.0, 2.0, 1.0, 3.0], [0.0, 2.0, 1.0, 2.0]])
    view = features.clone()
    view[0, 2] = 9
    view[:, 1] += 1e-7  # a rounding error
    found = augmentation_response(features, [view])
    assert found.tolist() == [0.0, 0.0, math.inf, 0.0]
    with pytest.raises(UserError, match='1 images and 1 draws'):
        augmentation_response(features[:1], [view[:1]])
    with pytest.raises(UserError, match='3 images and 0 draws'):
        augmentation_response(features, [])


def test_split():
    responses = torch.tensor([[0.5, 0.1, 0.9, 0.1], [0.5, 0.3, 0.9, 0.3]])
    first, second = split_dimensions(responses)
    assert first.tolist() == [2, 0] and second.tolist() == [1, 3]
    first, second = split_dimensions(responses, 0.25)
    assert first.tolist() == [2] and second.tolist() == [0, 1, 3]
    for share in (0.0, 0.1, 1.0):
        with pytest.raises(UserError, match=f'a share of {share} of 4 dimensions'):
            split_dimensions(responses, share)


def test_random_parts():
    parts = random_parts(10, 4, 3)
    assert len(parts) == 3
    for first, second in parts:
        assert len(first) == 4 and sorted([*first.tolist(), *second.tolist()]) == list(range(10))
    assert parts[0][0].tolist() != parts[1][0].tolist()
    assert parts[2][1].tolist() == random_parts(10, 4, 3)[2][1].tolist()


def test_probe_of_parts():
    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    features = torch.randn(60, 6)
    features[:, 4] = labels.float() + 0.01 * torch.randn(60)
    parts = dict(all=torch.arange(6), good=torch.tensor([4, 1]), bad=torch.tensor([0, 2]))
    bank, query = slice(0, 30), slice(30, 60)
    found = probe_parts(features[bank], labels[bank], features[query], labels[query], parts)
    assert found['good'].float().mean() > 0.9 > 0.6 > found['bad'].float().mean()
    probe = LinearProbe().fit(features[bank], labels[bank])
    assert torch.equal(found['all'], probe.predict(features[query]) == labels[query])


@pytest.mark.parametrize('total, number', [(10, 3), (3, 10), (7, 7), (500, 499)])
def test_images_are_spread(total, number):
    found = image_numbers(total, number)
    assert len(found) == len(set(found)) == min(total, number)
    assert found == sorted(found) and found[0] == 0 and found[-1] < total


class Planted(nn.Module):
    """Half of its dimensions are multiples of the brightness, the others do not depend on it."""

    BRIGHTNESS = (0, 3, 4, 9, 10, 13)
    DIMENSIONS = 14

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.bright = [d for d in self.BRIGHTNESS if d < self.DIMENSIONS]
        self.rest = [d for d in range(self.DIMENSIONS) if d not in self.bright]
        self.factors = torch.randn(len(self.bright))
        self.pattern = torch.randn(3 * 28 * 28, len(self.rest))

    def forward(self, x):
        flat = x.flatten(1)
        features = x.new_zeros(len(x), self.DIMENSIONS)
        features[:, self.bright] = flat.mean(1, keepdim=True) * self.factors
        # Divided by its norm, an image does not tell how bright it is.
        features[:, self.rest] = flat / flat.norm(dim=1, keepdim=True) @ self.pattern
        return (features,)


def planted():
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='SmallConvNet', channels=(8,)),
            data_preprocessor=dict(mean=[0.0] * 3, std=[1.0] * 3, to_rgb=True),
        )
    )
    model.backbone = Planted()
    return model


def small_loader(seed=1):
    pipeline = [
        dict(type='TintByFactor', num_factors=2, seed=seed),
        dict(type='PackInputs', meta_keys=('sample_idx', 'factor')),
    ]
    return dict(
        batch_size=64,
        sampler=dict(type='DefaultSampler', shuffle=True),
        dataset=dict(type='FashionMNIST50', split='val', pipeline=pipeline),
    )


DARKER = dict(type='ColorJitter', brightness=(0.5, 0.8))


def test_planted_dimensions_are_found():
    found = measure_response(planted(), small_loader(), dict(brightness=DARKER), num_images=100)
    share = len(Planted.BRIGHTNESS) / Planted.DIMENSIONS
    first, second = split_dimensions(found.responses, share)
    assert sorted(first.tolist()) == sorted(Planted.BRIGHTNESS)
    # Eight bits of a pixel let the others depend on brightness, by their rounding.
    assert float(found.responses[0, second].max()) < 0.1 < float(found.responses[0, first].min())
    # One number times a factor: all of them respond alike.
    torch.testing.assert_close(
        found.responses[0, first], found.responses[0, first[:1]].expand(6), rtol=1e-4, atol=0
    )


def test_response_depends_neither_on_the_batch_nor_on_the_call():
    loader = small_loader()
    steps = dict(crop=dict(type='RandomResizedCrop', scale=28))
    first = measure_response(planted(), loader, steps, num_images=60)
    torch.manual_seed(5)
    second = measure_response(planted(), {**loader, 'batch_size': 7}, steps, num_images=60)
    torch.testing.assert_close(first.responses, second.responses, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first.features, second.features, rtol=1e-5, atol=1e-5)


def test_response_to_color():
    assert measure_response(planted(), small_loader(), dict(b=DARKER), 40, 1).color is not None
    loader = small_loader()
    del loader['dataset']['pipeline'][0]
    assert recolored_dataset(loader['dataset']) is None
    changed = recolored_dataset(small_loader(seed=4)['dataset'])
    assert changed['pipeline'][0]['seed'] == 5


def test_augmentations_of_simclr():
    from ipirm_mm.resources import resource_root

    config = Config.fromfile(resource_root() / 'configs/ipirm_simclr_r50.py')
    found = single_augmentations(config)
    assert list(found) == ['crop', 'flip', 'color jitter', 'grayscale', 'blur']
    assert [found[name]['prob'] for name in list(found)[1:]] == [1.0] * 4
    flip = next(s for s in config.view_pipeline if s['type'] == 'RandomFlip')
    assert flip['prob'] == 0.5  # of the config itself
    quick = Config.fromfile(resource_root() / 'configs/quickstart/simclr.py')
    assert list(single_augmentations(quick)) == ['crop', 'flip']


def test_augmentations_of_a_classifier_and_of_wrapped_data():
    pipeline = [
        dict(type='LoadImage'),
        dict(type='mmpretrain.RandomResizedCrop', scale=8),
        dict(type='Solarize', thr=128),
        dict(type='RandomErasing', mode='rand'),
        dict(type='RandomResizedCrop', scale=16),
        dict(type='RandomResizedCrop', scale=16),
        dict(type='PackInputs'),
    ]
    inner = dict(type='CustomDataset', pipeline=pipeline)
    config = dict(
        model=dict(), train_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=inner))
    )
    found = single_augmentations(config)
    assert list(found) == ['crop', 'solarize', 'RandomErasing', 'crop 2']
    assert found['solarize']['prob'] == found['RandomErasing']['erase_prob'] == 1.0
    changed = augmented_dataset(config['train_dataloader']['dataset'], found['crop'])
    kinds = [step['type'] for step in changed['dataset']['pipeline']]
    assert kinds[-2:] == ['SeededTransforms', 'PackInputs'] and len(kinds) == 8
    inner['pipeline'] = [pipeline[0], pipeline[-1]]
    with pytest.raises(UserError, match='the config has no augmentation'):
        single_augmentations(config)


def test_filters_of_known_clusters():
    torch.manual_seed(0)
    centers = torch.randn(30, 4, dtype=torch.float64)
    sizes = (7, 5, 4, 3)
    noise = torch.cat([0.3 * torch.rand(size, dtype=torch.float64) + 0.1 for size in sizes])
    columns, exact, start = [], [], 0
    for cluster, size in enumerate(sizes):
        for member in range(size):
            wobble = 0 if member == 1 else float(noise[start + member])
            wave = wobble * torch.randn(30, dtype=torch.float64)
            # Other strength and offset: what counts is which images excite it.
            columns.append((10 ** (member - 2)) * (centers[:, cluster] + wave) + member)
        exact.append(start + 1)
        start += size
    dead = [torch.zeros(30, dtype=torch.float64), torch.full((30,), 3.0, dtype=torch.float64)]
    activations = torch.stack([*dead, *columns], 1)
    order = torch.randperm(activations.shape[1])
    found = choose_filters(activations, order)
    assert found.sizes.tolist() == list(sizes) and found.clustered == sum(sizes)
    # The member without noise is the nearest to the center.
    assert found.filters.tolist() == [number + 2 for number in exact]
    with pytest.raises(UserError, match='1 of the 3 filters unrelated to augmentations'):
        choose_filters(activations, torch.tensor([0, 1, 5]))


@pytest.mark.parametrize(
    'backbone, size, expected',
    [
        (dict(type='SmallConvNet'), 28, ['backbone.layers.1', 'backbone.layers.2']),
        (dict(type='ResNet', depth=18), 64, ['backbone.layer3', 'backbone.layer4']),
        (dict(type='VGG', depth=11), 64, ['backbone.features.8', 'backbone.features.11']),
        (dict(type='MobileNetV2'), 64, ['backbone.layer5', 'backbone.conv2']),
    ],
)
def test_last_stages(backbone, size, expected):
    model = MODELS.build(dict(type='ImageClassifier', backbone=backbone)).train()
    modes = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    assert last_stages(model, torch.randn(2, 3, size, size)) == expected
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert list(find_layers(model, expected)) == expected


def test_layers_that_are_not_there():
    model = MODELS.build(dict(type='ImageClassifier', backbone=dict(type='SmallConvNet')))
    with pytest.raises(UserError, match=r'no layer backbone.layer4: there are backbone.layers$'):
        find_layers(model, ['backbone.layer4'])
    with pytest.raises(UserError, match=r'backbone.layers.2.activate has no parts'):
        find_layers(model, ['backbone.layers.2.activate.x'])


def test_network_without_maps():
    model = MODELS.build(dict(type='ImageClassifier', backbone=dict(type='SmallConvNet')))
    model.backbone = Planted()
    with pytest.raises(UserError, match='no part of Planted gives feature maps'):
        last_stages(model, torch.randn(2, 3, 28, 28))


def test_encoders_of_a_command_line():
    assert encoder_files('a/b.py:c/d.pth') == EncoderFiles('a/b.py', 'c/d.pth')
    assert encoder_files('ipirm_mm::quickstart/simclr.py:https://x.y/z.pth') == EncoderFiles(
        'ipirm_mm::quickstart/simclr.py', 'https://x.y/z.pth'
    )
    for text in ('a.py', 'a.py:', 'a:b.pth', ':b.pth'):
        with pytest.raises(UserError, match='give CONFIG:CHECKPOINT'):
            encoder_files(text)
