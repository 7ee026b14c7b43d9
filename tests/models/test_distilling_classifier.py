"""The distilling classifier: what it compares, what it leaves alone, what it refuses."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from ipirm_mm.errors import UserError
from ipirm_mm.functional import kl_divergence, ofd_distance, ofd_margin
from ipirm_mm.models import DistillingClassifier
from ipirm_mm.models.distillation import (
    CRD,
    OFD,
    LogitKL,
    NetworkOutputs,
    PreActivationRecorder,
    find_stages,
)
from ipirm_mm.models.distillation.recorders import Recording

BACKBONES = {
    'basic': dict(type='ResNet', depth=18, stem_channels=8, base_channels=8),
    'bottleneck': dict(type='ResNet', depth=50, stem_channels=8, base_channels=8, expansion=2),
    'checkpointed': dict(
        type='ResNet', depth=50, stem_channels=8, base_channels=8, expansion=2, with_cp=True
    ),
    'deep stem': dict(type='ResNetV1d', depth=18, stem_channels=8, base_channels=8),
    'resnext': dict(type='ResNeXt', depth=50, groups=2, width_per_group=2),
    'se': dict(type='SEResNeXt', depth=50, groups=2, width_per_group=2),
    'resnest': dict(type='ResNeSt', depth=50, stem_channels=16, base_channels=16),
    'small': dict(type='SmallConvNet', channels=(8, 16), norm_cfg=dict(type='BN')),
}
BASIC = BACKBONES['basic']


def classifier(backbone=BASIC, width=64, classes=5, **options):
    return dict(
        type='ImageClassifier',
        backbone=backbone,
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=classes,
            in_channels=width,
            loss=dict(type='CrossEntropyLoss'),
            cal_acc=False,
        ),
        **options,
    )


def randomize(model, seed=0):
    """Weights and statistics that no layer is blind to (a residual branch may start at zero)."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and value.ndim <= 1:
            noise = torch.rand(value.shape, generator=generator)
            value.copy_(0.5 + noise if 'running_var' in name or 'weight' in name else noise - 0.5)
    return model


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.manual_seed(1)
    torch.save(randomize(MODELS.build(classifier()), 1).state_dict(), path)
    return str(path)


def distiller(checkpoint, losses, teacher=None, student=None, **options):
    torch.manual_seed(0)
    teacher = teacher or dict(model=classifier(), checkpoint=checkpoint)
    config = {**classifier(), **(student or {}), 'type': 'DistillingClassifier'}
    model = MODELS.build({**config, 'teacher': teacher, 'distill_losses': losses, **options})
    model.init_weights()
    return model


