"""The algorithm on MMPretrain's classes."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from helpers import ROOT
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch.utils._python_dispatch import TorchDispatchMode

import ipirm_mm  # noqa: F401
from ipirm_mm.errors import UserError
from ipirm_mm.functional import subset_contrastive_risks

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


def build(**head):
    return MODELS.build(
        dict(
            type='IPIRMSimCLR',
            **copy.deepcopy(NETWORK),
            head=dict(type='IPIRMContrastiveHead', **head),
        )
    )


def batch(size=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    views = [torch.randn(size, 3, 16, 16, generator=generator).double() for _ in range(2)]
    return views, [DataSample(metainfo=dict(sample_idx=i)) for i in range(size)]


@pytest.mark.parametrize('temperature', [0.1, 0.5])
def test_without_partition_and_penalty_it_is_mmpretrains_simclr(temperature):
    ours = build(temperature=temperature, irm_weight=0.0).double()
    theirs = MODELS.build(
        dict(
            type='SimCLR',
            **copy.deepcopy(NETWORK),
            head=dict(
                type='ContrastiveHead',
                loss=dict(type='CrossEntropyLoss'),
                temperature=temperature,
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


class Operations(TorchDispatchMode):
    """Counts the operations that reach the device: all but views of what is there."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not any(value.alias_info for value in function._schema.returns):
            self.names.append(function._schema.name)
        return function(*args, **(kwargs or {}))


def operations(num_partitions, num_subsets=2, **head):
    """Names of the operations of the head's loss and its gradient."""
    head = build(**head).head
    views = [torch.randn(32, 8).requires_grad_() for _ in range(2)]
    assignments = torch.randint(num_subsets, (num_partitions, 32))
    with Operations() as count:
        head.loss(views, None, assignments, num_subsets)['loss'].backward()
    return count.names


def test_operations_do_not_grow_with_partitions_and_are_few_before_the_first():
    """Nothing is penalized before; and no operation makes the host wait for a GPU."""
    counts = {p: len(operations(p)) for p in (0, 1, 16)}
    assert counts[1] == counts[16] == len(operations(1, 100))
    assert counts[0] < 0.5 * counts[1]
    assert len(operations(0, penalize_batch=True)) > 1.3 * counts[0]
    waits = ('aten::_local_scalar_dense', 'aten::nonzero', 'aten::item')
    assert not set(waits) & set(operations(4))


class Flatten(torch.nn.Module):
    """In place of a neck, so that the images are the projections."""

    def forward(self, x):
        return (x.flatten(1),)


def launches(kind, head, num_partitions=0):
    """Number of operations of a step, without those of backbone and neck."""
    model = MODELS.build(dict(type=kind, **copy.deepcopy(NETWORK), head=head))
    model.backbone, model.neck = torch.nn.Identity(), Flatten()
    if num_partitions:
        model.partitions.allocate(num_partitions, 32)
    for _ in range(num_partitions):
        model.partitions.add(torch.arange(32) % 2)
    views = [torch.randn(32, 8, 1, 1).requires_grad_() for _ in range(2)]
    samples = [DataSample(metainfo=dict(sample_idx=index)) for index in range(32)]
    model.loss(views, samples)  # the first step makes masks
    with Operations() as count:
        model.loss(views, samples)['loss'].backward()
    return len(count.names)


def test_the_documentation_has_the_operations_of_a_step():
    """Some more or fewer of another version of PyTorch."""
    text = ' '.join((ROOT / 'docs/performance.md').read_text().split())
    said = re.search(
        r'(\d+) operations before the first partition, and then (\d+) \(vector\) or (\d+) '
        r'\(scalar\), against (\d+) of SimCLR',
        text,
    )
    cross_entropy = dict(type='CrossEntropyLoss')
    ours = [
        launches('IPIRMSimCLR', dict(type='IPIRMContrastiveHead', penalty=penalty), partitions)
        for penalty, partitions in (('vector', 0), ('vector', 4), ('scalar', 4))
    ]
    theirs = launches('SimCLR', dict(type='ContrastiveHead', loss=cross_entropy, temperature=0.5))
    assert [*ours, theirs] == pytest.approx([int(number) for number in said.groups()], rel=0.03)


@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
@pytest.mark.parametrize('objective', ['authors', 'report'])
def test_loss_is_assembled_as_documented(objective, penalty):
    model = build(irm_weight=0.3, objective=objective, penalty=penalty).double()
    model.partitions.allocate(2, 10)
    model.partitions.add(torch.tensor([0, 1] * 5))
    model.partitions.add(torch.tensor([0, 0, 1, 1, 0, 1, 0, 0, 1, 1]))
    inputs, samples = batch()
    for sample, index in zip(samples, [7, 2, 9, 0, 4, 5]):
        sample.set_metainfo(dict(sample_idx=index))
    losses = model.loss(inputs, samples)
    z = model.project(torch.cat(inputs)).double()
    rows = torch.tensor([[1, 0, 1, 0, 0, 1], [0, 1, 1, 0, 0, 1]])
    batch_risk = subset_contrastive_risks(
        z[:6], z[6:], torch.zeros(1, 6).long(), 1, penalty=penalty
    )
    subsets = subset_contrastive_risks(z[:6], z[6:], rows, 2, penalty=penalty)
    if objective == 'authors':
        expected = batch_risk.loss[0, 0] + subsets.loss.mean() + 0.3 * subsets.penalty.mean()
    else:
        expected = sum(r.loss.sum() + 0.3 * r.penalty.sum() for r in (batch_risk, subsets))
    torch.testing.assert_close(losses['loss'].double(), expected, rtol=1e-5, atol=1e-6)
    assert not losses['penalty'].requires_grad
    assert sum('loss' in name for name in losses) == 1


