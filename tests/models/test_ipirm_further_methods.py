"""IP-IRM on MoCo v3, BYOL and Barlow Twins: MMPretrain's own training without partitions."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MessageHub
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch.utils._python_dispatch import TorchDispatchMode

from ipirm_mm.errors import UserError
from ipirm_mm.functional import contrastive_risks, cosine_risks
from ipirm_mm.models.utils import MomentumEncoder

STEPS = 4
BN = dict(type='BN1d')
NETWORK = dict(
    backbone=dict(type='ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8),
    neck=dict(
        type='NonLinearNeck',
        in_channels=64,
        hid_channels=16,
        out_channels=8,
        num_layers=2,
        norm_cfg=BN,
    ),
)
PREDICTOR = dict(
    type='NonLinearNeck',
    in_channels=8,
    hid_channels=16,
    out_channels=8,
    with_avg_pool=False,
    with_last_bn=False,
    norm_cfg=BN,
)
TEMPERATURE = 0.2
# Type and head, ours and MMPretrain's.
METHODS = {
    'mocov3': (
        ('IPIRMMoCoV3', dict(type='IPIRMMoCoV3Head', predictor=PREDICTOR)),
        (
            'MoCoV3',
            dict(
                type='MoCoV3Head',
                predictor=PREDICTOR,
                loss=dict(type='CrossEntropyLoss', loss_weight=2 * TEMPERATURE),
                temperature=TEMPERATURE,
            ),
        ),
    ),
    'byol': (
        ('IPIRMBYOL', dict(type='IPIRMLatentHead', predictor=PREDICTOR)),
        (
            'BYOL',
            dict(
                type='LatentPredictHead',
                predictor=PREDICTOR,
                loss=dict(type='CosineSimilarityLoss'),
            ),
        ),
    ),
    'barlowtwins': (
        ('IPIRMBarlowTwins', dict(type='IPIRMCrossCorrelationHead', in_channels=8)),
        (
            'BarlowTwins',
            dict(
                type='LatentCrossCorrelationHead',
                in_channels=8,
                loss=dict(type='CrossCorrelationLoss'),
            ),
        ),
    ),
}
MOMENTUM = {'mocov3': 'momentum_encoder', 'byol': 'target_net'}


def build(method, **head):
    kind, own_head = METHODS[method][0]
    head = dict(copy.deepcopy(own_head), temperature=TEMPERATURE, **head)
    return MODELS.build(dict(type=kind, **copy.deepcopy(NETWORK), head=head))


def build_theirs(method, **options):
    kind, head = METHODS[method][1]
    config = dict(type=kind, **copy.deepcopy(NETWORK), head=copy.deepcopy(head), **options)
    return MODELS.build(config)


def batch(size=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    views = [torch.randn(size, 3, 16, 16, generator=generator).double() for _ in range(2)]
    return views, [DataSample(metainfo=dict(sample_idx=i)) for i in range(size)]


@pytest.fixture(autouse=True)
def length_of_training():
    """What the runner tells the momentum encoder."""
    hub = MessageHub.get_current_instance()
    before = hub.runtime_info.get('max_iters')
    hub.update_info('max_iters', STEPS + 1)
    yield
    if before is None:
        hub.pop_info('max_iters', None)
    else:
        hub.update_info('max_iters', before)


@pytest.mark.parametrize(
    'method,objective', [('mocov3', 'authors'), ('byol', 'report'), ('barlowtwins', 'authors')]
)
def test_without_partition_and_penalty_it_is_mmpretrains_method(method, objective):
    """Loss, gradients, momentum encoder and all statistics, over several steps."""
    torch.manual_seed(0)
    ours = build(method, irm_weight=0.0, objective=objective).double()
    theirs = build_theirs(method).double()
    incompatible = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not incompatible.missing_keys
    assert all(key.startswith('partitions.') for key in incompatible.unexpected_keys)
    optimizers = [
        torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9) for model in (ours, theirs)
    ]
    tolerance = dict(rtol=1e-10, atol=1e-10)
    for step in range(STEPS):
        inputs, samples = batch(seed=step)
        loss, expected = (model.loss(inputs, samples)['loss'] for model in (ours, theirs))
        torch.testing.assert_close(loss, expected, **tolerance)
        for optimizer, value in zip(optimizers, (loss, expected)):
            optimizer.zero_grad()
            value.backward()
        for (name, mine), (_, other) in zip(ours.named_parameters(), theirs.named_parameters()):
            torch.testing.assert_close(mine.grad, other.grad, **tolerance, msg=name)
        assert max(p.grad.abs().max() for p in ours.parameters() if p.grad is not None) > 1e-3
        for optimizer in optimizers:
            optimizer.step()
        state = ours.state_dict()
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(state[name], value, **tolerance, msg=name)
    if method in MOMENTUM:
        encoder = ours.get_submodule(MOMENTUM[method])
        assert int(encoder.steps) == STEPS
        network = torch.nn.Sequential(ours.backbone, ours.neck)
        pairs = list(zip(encoder.module.parameters(), network.parameters()))
        assert not any(mine.requires_grad for mine, _ in pairs)
        assert any((mine - other).abs().max() > 1e-3 for mine, other in pairs)


def outputs(model, method, inputs):
    """Anchors and targets, and the method's own loss times its factor, each written out."""
    z = [model.neck(model.backbone(view))[0] for view in inputs]
    if method == 'barlowtwins':
        standard = [(row - row.mean(0)) / (row.var(0, unbiased=False) + 1e-5).sqrt() for row in z]
        matrix = standard[0].T @ standard[1] / len(z[0])
        off = matrix - torch.diag(matrix.diag())
        own = (matrix.diag() - 1).square().sum() + 0.0051 * off.square().sum()
        return tuple(F.normalize(row, dim=1) for row in z), None, own, 1
    # The first update of a momentum encoder is a copy.
    t1, t2 = t = tuple(F.normalize(row.detach(), dim=1) for row in z)
    p1, p2 = p = tuple(F.normalize(model.head.predictor([row])[0], dim=1) for row in z)
    if method == 'byol':
        return p, t, -((p1 * t2).sum(1) + (p2 * t1).sum(1)).mean() / 2, 4
    rows = torch.arange(len(p1))
    own = F.cross_entropy(p1 @ t2.T / TEMPERATURE, rows)
    own = (own + F.cross_entropy(p2 @ t1.T / TEMPERATURE, rows)) / 2
    return p, t, own, 4 * TEMPERATURE