def batch(count=6, classes=5, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for index in range(count):
        sample = DataSample().set_gt_label(index % classes)
        sample.set_field(index, 'sample_idx', field_type='metainfo')
        samples.append(sample)
    return torch.randn(count, 3, size, size, generator=generator), samples


def total(losses):
    return sum(value for name, value in losses.items() if 'loss' in name)


# --- recorders --------------------------------------------------------------------------------


class LastCallIsIdentity(nn.Module):
    """An activation that leaves its last call out: then a block puts out its sum."""

    def __init__(self, calls):
        super().__init__()
        self.calls, self.count = calls, 0

    def forward(self, x):
        self.count += 1
        return x if self.count % self.calls == 0 else F.relu(x)


def last_blocks(network):
    """Of each stage, and the name of its activation."""
    if hasattr(network, 'res_layers'):
        return [(getattr(network, name)[-1], 'relu') for name in network.res_layers]
    return [(layer, 'activate') for layer in network.layers]


CALLS = {'bottleneck': 3, 'checkpointed': 3, 'resnext': 3, 'se': 3, 'small': 1}


@pytest.mark.parametrize('name', BACKBONES)
@pytest.mark.parametrize('training', [False, True])
def test_recorders_take_the_sum_before_the_last_activation(name, training):
    torch.manual_seed(0)
    network = randomize(MODELS.build(BACKBONES[name]))
    network.train(training)  # (of a ResNet it returns None)
    plain = copy.deepcopy(network)
    recorders = [PreActivationRecorder(stage) for stage in find_stages(network)]
    images = torch.randn(2, 3, 64, 64)
    for _ in range(2):
        with Recording(recorders):
            network(images)
        taken = [recorder.take() for recorder in recorders]
        assert all(bool((value < 0).any()) for value in taken)
        plain.load_state_dict(network.state_dict())
    for place, value in enumerate(taken):
        twin = copy.deepcopy(plain)
        block, activation = last_blocks(twin)[place]
        setattr(block, activation, LastCallIsIdentity(CALLS.get(name, 2)))
        outputs = []
        block.register_forward_hook(lambda *call, outputs=outputs: outputs.append(call[2]))
        twin(images)
        torch.testing.assert_close(value, outputs[0])


@pytest.mark.parametrize('name', ['basic', 'bottleneck', 'checkpointed', 'small'])
def test_gradients_through_recorders_and_past_them(name):
    """The same as where the sum is computed by hand from a block without its last activation."""
    torch.manual_seed(0)
    network = randomize(MODELS.build(BACKBONES[name]))
    twin = copy.deepcopy(network)
    recorders = [PreActivationRecorder(stage) for stage in find_stages(network)]
    images = torch.randn(2, 3, 64, 64)
    with Recording(recorders):
        output = network(images)[-1]
    values = [recorder.take() for recorder in recorders]
    (output.square().mean() + sum((value**3).mean() for value in values)).backward()

    sums = []
    for block, activation in last_blocks(twin):
        setattr(block, activation, LastCallIsIdentity(CALLS.get(name, 2)))

        def activate(block, args, out):
            sums.append(out)
            return F.relu(out)

        block.register_forward_hook(activate)
    output = twin(images)[-1]
    (output.square().mean() + sum((value**3).mean() for value in sums)).backward()
    for (key, ours), theirs in zip(network.named_parameters(), twin.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5, msg=key)


def test_recorders_keep_no_graph_and_can_be_removed():
    network = MODELS.build(BASIC)
    recorders = [PreActivationRecorder(stage) for stage in find_stages(network)]
    network(torch.randn(2, 3, 32, 32))
    assert all(recorder._value is None for recorder in recorders)  # not recording
    with Recording(recorders):
        network(torch.randn(2, 3, 32, 32))
    value = recorders[0].take()
    reference = weakref.ref(value)  # alive as long as anything holds it or its graph
    del value
    for recorder in recorders[1:]:
        recorder.take()
    gc.collect()
    assert reference() is None
    for recorder in recorders:
        recorder.remove()
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()]
    assert sum(hooks) == 0
    activations = [m for m in network.modules() if isinstance(m, nn.ReLU)]
    assert activations and all(m.inplace for m in activations)


@pytest.mark.parametrize('name', ['basic', pytest.param('bottleneck', marks=pytest.mark.slow)])
def test_recorders_survive_compilation(name):
    torch.manual_seed(0)
    network = randomize(MODELS.build(BACKBONES[name]))
    recorders = [PreActivationRecorder(stage) for stage in find_stages(network)]
    images = torch.randn(2, 3, 32, 32)
    with Recording(recorders):
        network(images)
    expected = [recorder.take() for recorder in recorders]
    compiled = torch.compile(network, backend='aot_eager')
    for _ in range(2):
        with Recording(recorders):
            compiled(images)
        for recorder, value in zip(recorders, expected):
            torch.testing.assert_close(recorder.take(), value, rtol=1e-4, atol=1e-5)


def test_a_backbone_that_cannot_be_read_is_named():
    network = MODELS.build(dict(type='VGG', depth=11))
    with pytest.raises(UserError, match='the stages of a VGG: it reads ResNet'):
        find_stages(network)


# --- losses -----------------------------------------------------------------------------------


