"""The count of a step's memory against real tensors on the processor."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from mmengine.config import Config
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch.profiler import ProfilerActivity, profile

from ipirm_mm.engine.memory import StepCounter, image_size, largest_batch
from ipirm_mm.errors import UserError

BATCH, SIZE = 8, 128
# Narrow, so that activations are more than what the processor's kernels allocate for weights.
CLASSIFIER = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, stem_channels=16, base_channels=16),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=128),
)
SGD = dict(type='SGD', lr=0.1, momentum=0.9)
both = pytest.mark.parametrize('half', [False, True], ids=['fp32', 'bf16'])


def counter_of(optimizer=SGD, **model):
    config = dict(model={**CLASSIFIER, **model}, optim_wrapper=dict(optimizer=optimizer))
    return StepCounter(Config(config))


def real_loss(model, half):
    images = torch.randn(BATCH, 3, SIZE, SIZE)
    samples = [DataSample().set_gt_label(number) for number in range(BATCH)]
    with torch.autocast('cpu', torch.bfloat16) if half else nullcontext():
        return model.loss(images, samples)['loss']


def saved_in_graph(loss, model):
    """Bytes that the nodes of the graph hold, read from the nodes instead of counted by hooks."""
    known = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    sizes, nodes, seen = {}, [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes.extend(following for following, _ in node.next_functions)
        for name in dir(node):
            if not name.startswith('_saved_'):
                continue
            value = getattr(node, name)
            for tensor in value if isinstance(value, (tuple, list)) else [value]:
                if isinstance(tensor, torch.Tensor):
                    storage = tensor.untyped_storage()
                    sizes[storage.data_ptr()] = storage.nbytes()
    return sum(size for pointer, size in sizes.items() if pointer not in known)


@both
def test_kept_bytes_are_those_of_a_real_network(half):
    model = MODELS.build(CLASSIFIER).train()
    found = saved_in_graph(real_loss(model, half), model)
    # In bf16 PyTorch's operations without data take the statistics of a normalization for bf16.
    statistics = sum(2 * 2 * m.num_features for m in model.modules() if hasattr(m, 'running_var'))
    expected = found - half * statistics
    assert counter_of().count(BATCH, SIZE, half).kept == pytest.approx(expected, abs=64)


@both
def test_peak_is_that_of_the_allocator(half):
    """Of PyTorch's allocator on the processor, which also sees what kernels allocate."""
    model = MODELS.build(CLASSIFIER).train()
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        real_loss(model, half).backward()
    now = peak = 0
    for event in measured.profiler.kineto_results.events():
        if event.name() == '[memory]':
            now += event.nbytes()
            peak = max(peak, now)
    assert counter_of().count(BATCH, SIZE, half).peak == pytest.approx(peak, rel=0.05)


def test_half_the_bytes_in_16_bits_and_a_copy_of_the_weights():
    counter = counter_of()
    (full, more), (half, more_half) = (
        [counter.count(images, SIZE, half).kept for images in (8, 16)] for half in (False, True)
    )
    assert more_half - half == pytest.approx(
        (more - full) / 2, rel=0.1
    )  # images and indices do not halve
    convolutions = sum(w.numel() for w in counter.model.parameters() if w.dim() > 1)
    assert 2 * half - more_half == pytest.approx(2 * convolutions, rel=0.05)


@both
def test_linear_in_the_batch(half):
    counter = counter_of()
    found = [counter.count(images, SIZE, half) for images in (4, 8, 16)]
    for name in ('kept', 'peak'):
        few, some, many = (getattr(memory, name) for memory in found)
        assert many - some == pytest.approx(2 * (some - few), rel=1e-3)
    assert len({memory.fixed for memory in found}) == 1


@both
def test_checkpointing_lowers_what_is_kept(half):
    counter = counter_of()
    plain = counter.count(BATCH, SIZE, half)
    names = counter.stage_names()
    assert names == [f'backbone.layer{number}' for number in range(1, 5)]
    counter.recompute(names)
    lower = counter.count(BATCH, SIZE, half)
    assert lower.kept < lower.peak < plain.kept < plain.peak
    assert lower.fixed == plain.fixed
    with pytest.raises(UserError, match='backbone.layer9, which the model does not have'):
        counter.recompute(['backbone.layer9'])


def test_checkpointing_updates_statistics_twice_and_keeps_gradients():
    """As docs/memory.md says."""
    plain = MODELS.build(CLASSIFIER).train()
    recomputed = copy.deepcopy(plain)
    turn_on_activation_checkpointing(recomputed, ['backbone.layer1'])
    for model in (plain, recomputed):
        torch.manual_seed(0)
        real_loss(model, half=False).backward()
    for name, weight in recomputed.named_parameters():
        torch.testing.assert_close(weight.grad, plain.get_parameter(name).grad)
    once, twice = (model.backbone.layer1[0].bn1 for model in (plain, recomputed))
    torch.testing.assert_close(twice.running_mean, 1.9 * once.running_mean)


@pytest.mark.parametrize(
    ('optimizer', 'states'),
    [
        (dict(type='SGD', lr=0.1), 0),
        (SGD, 1),
        (dict(type='LARS', lr=0.1, momentum=0.9), 1),
        (dict(type='Adam', lr=0.1), 2),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else str(value),
)
def test_weights(optimizer, states):
    found = counter_of(optimizer).count(2, 32)
    model = MODELS.build(CLASSIFIER)
    parameters = 4 * sum(weight.numel() for weight in model.parameters())
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    assert found.weights == parameters + buffers
    assert (found.gradients, found.optimizer) == (2 * parameters, states * parameters)
    assert found.teachers == 0
    assert found.total == found.fixed + found.peak


def test_frozen_backbone_keeps_nothing():
    backbone = dict(CLASSIFIER['backbone'], frozen_stages=4, norm_eval=True)
    frozen, free = (
        counter_of(**options).count(BATCH, SIZE) for options in (dict(backbone=backbone), {})
    )
    assert frozen.kept < free.kept / 100
    assert frozen.gradients == 2 * 4 * (128 * 10 + 10)


def test_a_teacher_adds_its_weights_and_keeps_nothing():
    student = dict(
        type='DistillingClassifier',
        teacher=dict(model=CLASSIFIER, checkpoint='none.pth'),
        distill_losses=[dict(type='LogitKL')],
    )
    alone, taught = (counter_of(**options).count(BATCH, SIZE) for options in ({}, student))
    assert taught.teachers == pytest.approx(alone.weights, abs=64)  # its normalization
    assert taught.kept == pytest.approx(alone.kept, rel=1e-3)  # logits


def test_largest_batch():
    counter = counter_of()

    def total(images):
        return counter.count(images, SIZE).total

    limit = 100_000_000
    found = largest_batch(total, limit, 32)
    assert total(found) <= limit < total(found + 2)
    assert largest_batch(total, 1000, 32) == 0


@pytest.mark.parametrize(
    ('name', 'size'),
    [('ipirm_simclr_r50', 224), ('distill/kl_resnest200_400', 400), ('quickstart/simclr', 28)],
)
def test_image_size(name, size):
    assert image_size(Config.fromfile(f'ipirm_mm::{name}.py')) == size


def test_no_image_size():
    assert image_size(Config.fromfile('ipirm_mm::quickstart/linear.py')) is None