@pytest.mark.parametrize('objective', ['authors', 'report'])
@pytest.mark.parametrize('penalize_batch', [False, True])
@pytest.mark.parametrize(
    'method,head',
    [('mocov3', {}), ('byol', {}), ('byol', dict(similarity='cosine')), ('barlowtwins', {})],
)
def test_loss_is_assembled_as_documented(method, head, objective, penalize_batch):
    torch.manual_seed(0)
    options = dict(irm_weight=0.3, irm_temperature=0.7, objective=objective, **head)
    model = build(method, penalize_batch=penalize_batch, **options).double()
    model.partitions.allocate(2, 10)
    model.partitions.add(torch.tensor([0, 1] * 5))
    model.partitions.add(torch.tensor([0, 0, 1, 1, 0, 1, 0, 0, 1, 1]))
    inputs, samples = batch()
    for sample, index in zip(samples, [7, 2, 9, 0, 4, 5]):
        sample.set_metainfo(dict(sample_idx=index))
    losses = model.loss(inputs, samples)
    anchors, targets, own, factor = outputs(model, method, inputs)
    subset_ids = torch.tensor([[2, 1, 2, 1, 1, 2], [3, 4, 4, 3, 3, 4], [0] * 6])
    if head:
        risks = cosine_risks(anchors, targets, subset_ids, 5)
    else:
        negatives = 'other_view' if method == 'mocov3' else 'both_views'
        more = dict(targets=targets, negatives=negatives)
        risks = contrastive_risks(*anchors, subset_ids, 5, TEMPERATURE, 0.7, **more)
    if objective == 'report':
        expected = own + risks.loss[1:].sum() + 0.3 * risks.penalty.sum()
    else:
        expected = own + risks.loss[1:].mean() + 0.3 * risks.penalty[1:].mean()
        if penalize_batch:
            expected = expected + 0.3 * risks.penalty[0]
            if method != 'mocov3' and not head:  # the contrast is not the method's own loss
                expected = expected + risks.loss[0]
    expected = factor * expected
    torch.testing.assert_close(losses['loss'], expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(losses['risk_batch'], own, rtol=1e-10, atol=1e-10)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    grads = (
        torch.autograd.grad(loss, list(trained.values())) for loss in (losses['loss'], expected)
    )
    for name, mine, other in zip(trained, *grads):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-10, msg=name)
    # Partitions are found by the projections, in unit rows.
    model.eval()
    z = model.project(inputs[0])
    torch.testing.assert_close(z.norm(dim=1), torch.ones(6).double())
    torch.testing.assert_close(z, F.normalize(model.neck(model.backbone(inputs[0]))[0], dim=1))