def test_loss_is_the_weighted_sum(checkpoint):
    losses = [
        dict(type='LogitKL', temperature=2.0, loss_weight=3.0),
        dict(type='FeatureKL', loss_weight=0.5),
        dict(type='OFD', loss_weight=2.0, kappa=100),
        dict(type='LogitKL'),
    ]
    model = distiller(checkpoint, losses, ce_weight=0.25)
    model.train()
    inputs, samples = batch()
    twin = copy.deepcopy(model)
    ours = model.loss(inputs, samples)
    assert list(ours) == ['loss_ce', 'loss_kl', 'loss_feature_kl', 'loss_ofd', 'loss_kl_2']

    teacher = MODELS.build(classifier())
    teacher.load_state_dict(torch.load(checkpoint, weights_only=True))
    teacher.eval()
    recorders = [
        [PreActivationRecorder(s) for s in find_stages(network.backbone)]
        for network in (twin, teacher)
    ]
    with Recording(recorders[0] + recorders[1]):
        feature = twin.extract_feat(inputs)
        target = teacher.extract_feat(inputs)
    logits, target_logits = twin.head(feature), teacher.head(target)
    labels = torch.arange(6) % 5
    expected = dict(
        loss_ce=0.25 * F.cross_entropy(logits, labels),
        loss_kl=3 * kl_divergence(logits, target_logits, 2.0),
        loss_feature_kl=0.5 * kl_divergence(feature[-1], target[-1]),
        loss_kl_2=kl_divergence(logits, target_logits),
    )
    distance = 0.0
    for place, (student, stage) in enumerate(zip(recorders[0], find_stages(teacher.backbone))):
        connected = twin.distill_losses[2].connectors[place](student.take())
        margin = ofd_margin(stage.norm.weight, stage.norm.bias)
        distance += ofd_distance(connected, recorders[1][place].take(), margin) / 2 ** (3 - place)
    expected['loss_ofd'] = 2 * distance / (6 * 100)
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6, msg=name)
    total(ours).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.slow
def test_a_compiled_model_trains_alike(checkpoint):
    """With `torch.compile`, as MMEngine's option `compile` asks for it."""
    losses = [dict(type=name) for name in ('LogitKL', 'FeatureKL', 'OFD')]
    # So wide that a compiler would rather read the memory again than keep a gradient.
    model = distiller(checkpoint, [*losses, dict(type='CRD', num_negatives=10)])
    model.distill_losses[3].allocate(torch.arange(20) % 5)
    twin = copy.deepcopy(model)
    twin.forward = torch.compile(twin.forward, backend='aot_eager')
    for seed in range(3):
        inputs, samples = batch(seed=seed)
        for place, sample in enumerate(samples):  # other numbers in each batch
            sample.set_metainfo(dict(sample_idx=7 * place % 20 + seed))
        # What is compiled for the first batch serves them all.
        with torch._dynamo.config.patch(error_on_recompile=seed > 0):
            values = [network(inputs, samples, mode='loss') for network in (model, twin)]
        torch.testing.assert_close(*values)
        for value in values:
            total(value).backward()
        for (name, one), (_, two) in zip(model.named_parameters(), twin.named_parameters()):
            torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-5, msg=name)
        for (name, one), (_, two) in zip(model.named_buffers(), twin.named_buffers()):
            torch.testing.assert_close(one, two, msg=name)


def accumulated(model, batches):
    """The step of size 1 that MMEngine makes after all batches, with ``accumulative_counts``."""
    optimizer = dict(type='SGD', lr=1.0)
    wrapper = dict(optimizer=optimizer, accumulative_counts=len(batches))
    wrapper = build_optim_wrapper(model, dict(type='OptimWrapper', **wrapper))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for number, (inputs, samples) in enumerate(batches):
        same = [torch.equal(value, before[name]) for name, value in model.named_parameters()]
        assert all(same), f'a step before batch {number}'
        model.train_step(dict(inputs=inputs, data_samples=samples), wrapper)
    return {name: before[name] - value.detach() for name, value in model.named_parameters()}


