"""A step with MixUp against a computation by hand."""

from __future__ import annotations

import copy
from typing import ClassVar

import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch.utils._python_dispatch import TorchDispatchMode

import ipirm_mm  # noqa: F401
from ipirm_mm.errors import UserError
from ipirm_mm.models.selfsup import ipirm_simclr_mixup
from ipirm_mm.models.views.draws import Draws
from ipirm_mm.utils.seeding import seed_words

NETWORK = dict(
    backbone=dict(type='ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8),
    neck=dict(
        type='NonLinearNeck',
        in_channels=64,
        hid_channels=16,
        out_channels=8,
        norm_cfg=dict(type='BN1d'),
    ),
)
INDICES = [7, 2, 9, 0, 4, 5]
# Subsets of the batch: of two and four images, of one and five, of none and six.
PARTITIONS = [
    [0, 0, 1, 0, 1, 1, 0, 1, 0, 1],
    [0, 1, 0, 1, 0, 0, 1, 0, 1, 0],
    [1, 0, 1, 0, 1, 1, 0, 1, 0, 1],
]


def build(model_type='IPIRMSimCLRMixUp', head_type='IPIRMMixUpHead', partitions=(), **head):
    model = MODELS.build(
        dict(type=model_type, **copy.deepcopy(NETWORK), head=dict(type=head_type, **head))
    )
    model.partitions.allocate(len(partitions), 10)
    for partition in partitions:
        model.partitions.add(torch.tensor(partition))
    return model


def batch(indices=INDICES, seed=0, dtype=torch.float64):
    """Views of images that depend on the image's index only."""
    generator = torch.Generator().manual_seed(seed)
    everything = torch.randn(2, 10, 3, 16, 16, generator=generator, dtype=torch.float64).to(dtype)
    samples = [DataSample(metainfo=dict(sample_idx=i)) for i in indices]
    return [view[indices] for view in everything], samples


def draw_by_hand(epoch, seed, passes, indices=INDICES):
    """Shares and sort keys of each pass and image, by the images' own seeds."""
    words = seed_words(seed, epoch, ipirm_simclr_mixup._MIXUP)
    base = int(words[0]) << 31 ^ int(words[1])
    numbers = torch.stack(
        [
            Draws(torch.tensor([(base + i + 2**63) % 2**64 - 2**63])).uniform(2 * passes)[0]
            for i in indices
        ]
    ).T
    return torch.maximum(numbers[:passes], 1 - numbers[:passes]), numbers[passes:]


def risk_by_hand(queries, keys, images, share, key, mean, temperature):
    """Loss and penalty of one subset; ``key`` sorts its images into their partners."""
    order = sorted(range(len(images)), key=lambda place: key[images[place]])
    logits = queries[images] @ keys[images].T / temperature
    weight = share[images].mean().expand(len(images)) if mean else share[images]
    dummy = torch.ones(1, len(images), dtype=logits.dtype, requires_grad=True)

    def mean_loss(table):
        return sum(
            -weight[i] * table.log_softmax(1)[i, i]
            - (1 - weight[i]) * table.log_softmax(1)[i, order[i]]
            for i in range(len(images))
        ) / len(images)

    (grad,) = torch.autograd.grad(mean_loss(logits * dummy), dummy, create_graph=True)
    return mean_loss(logits), grad.square().sum()


def loss_by_hand(model, inputs, epoch, seed, mean=False, objective='authors'):
    view1, view2 = inputs
    rows = torch.tensor(PARTITIONS)[:, INDICES].tolist()
    groups = [
        [list(range(6))],
        *([[i for i in range(6) if row[i] == k] for k in (0, 1)] for row in rows),
    ]
    shares, keys = draw_by_hand(epoch, seed, len(groups))
    z2 = model.project(view2)
    total = 0
    for number, subsets in enumerate(groups):
        mixed = view1.clone()
        for images in subsets:
            partners = sorted(images, key=lambda i: keys[number, i])
            for i, partner in zip(images, partners):
                share = shares[number, i]
                mixed[i] = share * view1[i] + (1 - share) * view1[partner]
        queries = model.project(mixed)
        terms = [
            risk_by_hand(queries, z2, images, shares[number], keys[number], mean, 0.2)
            for images in subsets
            if len(images) > 1
        ]
        losses, penalties = (sum(column) for column in zip(*terms))
        if objective == 'report':
            total = total + losses + 0.3 * penalties
        elif number == 0:
            total = total + losses
        else:  # partitions are summed; an empty subset counts in the mean over the two
            total = total + (losses + 0.3 * penalties) / 2
    return total


@pytest.mark.parametrize('objective', ['authors', 'report'])
@pytest.mark.parametrize('lam', ['sample', 'mean'])
def test_step_is_that_by_hand(lam, objective):
    head = dict(irm_weight=0.3, lam=lam, objective=objective)
    model = build(partitions=PARTITIONS, **head).double()
    model.set_epoch(4, 11)
    inputs, samples = batch()
    losses = model.loss(inputs, samples)
    expected = loss_by_hand(model, inputs, 4, 11, lam == 'mean', objective)
    torch.testing.assert_close(losses['loss'], expected, rtol=1e-10, atol=1e-10)
    assert not losses['penalty'].requires_grad
    assert sum('loss' in name for name in losses) == 1
    parameters = list(model.parameters())
    ours = torch.autograd.grad(losses['loss'], parameters)
    theirs = torch.autograd.grad(expected, parameters)
    for one, two in zip(ours, theirs):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-10)
    assert max(gradient.abs().max() for gradient in ours) > 1e-3


