"""k-NN, linear probe and features."""

from __future__ import annotations

import math

import pytest
import torch
from mmengine.dataset import DefaultSampler, default_collate
from mmpretrain.registry import MODELS
from torch.utils.data import DataLoader

from ipirm_mm.datasets import FashionMNIST50
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import (
    KNNAccuracy,
    LinearProbe,
    bootstrap_interval,
    extract_features,
    format_interval,
    knn_accuracy,
    knn_predict,
)


def data(images, classes=3, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(images, width, generator=generator),
        torch.randint(classes, (images,), generator=generator),
    )


def slow_votes(train, labels, image, k, temperature, classes, skip=None):
    cosines = []
    for i, row in enumerate(train):
        if i != skip:
            dot = sum(a * b for a, b in zip(row.tolist(), image.tolist()))
            norms = math.hypot(*row.tolist()) * math.hypot(*image.tolist())
            cosines.append((dot / norms, int(labels[i])))
    votes = [0.0] * classes
    for cosine, label in sorted(cosines, reverse=True)[:k]:
        votes[label] += math.exp(cosine / temperature)
    return votes


@pytest.mark.parametrize('k', [1, 7, 1000])
@pytest.mark.parametrize('temperature', [0.07, 0.5])
def test_knn_is_the_weighted_vote(k, temperature):
    train, labels = data(30)
    test, _ = data(11, seed=1)
    scores = knn_predict(train, labels, test, k, temperature, block_size=4)
    for row, image in zip(scores, test):
        votes = torch.tensor(slow_votes(train, labels, image, k, temperature, 3))
        torch.testing.assert_close(row / row.sum(), votes / votes.sum(), rtol=1e-4, atol=1e-5)


def test_knn_metric_leaves_the_image_out():
    features, labels = data(40)
    metric = KNNAccuracy(k=5)
    samples = [dict(feature=f, gt_label=torch.tensor([y])) for f, y in zip(features, labels)]
    metric.process(None, samples)
    right = 0
    for i, image in enumerate(features):
        votes = slow_votes(features, labels, image, 5, 0.5, 3, skip=i)
        right += votes.index(max(votes)) == labels[i]
    assert metric.evaluate(40)['knn/top1'] == pytest.approx(100 * int(right) / 40)


def test_knn_accuracy_of_copies_is_perfect():
    features, labels = data(20)
    assert knn_accuracy(features, labels, features, labels, k=1) == 100


@pytest.mark.parametrize('options', [dict(k=0), dict(temperature=0)])
def test_bad_knn_options(options):
    with pytest.raises(UserError, match='KNNAccuracy needs'):
        KNNAccuracy(**options)


def test_probe_is_at_the_optimum_and_predicts():
    features, labels = data(60)
    features[:, 0] += 3 * labels
    probe = LinearProbe(weight_decay=0.1).fit(features, labels)
    weight, bias = probe.weight.clone().requires_grad_(), probe.bias.clone().requires_grad_()
    x = (features.double() - probe.mean) / probe.scale
    logits = x @ weight.T + bias
    loss = -(logits.log_softmax(1)[torch.arange(60), labels]).mean()
    loss = loss + 0.05 * (weight**2).sum()
    for grad in torch.autograd.grad(loss, (weight, bias)):
        assert grad.abs().max() < 1e-4
    assert (probe.predict(features) == labels).float().mean() > 0.8


def test_probe_stands_a_constant_feature():
    features, labels = data(30)
    features[:, 2] = 1.0
    assert torch.isfinite(LinearProbe().fit(features, labels).scores(features)).all()


def test_bootstrap_interval_covers_what_theory_says():
    correct = torch.arange(400) % 4 != 0
    low, high = bootstrap_interval(correct)
    error = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert low == pytest.approx(0.75 - error, abs=0.01)
    assert high == pytest.approx(0.75 + error, abs=0.01)


def test_format_interval():
    assert format_interval((0.4561, 0.4709)) == '45.6 to 47.1'
    assert format_interval((-0.0012, 0.0304), '+.2f') == '-0.12 to +3.04'
    assert format_interval((44.9, 46.25), scale=1) == '44.9 to 46.2'


def simclr():
    return MODELS.build(
        dict(
            type='SimCLR',
            backbone=dict(type='SmallConvNet', channels=(8, 16)),
            neck=dict(type='NonLinearNeck', in_channels=16, hid_channels=8, out_channels=4),
            head=dict(type='ContrastiveHead', loss=dict(type='CrossEntropyLoss')),
        )
    )


def test_features_of_a_stock_model_in_order_and_once():
    pack = dict(type='PackInputs', meta_keys=('sample_idx', 'factor'))
    dataset = FashionMNIST50(indices=10, pipeline=[dict(type='TintByFactor'), pack])

    class Shuffled(DefaultSampler):
        def __iter__(self):
            return iter([3, 1, 9, 0, 2, 4, 8, 7, 6, 5, 3, 1])  # with two repeated

        def __len__(self):
            return 12

    loader = DataLoader(dataset, 5, sampler=Shuffled(dataset), collate_fn=default_collate)
    model = simclr().train()
    found = extract_features(model, loader)
    assert model.training
    assert found['sample_idx'].tolist() == list(range(10))
    assert found['gt_label'].tolist() == dataset.get_gt_labels().tolist()
    model.eval()
    for index in (0, 7):
        images = dataset[index]['inputs'][None].float()
        expected = model.backbone(images)[0].mean((2, 3))[0]
        torch.testing.assert_close(found['features'][0][index], expected)
        assert found['factor'][index] == dataset[index]['data_samples'].factor


def test_features_of_two_views():
    view = [dict(type='RandomFlip', prob=0.5)]
    pipeline = [dict(type='MultiView', num_views=2, transforms=[view]), dict(type='PackInputs')]
    dataset = FashionMNIST50(indices=6, pipeline=pipeline)
    found = extract_features(simclr(), DataLoader(dataset, 4, collate_fn=default_collate))
    assert [tuple(view.shape) for view in found['features']] == [(6, 16)] * 2
    assert 'factor' not in found