SMALL = classifier(dict(type='SmallConvNet', channels=(8, 16)), 16)
EVERYTHING = [dict(type='LogitKL'), dict(type='FeatureKL'), dict(type='CRD', num_negatives=5)]


@pytest.mark.parametrize('losses', [EVERYTHING[:2], EVERYTHING], ids=['KL', 'CRD'])
def test_gradients_of_half_batches_are_accumulated(tmp_path, losses):
    """The mean of both; it is that of the whole batch where no memory is between them."""
    weights = tmp_path / 'teacher.pth'
    torch.save(randomize(MODELS.build(SMALL), 3).state_dict(), weights)
    teacher = dict(model=SMALL, checkpoint=str(weights))
    inputs, samples = batch()
    halves = [(inputs[:3], samples[:3]), (inputs[3:], samples[3:])]

    def build():
        model = distiller('', losses, teacher, student=SMALL).double().train()
        for frozen in model.beside:
            frozen.double()
        for loss in model.distill_losses:
            if isinstance(loss, CRD):
                loss.allocate(torch.arange(20) % 5)
        return model

    # double() of the inputs: MMPretrain's preprocessor makes single precision of them.
    model = build()
    model.data_preprocessor.forward = lambda data, training=False: {
        **data,
        'inputs': data['inputs'].double(),
    }
    found = accumulated(model, halves)
    twin = build()
    parts = halves if len(losses) == 3 else [(inputs, samples)]
    for part, labels in parts:
        loss = total(twin.loss(part.double(), labels))
        (loss / len(parts)).backward()
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-8, atol=1e-10, msg=name)
    # Memories are updated after each half, and counted.
    for (name, one), (_, two) in zip(model.named_buffers(), twin.named_buffers()):
        torch.testing.assert_close(one, two, msg=name)
    if len(losses) == 3:
        crd = model.distill_losses[2]
        assert int(crd.steps) == 2
        new = build().distill_losses[2]
        changed = (crd.memory_student != new.memory_student).any(1)
        assert changed.nonzero().flatten().tolist() == list(range(6))


@pytest.mark.parametrize(
    'stages,numbers', [('all', [0, 1, 2, 3]), ('last', [3]), ([0, 2], [0, 2]), ((1,), [1])]
)
def test_ofd_takes_the_stages_asked_for(checkpoint, stages, numbers):
    model = distiller(checkpoint, dict(type='OFD', stages=stages))
    loss = model.distill_losses[0]
    assert loss.numbers == numbers
    assert [name for name, _ in loss.named_buffers() if 'margin' in name] == [
        f'margin{number}' for number in numbers
    ]
    weight = loss.connectors[-1][0].weight.detach()
    assert weight.std().item() == pytest.approx((2 / weight.shape[0]) ** 0.5, rel=0.2)


def test_widths_may_differ(checkpoint):
    student = classifier(dict(BASIC, base_channels=16), 128)
    losses = [dict(type='FeatureKL'), dict(type='OFD'), dict(type='CRD', num_negatives=4)]
    model = distiller(checkpoint, losses, student=student)
    model.distill_losses[2].allocate(torch.arange(20) % 5)
    assert model.distill_losses[0].connector.weight.shape == (64, 128)
    total(model.loss(*batch())).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize('name', ['se', 'resnest', 'small'])
def test_backbones_of_the_report(name, tmp_path):
    network = MODELS.build(BACKBONES[name])
    width = network(torch.zeros(2, 3, 64, 64))[-1].shape[1]
    config = classifier(BACKBONES[name], width)
    path = tmp_path / 'teacher.pth'
    torch.save(MODELS.build(config).state_dict(), path)
    teacher = dict(model=config, checkpoint=str(path))
    model = distiller(None, dict(type='OFD'), teacher=teacher, student=config)
    losses = model.loss(*batch(size=64))
    assert torch.isfinite(losses['loss_ofd']) and losses['loss_ofd'] > 0