def test_draws_depend_on_seed_epoch_and_image_only(monkeypatch):
    shares = []
    mix = ipirm_simclr_mixup.mix_images

    def record(images, others, lam):
        shares.append(lam)
        return mix(images, others, lam)

    monkeypatch.setattr(ipirm_simclr_mixup, 'mix_images', record)
    model = build(partitions=PARTITIONS[:1]).double()

    def draw(epoch, seed, indices=INDICES):
        shares.clear()
        model.set_epoch(epoch, seed)
        torch.manual_seed(len(indices))  # the global generators play no part
        model.loss(*batch(indices))
        return torch.stack(shares)

    first = draw(3, 5)
    assert first.shape == (2, 6)
    assert len(first.unique()) == 12
    assert torch.equal(draw(3, 5), first)
    assert torch.equal(draw(3, 5, INDICES[::-1]), first.flip(1))
    assert torch.equal(draw(3, 5, INDICES[:4]), first[:, :4])
    for other in (draw(4, 5), draw(3, 6)):
        assert not (other == first).any()


def test_passes_and_statistics_of_batch_normalization():
    """One pass per partition, one for the batch, one for the view that is not mixed."""
    model = build(partitions=PARTITIONS).double()
    passes = []
    model.backbone.register_forward_pre_hook(lambda module, given: passes.append(given[0]))
    inputs, samples = batch()
    model.loss(inputs, samples)
    assert [len(images) for images in passes] == [6] * 5
    assert torch.equal(passes[0], inputs[1])
    assert all(not torch.equal(images, inputs[0]) for images in passes[1:])
    assert int(model.backbone.bn1.num_batches_tracked) == 5


def test_before_the_first_partition_nothing_is_penalized():
    model = build(irm_weight=5.0).double()
    losses = model.loss(*batch())
    torch.testing.assert_close(losses['loss'], losses['risk_batch'], rtol=0, atol=0)
    assert 'penalty' not in losses


def test_penalty_of_the_batch():
    model = build(irm_weight=2.0, penalize_batch=True, irm_warmup_epochs=3).double()
    plain = model.loss(*batch())
    torch.testing.assert_close(plain['loss'], plain['risk_batch'])
    model.set_epoch(3)
    losses = model.loss(*batch())
    torch.testing.assert_close(losses['loss'], losses['risk_batch'] + 2.0 * losses['penalty'])
    assert losses['penalty'] > 0


@pytest.mark.parametrize('dtype', [None, torch.bfloat16])
def test_types_with_and_without_autocast(dtype):
    model = build(partitions=PARTITIONS, irm_weight=0.3)
    inputs, samples = batch(dtype=torch.float32)
    exact = copy.deepcopy(model).double().loss([view.double() for view in inputs], samples)
    with torch.autocast('cpu', dtype or torch.bfloat16, enabled=dtype is not None):
        losses = model.loss(inputs, samples)
    assert all(value.dtype == torch.float32 for value in losses.values())
    losses['loss'].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    tolerance = 0.1 if dtype else 1e-3
    torch.testing.assert_close(
        losses['loss'].double(), exact['loss'], rtol=tolerance, atol=tolerance
    )


def test_no_operation_of_a_step_makes_the_host_wait():
    """The operations that would wait for a GPU, with any number of partitions."""

    class Names(TorchDispatchMode):
        seen: ClassVar[set[str]] = set()

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.seen.add(function._schema.name)
            return function(*args, **(kwargs or {}))

    model = build(partitions=PARTITIONS, lam='mean').double()
    inputs, samples = batch()
    with Names() as names:
        model.loss(inputs, samples)['loss'].backward()
    assert 'aten::logsumexp' in names.seen
    waits = {'aten::_local_scalar_dense', 'aten::nonzero', 'aten::item', 'aten::bincount'}
    assert not waits & names.seen


def test_draw_seed_is_not_in_checkpoints():
    """It comes from the hook; encoders stay interchangeable with those without MixUp."""
    mixed, plain = build(), build('IPIRMSimCLR', 'IPIRMContrastiveHead')
    assert mixed.state_dict().keys() == plain.state_dict().keys()


def test_head_and_model_belong_together():
    with pytest.raises(UserError, match='must be IPIRMMixUpHead .* but is IPIRMContrastiveHead'):
        build(head_type='IPIRMContrastiveHead')
    with pytest.raises(UserError, match='set model.type to IPIRMSimCLRMixUp'):
        build('IPIRMSimCLR').double().loss(*batch())
    with pytest.raises(UserError, match="model.head.lam must be one of .* but is 'median'"):
        build(lam='median')
    inputs, samples = batch()
    with pytest.raises(UserError, match='IPIRMSimCLRMixUp needs two views of each image'):
        build().double().loss(inputs[:1], samples)


@pytest.mark.slow
def test_a_compiled_model_trains_alike():
    model = build(partitions=PARTITIONS[:1], irm_weight=2.0).double()
    twin = copy.deepcopy(model)
    twin.forward = torch.compile(twin.forward, backend='aot_eager')
    for epoch in range(3):
        for network in (model, twin):
            network.set_epoch(epoch, 7)
        with torch._dynamo.config.patch(error_on_recompile=epoch > 1):
            values = [network(*batch(seed=epoch), mode='loss') for network in (model, twin)]
        torch.testing.assert_close(*values)