class WithoutWaiting(TorchDispatchMode):
    """Refuses to read a number from a tensor, for which the host waits for a GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('method', METHODS)
def test_a_step_reads_nothing_from_the_device(method):
    model = build(method).double()
    model.partitions.allocate(1, 6)
    model.partitions.add(torch.tensor([0, 1] * 3))
    for step in range(2):  # the first update of a momentum encoder is a special one
        inputs, samples = batch(seed=step)
        with WithoutWaiting():
            model.loss(inputs, samples)['loss'].backward()


def test_outside_of_a_run_the_momentum_stays():
    encoder, network = encoder_and_network()
    MessageHub.get_current_instance().pop_info('max_iters')
    encoder.update_parameters(network)
    assert torch.equal(encoder.module.weight, network.weight)
    for _ in range(3):
        before = encoder.module.weight.clone()
        torch.nn.init.normal_(network.weight)
        encoder.update_parameters(network)
        expected = 0.7 * before + 0.3 * network.weight.data
        torch.testing.assert_close(encoder.module.weight.data, expected)


def test_the_momentum_falls_to_zero_at_the_end_of_a_run():
    encoder, network = encoder_and_network()
    for _ in range(STEPS + 1):  # one more would be step T, of share 0
        encoder.update_parameters(network)
        torch.nn.init.normal_(network.weight)
    before = encoder.module.weight.clone()
    encoder.update_parameters(network)
    torch.testing.assert_close(encoder.module.weight, before, rtol=0, atol=1e-6)
    assert int(encoder.steps) == STEPS + 2


def encoder_and_network():
    network = torch.nn.Linear(3, 2)
    encoder = MomentumEncoder(network, 0.3)
    torch.nn.init.normal_(network.weight)
    return encoder, network


@pytest.mark.parametrize('method', METHODS)
def test_mixed_precision(method):
    """Half precision in the network, but not in the loss."""
    torch.manual_seed(0)
    model = build(method)
    model.partitions.allocate(1, 6)
    model.partitions.add(torch.tensor([0, 1] * 3))
    inputs, samples = batch()
    with torch.autocast('cpu', torch.bfloat16):
        losses = model.loss([view.float() for view in inputs], samples)
    assert losses['loss'].dtype == torch.float32
    losses['loss'].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize('method', MOMENTUM)
@pytest.mark.parametrize('momentum', [0, 1, -0.1])
def test_bad_momentum(method, momentum):
    kind, head = METHODS[method][0]
    config = dict(type=kind, **copy.deepcopy(NETWORK), head=copy.deepcopy(head))
    with pytest.raises(
        UserError, match=f'base_momentum must be between 0 and 1, but is {momentum}'
    ):
        MODELS.build(dict(config, base_momentum=momentum))