def test_several_teachers(checkpoint, tmp_path):
    other = tmp_path / 'other.pth'
    torch.save(randomize(MODELS.build(classifier()), 2).state_dict(), other)
    teachers = [dict(model=classifier(), checkpoint=str(path)) for path in (checkpoint, other)]
    inputs, samples = batch()
    model = distiller(None, dict(type='LogitKL', temperature=2.0), teacher=teachers)
    model.eval()
    loss = model.loss(inputs, samples)['loss_kl']
    logits = []
    for path in (checkpoint, other):
        network = MODELS.build(classifier())
        network.load_state_dict(torch.load(path, weights_only=True))
        logits.append(network.eval()(inputs))
    p = torch.stack([(z / 2).softmax(1) for z in logits]).mean(0)
    torch.testing.assert_close(loss, kl_divergence(model(inputs), 2 * p.log(), 2.0))
    ofd = distiller(None, dict(type='OFD', teacher=1), teacher=teachers)
    norm = find_stages(ofd.beside.teachers[1].network.backbone)[0].norm
    torch.testing.assert_close(ofd.distill_losses[0].margin0, ofd_margin(norm.weight, norm.bias))


# --- CRD --------------------------------------------------------------------------------------


def crd(images=20, **options):
    torch.manual_seed(0)
    loss = CRD(feat_dim=8, num_negatives=5, **options)
    response = NetworkOutputs(None, torch.zeros(2, 12), [])
    loss.build(response, [NetworkOutputs(None, torch.zeros(2, 16), [])])
    loss.allocate(torch.arange(images) % 4)
    return loss


