"""IP-IRM on SimSiam: MMPretrain's own loss without partitions, both similarities in subsets."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from ipirm_mm.errors import UserError
from ipirm_mm.functional import contrastive_risks, cosine_risks

BN = dict(type='BN1d')
NETWORK = dict(
    backbone=dict(type='ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8),
    neck=dict(
        type='NonLinearNeck',
        in_channels=64,
        hid_channels=16,
        out_channels=8,
        num_layers=3,
        with_last_bn_affine=False,
        norm_cfg=BN,
    ),
)
PREDICTOR = dict(
    type='NonLinearNeck',
    in_channels=8,
    hid_channels=4,
    out_channels=8,
    with_avg_pool=False,
    with_last_bn=False,
    with_last_bias=True,
    norm_cfg=BN,
)


def build(**head):
    return MODELS.build(
        dict(
            type='IPIRMSimSiam',
            **copy.deepcopy(NETWORK),
            head=dict(type='IPIRMLatentHead', predictor=copy.deepcopy(PREDICTOR), **head),
        )
    )


def batch(size=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    views = [torch.randn(size, 3, 16, 16, generator=generator).double() for _ in range(2)]
    return views, [DataSample(metainfo=dict(sample_idx=i)) for i in range(size)]


@pytest.mark.parametrize('similarity', ['contrast', 'cosine'])
@pytest.mark.parametrize('objective', ['authors', 'report'])
def test_without_partition_and_penalty_it_is_mmpretrains_simsiam(similarity, objective):
    ours = build(similarity=similarity, irm_weight=0.0, objective=objective).double()
    theirs = MODELS.build(
        dict(
            type='SimSiam',
            **copy.deepcopy(NETWORK),
            head=dict(
                type='LatentPredictHead',
                loss=dict(type='CosineSimilarityLoss'),
                predictor=copy.deepcopy(PREDICTOR),
            ),
        )
    ).double()
    incompatible = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not incompatible.missing_keys
    assert all(key.startswith('partitions.') for key in incompatible.unexpected_keys)
    inputs, samples = batch()
    loss, expected = ours.loss(inputs, samples)['loss'], theirs.loss(inputs, samples)['loss']
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-6)
    loss.backward()
    expected.backward()
    for (name, mine), (_, other) in zip(ours.named_parameters(), theirs.named_parameters()):
        torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=1e-6, msg=name)
    assert max(p.grad.abs().max() for p in ours.parameters()) > 1e-3
    # The statistics of batch normalization are those of MMPretrain's too.
    for (name, mine), (_, other) in zip(
        ours.backbone.named_buffers(), theirs.backbone.named_buffers()
    ):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize('similarity', ['contrast', 'cosine'])
@pytest.mark.parametrize('objective', ['authors', 'report'])
@pytest.mark.parametrize('penalize_batch', [False, True])
def test_loss_is_assembled_as_documented(similarity, objective, penalize_batch):
    model = build(
        similarity=similarity,
        irm_weight=0.3,
        objective=objective,
        penalize_batch=penalize_batch,
        irm_temperature=0.7,
    ).double()
    model.partitions.allocate(2, 10)
    model.partitions.add(torch.tensor([0, 1] * 5))
    model.partitions.add(torch.tensor([0, 0, 1, 1, 0, 1, 0, 0, 1, 1]))
    inputs, samples = batch()
    for sample, index in zip(samples, [7, 2, 9, 0, 4, 5]):
        sample.set_metainfo(dict(sample_idx=index))
    losses = model.loss(inputs, samples)
    z = [model.neck(model.backbone(view))[0] for view in inputs]
    p = tuple(F.normalize(model.head.predictor([row])[0], dim=1) for row in z)
    t = tuple(F.normalize(row.detach(), dim=1) for row in z)
    subset_ids = torch.tensor([[2, 1, 2, 1, 1, 2], [3, 4, 4, 3, 3, 4], [0] * 6])
    if similarity == 'cosine':
        risks = cosine_risks(p, t, subset_ids, 5)
    else:
        risks = contrastive_risks(*p, subset_ids, 5, 0.5, 0.7, targets=t)
    own = -(p[0] * t[1]).sum(1).mean() / 2 - (p[1] * t[0]).sum(1).mean() / 2
    if objective == 'report':
        expected = own + risks.loss[1:].sum() + 0.3 * risks.penalty.sum()
    else:
        expected = own + risks.loss[1:].mean() + 0.3 * risks.penalty[1:].mean()
        if penalize_batch:
            expected = expected + 0.3 * risks.penalty[0]
            if similarity == 'contrast':
                expected = expected + risks.loss[0]
    torch.testing.assert_close(losses['loss'], expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(losses['risk_batch'], own, rtol=1e-10, atol=1e-10)
    names = [name for name, _ in model.named_parameters()]
    ours, theirs = (
        torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        for loss in (losses['loss'], expected)
    )
    for name, mine, other in zip(names, ours, theirs):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-10, msg=name)
    # Partitions are found by the projections, in unit rows.
    model.eval()
    z = model.project(inputs[0])
    torch.testing.assert_close(z.norm(dim=1), torch.ones(6).double())


def test_spread_of_the_features_is_logged():
    model = build()
    head = model.head
    generator = torch.Generator().manual_seed(0)
    spread = F.normalize(torch.randn(512, 64, generator=generator), dim=1)
    collapsed = spread[:1].expand(512, 64)
    none = torch.zeros(0, 512).long()
    for z, expected in ((spread, 1 / math.sqrt(64)), (collapsed, 0.0)):
        logged = head.loss((z, z), (z, z), none, 2)['feature_std']
        assert abs(float(logged) - expected) < 0.01 * max(expected, 0.01)


def test_targets_have_no_gradient():
    """The stop-gradient of SimSiam, which the head owns with the predictor."""
    head = build().head
    leaves = [torch.randn(6, 8, requires_grad=True) for _ in range(2)]
    anchors, targets = head.predict_views(leaves)
    assert all(view.requires_grad for view in anchors)
    assert not any(view.requires_grad for view in targets)
    for leaf, target in zip(leaves, targets):
        torch.testing.assert_close(target, F.normalize(leaf.detach(), dim=1))


def test_bad_similarity():
    with pytest.raises(UserError, match="model.head.similarity must be one of .* but is 'dot'"):
        build(similarity='dot')