def test_penalty_of_the_batch_and_its_first_epoch():
    model = build(irm_weight=2.0, penalize_batch=True, irm_warmup_epochs=3)
    inputs, samples = batch()
    inputs = [view.float() for view in inputs]
    plain = model.loss(inputs, samples)
    torch.testing.assert_close(plain['loss'], plain['risk_batch'])
    model.set_epoch(3)
    penalized = model.loss(inputs, samples)
    torch.testing.assert_close(
        penalized['loss'], penalized['risk_batch'] + 2.0 * penalized['penalty']
    )
    assert penalized['penalty'] > 0


def test_weight_of_the_penalty_grows_in_equal_steps():
    head = build(irm_weight=2.0, irm_warmup_epochs=3, irm_rampup_epochs=4).head
    weights = []
    for epoch in range(9):
        head.set_epoch(epoch)
        weights.append(head.current_weight)
    assert weights == [0, 0, 0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    head = build(irm_weight=2.0).head
    assert head.current_weight == 2.0


def test_gradients_of_half_batches_are_accumulated():
    """With ``accumulative_counts``: the mean of both, each with negatives of its own half only."""
    model = build(irm_weight=2.0).double()
    model.data_preprocessor.forward = lambda data, training=False: data
    model.partitions.allocate(1, 8)
    model.partitions.add(torch.tensor([0, 1] * 4))
    twin = copy.deepcopy(model)
    options = dict(optimizer=dict(type='SGD', lr=1.0), accumulative_counts=2)
    wrapper = build_optim_wrapper(model, dict(type='OptimWrapper', **options))
    views, samples = batch(8)
    for half in (slice(0, 4), slice(4, 8)):
        part = [view[half] for view in views]
        model.train_step(dict(inputs=part, data_samples=samples[half]), wrapper)
        (twin.loss(part, samples[half])['loss'] / 2).backward()
    for (name, one), (_, two) in zip(model.named_parameters(), twin.named_parameters()):
        torch.testing.assert_close(one, two - two.grad, msg=name)
    for (name, one), (_, two) in zip(model.named_buffers(), twin.named_buffers()):
        torch.testing.assert_close(one, two, msg=name)


@pytest.mark.slow
def test_a_compiled_model_trains_alike():
    """With `torch.compile`, as MMEngine's option `compile` asks for it."""
    model = build(irm_weight=2.0).double()
    model.partitions.allocate(6, 10)
    twin = copy.deepcopy(model)
    twin.forward = torch.compile(twin.forward, backend='aot_eager')
    for seed in range(7):
        inputs, samples = batch(seed=seed)
        for place, sample in enumerate(samples):  # other numbers in each batch
            sample.set_metainfo(dict(sample_idx=(7 * place + seed) % 10))
        for network in (model, twin):
            network.set_epoch(seed)
            if seed:
                network.partitions.add(torch.tensor([0, 1, seed % 2, 1, 0] * 2))
        # Without partitions, with one, with several: that serves all batches, in any epoch.
        with torch._dynamo.config.patch(error_on_recompile=seed > 2):
            values = [network(inputs, samples, mode='loss') for network in (model, twin)]
        torch.testing.assert_close(*values)
        for value in values:
            value['loss'].backward()
        for (name, one), (_, two) in zip(model.named_parameters(), twin.named_parameters()):
            torch.testing.assert_close(one.grad, two.grad, msg=name)


def test_tensor_and_predict_modes():
    model = build().eval()
    inputs, samples = batch()
    inputs = [view.float() for view in inputs]
    feature = model(inputs[0])[-1]
    assert feature.shape[:2] == (6, 64)
    torch.testing.assert_close(model(inputs)[-1], feature)
    predicted = model(inputs[0], samples, mode='predict')
    assert [sample.sample_idx for sample in predicted] == list(range(6))
    torch.testing.assert_close(predicted[2].feature, feature[2].mean((1, 2)))
    assert len(model(inputs[0], mode='predict')) == 6


def test_one_view_is_refused():
    inputs, samples = batch()
    with pytest.raises(UserError, match='needs two views'):
        build().loss(inputs[0], samples)


@pytest.mark.parametrize(
    'option,message',
    [
        (dict(penalty='matrix'), "model.head.penalty must be one of .* but is 'matrix'"),
        (dict(objective='max'), "model.head.objective must be one of .* but is 'max'"),
        (dict(temperature=0), 'model.head.temperature must be positive, but is 0'),
        (dict(irm_rampup_epochs=-1), 'model.head.irm_rampup_epochs must not be negative'),
        (dict(irm_weight=-1.0), 'model.head.irm_weight must not be negative'),
    ],
)
def test_bad_head_options(option, message):
    with pytest.raises(UserError, match=message):
        build(**option)


@pytest.mark.parametrize('num_subsets', [1, 0, 257])
def test_bad_number_of_subsets(num_subsets):
    with pytest.raises(
        UserError, match=f'num_subsets must be from 2 to 256, but is {num_subsets}'
    ):
        MODELS.build(
            dict(
                type='IPIRMSimCLR',
                num_subsets=num_subsets,
                **copy.deepcopy(NETWORK),
                head=dict(type='IPIRMContrastiveHead'),
            )
        )