def features(count=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(count, 12, generator=generator, requires_grad=True)
    return NetworkOutputs(None, student, []), [
        NetworkOutputs(None, torch.randn(count, 16, generator=generator), [])
    ]


def test_crd_memories_begin_random_and_alike():
    loss = crd()
    bound = (3 / 8) ** 0.5
    assert loss.memory_student.abs().max() <= bound
    assert not torch.equal(loss.memory_student, loss.memory_teacher)
    assert torch.equal(loss.memory_student, crd().memory_student)
    assert not torch.equal(loss.memory_student, crd(seed=1).memory_student)


def test_crd_updates_its_memories_after_the_scores():
    loss = crd(momentum=0.3)
    before = loss.memory_student.clone(), loss.memory_teacher.clone()
    student, teachers = features()
    sample_idx = torch.tensor([3, 0, 7, 3, 12, 19])  # 3 is there twice: its first row counts
    value = loss(student, teachers, sample_idx)
    value.backward()  # not hindered by the update
    rows = F.normalize(loss.embed_student(student.feature), dim=1)
    for place, index in enumerate(sample_idx.tolist()):
        if place == 3:
            continue
        expected = F.normalize(0.3 * before[0][index] + 0.7 * rows[place], dim=0)
        torch.testing.assert_close(loss.memory_student[index], expected)
    others = [index for index in range(20) if index not in sample_idx.tolist()]
    for old, new in zip(before, (loss.memory_student, loss.memory_teacher)):
        assert torch.equal(old[others], new[others])
    constants = loss.constants.clone()
    assert (constants > 0).all() and int(loss.steps) == 1
    loss(*features(seed=1), sample_idx)
    assert torch.equal(loss.constants, constants)  # of the first batch only
    loss.eval()
    memory = loss.memory_student.clone()
    loss(*features(seed=2), sample_idx)
    assert torch.equal(loss.memory_student, memory)


def test_crd_continues_from_a_checkpoint_and_a_copy():
    whole = crd()
    indices = torch.arange(6)
    values = []
    resumed = copied = None
    for step in range(4):
        values.append(whole(*features(seed=step), indices + step))
        if step == 1:
            copied = copy.deepcopy(whole)
            resumed = crd(seed=5)
            resumed.seed = 0
            resumed.load_state_dict(whole.state_dict())
    for other in (resumed, copied):
        for step in (2, 3):
            assert torch.equal(other(*features(seed=step), indices + step), values[step])
        assert torch.equal(other.memory_teacher, whole.memory_teacher)


def test_crd_without_data_takes_over_the_size_of_a_checkpoint():
    loss = CRD(feat_dim=8, num_negatives=5)
    response = NetworkOutputs(None, torch.zeros(2, 12), [])
    loss.build(response, [NetworkOutputs(None, torch.zeros(2, 16), [])])
    loss.load_state_dict(crd().state_dict())
    assert loss.memory_student.shape == (20, 8)


def test_crd_errors(monkeypatch):
    with pytest.raises(UserError, match='put .*CRDMemoryHook'):
        loss = CRD()
        loss(*features(), torch.arange(6))
    with pytest.raises(UserError, match='only one class'):
        crd().__class__(num_negatives=2).allocate(torch.zeros(4, dtype=torch.long))
    with pytest.raises(UserError, match='CRD needs sample_idx'):
        crd()(*features(), None)
    with pytest.raises(UserError, match='are of 24 images, but the training set has 20'):
        crd().load_state_dict(crd(images=24).state_dict())
    monkeypatch.setattr('ipirm_mm.models.distillation.crd._free_memory', lambda device: 2**30)
    with pytest.raises(UserError, match=r'need 1.9 GiB for 2,000,000 images of width 128'):
        CRD().allocate(torch.arange(2_000_000) % 2)
    with pytest.raises(UserError, match='CRD.momentum must be in'):
        CRD(momentum=1.0)
    with pytest.raises(UserError, match='CRD.temperature must be positive'):
        CRD(temperature=0)


# --- the teacher beside the tree --------------------------------------------------------------


def test_teacher_is_in_nothing_that_trains_or_is_saved(checkpoint):
    model = distiller(checkpoint, dict(type='LogitKL'))
    plain = MODELS.build(classifier())
    assert model.state_dict().keys() == plain.state_dict().keys()
    frozen = model.beside.teachers[0].network
    ids = {id(parameter) for parameter in model.parameters()}
    assert not any(id(p) in ids or p.requires_grad for p in frozen.parameters())
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    model.train()
    assert not any(module.training for module in frozen.modules())
    optimizer = build_optim_wrapper(
        model, dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, weight_decay=0.1))
    )
    inputs, samples = batch()
    optimizer.update_params(total(model.loss(inputs, samples)))
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    copied = copy.deepcopy(model)  # after a step
    assert copied.beside.teachers[0] is model.beside.teachers[0]
    average = ExponentialMovingAverage(model)
    average.update_parameters(model)
    assert not any('beside' in name for name in average.state_dict())
    torch.testing.assert_close(
        total(copied.loss(inputs, samples)), total(model.loss(inputs, samples))
    )


def test_copies_have_recorders_of_their_own(checkpoint):
    model = distiller(checkpoint, dict(type='OFD'))
    inputs, samples = batch()
    model.loss(inputs, samples)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.zero_()
    changed = model.loss(inputs, samples)['loss_ofd']
    assert copied.loss(inputs, samples)['loss_ofd'] != changed


def test_teacher_moves_with_the_inputs(checkpoint):
    model = distiller(checkpoint, [dict(type='LogitKL'), dict(type='OFD')]).double()
    inputs, samples = batch()
    losses = model.loss(inputs.double(), samples)
    assert losses['loss_ofd'].dtype == losses['loss_kl'].dtype == torch.float64


def test_dropout_and_stochastic_depth_of_the_teacher_are_off(tmp_path):
    config = classifier(dict(BASIC, drop_path_rate=0.9))
    path = tmp_path / 'teacher.pth'
    torch.save(MODELS.build(config).state_dict(), path)
    model = distiller(None, dict(type='LogitKL'), teacher=dict(model=config, checkpoint=str(path)))
    model.train()
    frozen = model.beside.teachers[0]
    inputs, _ = batch()
    assert torch.equal(frozen(inputs).logits, frozen(inputs).logits)


def test_batch_statistics_of_the_teacher_change_nothing_stored(checkpoint):
    teacher = dict(model=classifier(), checkpoint=checkpoint, batch_statistics=True)
    model = distiller(None, dict(type='LogitKL'), teacher=teacher)
    frozen = model.beside.teachers[0]
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    inputs, _ = batch()
    reference = MODELS.build(classifier())
    reference.load_state_dict(torch.load(checkpoint, weights_only=True))
    torch.testing.assert_close(frozen(inputs).logits, reference.train()(inputs))
    reference.load_state_dict(torch.load(checkpoint, weights_only=True))
    torch.testing.assert_close(frozen(inputs, training=False).logits, reference.eval()(inputs))
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())


@pytest.mark.parametrize('student_rgb', [False, True])
@pytest.mark.parametrize(
    'own',
    [
        dict(mean=[10.0, 20.0, 30.0], std=[4.0, 5.0, 6.0], to_rgb=True),
        dict(mean=[10.0, 20.0, 30.0], std=[4.0, 5.0, 6.0], bgr_to_rgb=True),
        dict(mean=[10.0, 20.0, 30.0], std=[4.0, 5.0, 6.0]),
        dict(),
    ],
)
def test_teacher_gets_images_as_it_was_trained_on(checkpoint, student_rgb, own):
    preprocessor = dict(mean=[1.0, 2.0, 3.0], std=[7.0, 8.0, 9.0], to_rgb=student_rgb)
    teacher = dict(
        model=classifier(data_preprocessor=dict(type='ClsDataPreprocessor', **own)),
        checkpoint=checkpoint,
    )
    model = distiller(
        None, dict(type='LogitKL'), teacher=teacher, data_preprocessor=dict(preprocessor)
    )
    pixels = torch.randint(256, (4, 3, 32, 32)).float()
    seen = []
    model.beside.teachers[0].network.backbone.register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    model.beside.teachers[0](model.data_preprocessor(dict(inputs=pixels))['inputs'])
    swaps = own.get('to_rgb') or own.get('bgr_to_rgb')
    expected = pixels.flip(1) if swaps else pixels
    if own:
        mean, std = (torch.tensor(own[name]).view(3, 1, 1) for name in ('mean', 'std'))
        expected = (expected - mean) / std
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-3)


def test_prediction_of_the_teacher(checkpoint):
    model = distiller(checkpoint, dict(type='LogitKL'), predict_teacher=True)
    model.eval()
    inputs, samples = batch()
    predicted = model.predict(inputs, samples)
    scores = torch.stack([sample.teacher_score for sample in predicted])
    torch.testing.assert_close(scores, model.beside.teachers[0](inputs).logits.softmax(1))
    own = torch.stack([sample.pred_score for sample in predicted])
    torch.testing.assert_close(own, model(inputs).softmax(1))


# --- what is refused --------------------------------------------------------------------------


def test_mixed_images_go_with_kl_but_not_with_crd(checkpoint):
    mixed = dict(
        train_cfg=dict(augments=dict(type='Mixup', alpha=0.2)),
        data_preprocessor=dict(num_classes=5),
    )
    model = distiller(checkpoint, dict(type='LogitKL'), **copy.deepcopy(mixed))
    inputs, samples = batch()
    data = model.data_preprocessor(dict(inputs=inputs, data_samples=samples), training=True)
    assert torch.isfinite(total(model.loss(**data)))
    with pytest.raises(UserError, match='CRD compares whole images.*Mixup'):
        distiller(checkpoint, dict(type='CRD'), **copy.deepcopy(mixed))


def encoder(norm='BN'):
    return dict(
        type='IPIRMSimCLR',
        backbone=dict(BASIC, norm_cfg=dict(type='BN')),
        neck=dict(
            type='NonLinearNeck',
            in_channels=64,
            hid_channels=8,
            out_channels=8,
            num_layers=2,
            with_last_bn=False,
            norm_cfg=dict(type='BN1d'),
        ),
        head=dict(type='IPIRMContrastiveHead'),
        data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[0.0] * 3, std=[1.0] * 3),
    )


def test_an_encoder_of_stage_one_teaches_what_needs_no_classes(tmp_path):
    path = tmp_path / 'encoder.pth'
    torch.save(dict(state_dict=MODELS.build(encoder()).state_dict()), path)
    teacher = dict(model=encoder(), checkpoint=str(path))
    losses = [dict(type='FeatureKL'), dict(type='OFD'), dict(type='CRD', num_negatives=3)]
    model = distiller(None, losses, teacher=teacher)
    model.distill_losses[2].allocate(torch.arange(20) % 5)
    assert torch.isfinite(total(model.loss(*batch())))
    with pytest.raises(UserError, match='teacher 0 is an encoder without a classifier'):
        distiller(None, dict(type='LogitKL'), teacher=teacher)


@pytest.mark.parametrize(
    'losses,teacher,message',
    [
        (dict(type='LogitKL'), dict(model=classifier(classes=7)), 'teacher 0 has 7 classes, but'),
        (
            dict(type='OFD'),
            dict(
                model=classifier(
                    dict(
                        BASIC,
                        num_stages=3,
                        out_indices=(2,),
                        strides=(1, 2, 2),
                        dilations=(1, 1, 1),
                    ),
                    32,
                )
            ),
            'the student has 4 and the teacher 3',
        ),
        (
            dict(type='OFD'),
            dict(model=classifier(dict(BASIC, strides=(1, 2, 2, 1)))),
            'at stage 3 the student has',
        ),
        (dict(type='OFD', stages='first'), dict(model=classifier()), "OFD.stages must be 'all'"),
        (dict(type='OFD', stages=[0, 4]), dict(model=classifier()), 'from 0 to 3, but is'),
        (dict(type='OFD', kappa=0), dict(model=classifier()), 'OFD.kappa must be positive'),
        (dict(type='LogitKL', temperature=-1), dict(model=classifier()), 'temperature must be'),
        (dict(type='FeatureKL', teacher=1), dict(model=classifier()), 'FeatureKL.teacher must be'),
        (dict(type='LogitKL', loss_weight=-1), dict(model=classifier()), 'loss_weight must not'),
        (dict(type='LogitKL'), dict(model='nowhere.py'), 'no config file nowhere.py'),
        ([], dict(model=classifier()), 'distill_losses is missing'),
    ],
)
def test_bad_options_get_one_sentence(checkpoint, losses, teacher, message):
    with pytest.raises(UserError, match=message):
        distiller(None, losses, teacher=dict(teacher, checkpoint=checkpoint))


def test_teacher_without_batch_normalisation_has_no_margin(tmp_path):
    norm = dict(type='GN', num_groups=4)
    config = classifier(dict(type='SmallConvNet', channels=(8, 16), norm_cfg=norm), 16)
    path = tmp_path / 'teacher.pth'
    torch.save(MODELS.build(config).state_dict(), path)
    with pytest.raises(UserError, match="the teacher's is a GroupNorm: use a teacher with batch"):
        distiller(
            None,
            dict(type='OFD'),
            teacher=dict(model=config, checkpoint=str(path)),
            student=config,
        )


@pytest.mark.parametrize(
    'path,message', [('', 'the teacher has no checkpoint'), ('/no/x.pth', 'no checkpoint /no/x')]
)
def test_missing_checkpoint(path, message):
    with pytest.raises(UserError, match=message):
        distiller(None, dict(type='LogitKL'), teacher=dict(model=classifier(), checkpoint=path))


def test_registered_names():
    for name in ('DistillingClassifier', 'LogitKL', 'FeatureKL', 'OFD', 'CRD', 'DKD', 'DIST'):
        assert MODELS.get(name) is not None
    assert issubclass(DistillingClassifier, MODELS.get('ImageClassifier'))
    assert LogitKL.allows_mixing and not CRD.allows_mixing and OFD.reads_stages
