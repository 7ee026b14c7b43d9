"""Distillation losses against slow definitions, and the original authors' outputs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ipirm_mm.functional import (
    binary_kl_divergence,
    crd_constants,
    crd_index,
    crd_loss,
    index_classes,
    kl_divergence,
    mean_teacher_binary_logits,
    mean_teacher_logits,
    ofd_distance,
    ofd_margin,
)

ORACLE = Path(__file__).parents[1] / 'data' / 'kd_oracle_distillation.npz'
HALF = pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])


@pytest.fixture(scope='module')
def oracle():
    with np.load(ORACLE, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def unit(*shape, seed=0):
    return F.normalize(randn(*shape, seed=seed), dim=-1)


def close(ours, theirs, rtol=1e-9, atol=0.0):
    torch.testing.assert_close(ours.to(theirs.dtype), theirs, rtol=rtol, atol=atol)


# --- KL of several labels ---------------------------------------------------------------------


def slow_binary_kl(student, teacher, temperature):
    total = 0.0
    for row_s, row_t in zip(student.tolist(), teacher.tolist()):
        for s, t in zip(row_s, row_t):
            p, q = (1 / (1 + math.exp(-z / temperature)) for z in (t, s))
            total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    return total * temperature**2 / len(student)


@pytest.mark.parametrize('temperature', [0.5, 1, 4])
@pytest.mark.parametrize('shape', [(1, 1), (5, 3)])
def test_binary_kl_is_its_definition(shape, temperature):
    student, teacher = 3 * randn(*shape), 3 * randn(*shape, seed=1)
    found = binary_kl_divergence(student, teacher, temperature)
    close(found, torch.tensor(slow_binary_kl(student, teacher, temperature), dtype=torch.float64))
    assert binary_kl_divergence(teacher, teacher, temperature) == 0
    # One label is one of two classes.
    pair = [torch.stack([z.flatten(), torch.zeros(z.numel())], 1) for z in (student, teacher)]
    close(found * len(student), kl_divergence(*pair, temperature) * student.numel())


def test_binary_kl_sees_labels_that_softmax_does_not():
    """Two labels present against none: logits that differ by a constant."""
    teacher, student = torch.tensor([[6.0, 6.0, -6.0]]), torch.tensor([[-6.0, -6.0, -18.0]])
    assert (
        kl_divergence(student, teacher).abs() < 1e-6 < 10 < binary_kl_divergence(student, teacher)
    )


def test_binary_kl_of_extreme_logits_is_finite_and_has_the_right_gradient():
    student = torch.tensor([[200.0, -200.0]], dtype=torch.float64, requires_grad=True)
    loss = binary_kl_divergence(student, -student.detach())
    close(loss, torch.tensor(400.0).double())
    (grad,) = torch.autograd.grad(loss, student)
    close(grad, torch.tensor([[1.0, -1.0]]).double())
    student = randn(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: binary_kl_divergence(z, randn(3, 4, seed=1), 2.0), student
    )
    with pytest.raises(ValueError, match='temperature must be positive'):
        binary_kl_divergence(student, student, 0)
    with pytest.raises(ValueError, match='must have the same shape'):
        binary_kl_divergence(student, student[:2])


def test_mean_of_binary_teachers():
    logits = [randn(4, 3, seed=seed) for seed in range(3)]
    for temperature in (1.0, 3.0):
        mean = torch.stack([(z / temperature).sigmoid() for z in logits]).mean(0)
        close((mean_teacher_binary_logits(logits, temperature) / temperature).sigmoid(), mean)
    assert mean_teacher_binary_logits(logits[:1]) is logits[0]


# --- KL ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('temperature', [1, 2, 4])
def test_kl_of_the_authors(oracle, temperature):
    student = oracle['kl/y_s'].double().requires_grad_()
    loss = kl_divergence(student, oracle['kl/y_t'].double(), temperature)
    close(loss, oracle[f'kl/T{temperature}/loss'])
    (grad,) = torch.autograd.grad(loss, student)
    close(grad, oracle[f'kl/T{temperature}/grad_y_s'], atol=1e-15)
    single = kl_divergence(oracle['kl/y_s'], oracle['kl/y_t'], temperature)
    close(single, oracle[f'kl/T{temperature}/loss_f32'], rtol=1e-5)


@pytest.mark.parametrize('rows,classes', [(1, 2), (3, 7), (16, 1000)])
@pytest.mark.parametrize('temperature', [0.5, 1.0, 3.0])
def test_kl_by_its_definition(rows, classes, temperature):
    student = (3 * randn(rows, classes)).requires_grad_()
    teacher = 3 * randn(rows, classes, seed=1)
    expected = 0.0
    for s, t in zip(student, teacher):
        p = [math.exp(v) for v in (t / temperature).tolist()]
        p = [v / sum(p) for v in p]
        q = torch.exp(s / temperature) / torch.exp(s / temperature).sum()
        expected = expected + sum(pc * (math.log(pc) - qc.log()) for pc, qc in zip(p, q))
    expected = expected * temperature**2 / rows
    loss = kl_divergence(student, teacher, temperature)
    close(loss, expected.detach(), rtol=1e-10)
    ours, theirs = (torch.autograd.grad(value, student)[0] for value in (loss, expected))
    close(ours, theirs, rtol=1e-9, atol=1e-14)


def test_kl_of_itself_is_zero_and_extremes_are_finite():
    z = randn(4, 5)
    assert abs(float(kl_divergence(z, z))) < 1e-15
    far = torch.tensor([[1e4, -1e4, 0.0]])
    assert torch.isfinite(kl_divergence(far, -far))
    with pytest.raises(ValueError, match='same shape'):
        kl_divergence(z, z[:, :4])
    with pytest.raises(ValueError, match='temperature must be positive'):
        kl_divergence(z, z, 0)


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_several_teachers_are_the_mean_of_their_probabilities(temperature):
    logits = [5 * randn(6, 9, seed=seed) for seed in range(3)]
    mean = torch.stack([(z / temperature).softmax(1) for z in logits]).mean(0)
    close((mean_teacher_logits(logits, temperature) / temperature).softmax(1), mean)
    assert mean_teacher_logits(logits[:1]) is logits[0]


# --- OFD --------------------------------------------------------------------------------------


@pytest.mark.parametrize('layer', range(3))
def test_ofd_of_the_authors(oracle, layer):
    def array(name):
        return oracle[f'ofd_full/L{layer}/{name}'].double()

    margin = ofd_margin(array('t_bn_w'), array('t_bn_b'))
    # The authors hold margins in float32.
    close(margin, array('margin').flatten(), rtol=1e-7)
    single = ofd_margin(array('t_bn_w').float(), array('t_bn_b').float())
    close(single, array('margin').flatten().float(), rtol=1e-5)
    weight = array('conn_conv_w').requires_grad_()
    source = array('s_feat').requires_grad_()
    connected = F.batch_norm(
        F.conv2d(source, weight), None, None, array('conn_bn_w'), array('conn_bn_b'), training=True
    )
    distance = ofd_distance(connected, array('t_feat'), array('margin').flatten())
    close(distance, array('raw_sum'))
    grads = torch.autograd.grad(distance / 2 ** (2 - layer), (source, weight))
    for grad, name in zip(grads, ('grad_s_feat', 'grad_conn_conv_w')):
        scale = float(array(name).abs().max())
        close(grad, array(name), rtol=1e-5, atol=1e-6 * scale)


def test_ofd_margin_is_the_mean_of_negative_responses():
    generator = torch.Generator().manual_seed(0)
    weight = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    bias = torch.tensor([0.3, -0.2, -1.0], dtype=torch.float64)
    draws = bias + weight * torch.randn(2_000_000, 3, generator=generator, dtype=torch.float64)
    for channel in range(3):
        negative = draws[:, channel][draws[:, channel] < 0]
        mean = negative.mean()
        margin = ofd_margin(weight, bias)[channel]
        assert abs(float(margin - mean)) < 5 * float(negative.std()) / len(negative) ** 0.5


def test_ofd_margin_at_its_edges():
    margin = ofd_margin(
        torch.tensor([0.0, 0.0, 0.0, 1.0, -1.0, 1e-30, 1e-30]),
        torch.tensor([0.5, -0.5, 0.0, 10.0, 10.0, 1.0, -1.0]),
    )
    close(margin, torch.tensor([0.0, -0.5, 0.0, -3.0, -3.0, -3e-30, -1.0]), rtol=1e-6)
    assert margin.dtype == torch.float32


@pytest.mark.parametrize('shape', [(1, 1, 1, 1), (2, 3, 4, 5), (4, 8, 1, 1)])
def test_ofd_distance_element_by_element(shape):
    student, teacher = randn(*shape).requires_grad_(), randn(*shape, seed=1)
    margin = -randn(shape[1], seed=2).abs()
    expected = torch.zeros((), dtype=torch.float64)
    for at in np.ndindex(*shape):
        target = max(float(teacher[at]), float(margin[at[1]]))
        if student[at].item() > target or target > 0:
            expected = expected + (student[at] - target) ** 2
    distance = ofd_distance(student, teacher, margin)
    close(distance, expected.detach(), rtol=1e-12)
    if expected.requires_grad:
        ours, theirs = (torch.autograd.grad(d, student)[0] for d in (distance, expected))
        close(ours, theirs, rtol=1e-12)


def test_ofd_distance_at_its_edges():
    """Zeros, values at the margin, margins that are not negative; a second pass back."""
    student = torch.tensor([-2.0, -1.0, -0.5, 0.0, 1.0]).view(1, 1, 1, -1).repeat(1, 4, 5, 1)
    teacher = torch.tensor([-2.0, -1.0, 0.0, 1e-38, 1.0]).view(1, 1, -1, 1).repeat(1, 4, 1, 5)
    margin = torch.tensor([-3.0, -1.0, -0.0, 0.5])
    target = teacher.maximum(margin.view(1, -1, 1, 1))
    counts = (student > target) | (target > 0)
    kept = torch.where(counts, student - target, torch.zeros(()))
    before = teacher.clone()
    distance = ofd_distance(student.requires_grad_(), teacher, margin)
    close(distance, kept.square().sum())
    for _ in range(2):
        close(torch.autograd.grad(distance, student, retain_graph=True)[0], 2 * kept)
    assert torch.equal(teacher, before)


def test_ofd_distance_of_what_is_no_number_is_none():
    """A student that diverges is not to look as if it were done."""
    student = torch.full((1, 1, 1, 1), math.nan)
    for teacher in (-1.0, 1.0):
        assert ofd_distance(student, torch.full_like(student, teacher), -torch.ones(1)).isnan()


@pytest.mark.parametrize('teacher', [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize('student', [torch.float16, torch.float32, torch.float64])
def test_ofd_distance_of_mixed_types(student, teacher):
    source, target, margin = randn(2, 3, 4, 4), randn(2, 3, 4, 4, seed=1), -randn(3, seed=2).abs()
    s = source.to(student).requires_grad_()
    distance = ofd_distance(s, target.to(teacher), margin.float())
    assert distance.dtype == torch.promote_types(
        torch.promote_types(student, teacher), torch.float32
    )
    close(distance.double(), ofd_distance(source, target, margin), rtol=2e-3)
    (grad,) = torch.autograd.grad(distance, s)
    assert grad.dtype == student


def test_ofd_distance_of_many_elements_is_precise():
    student, teacher = torch.randn(2, 8, 16, 64, 64, generator=torch.Generator().manual_seed(0))
    margin = torch.full((16,), -0.5)
    expected = ofd_distance(student.double(), teacher.double(), margin.double())
    close(ofd_distance(student, teacher, margin).double(), expected, rtol=1e-6)


@HALF
def test_ofd_distance_does_not_overflow_in_half_precision(dtype):
    student = torch.full((2, 4, 16, 16), 60.0, dtype=dtype)
    distance = ofd_distance(student, -student, torch.full((4,), -1.0))
    assert distance.dtype == torch.float32
    assert float(distance) == 2048 * 61.0**2


def test_ofd_distance_refuses_other_shapes():
    with pytest.raises(ValueError, match='same shape'):
        ofd_distance(randn(2, 3, 4, 4), randn(2, 3, 2, 2), randn(3))
    with pytest.raises(ValueError, match='one value per channel'):
        ofd_distance(randn(2, 3, 4, 4), randn(2, 3, 4, 4), randn(4))


# --- CRD --------------------------------------------------------------------------------------


def test_crd_of_the_authors(oracle):
    temperature = float(np.float32(0.07))
    names = ('embed_s_w', 'embed_s_b', 'embed_t_w', 'embed_t_b')
    memory_s, memory_t = (oracle[f'crd/memory_v{i}_init'].double() for i in (1, 2))
    constants = None
    for step in ('step1', 'step2'):
        at = {k.split('/')[-1]: v for k, v in oracle.items() if k.startswith(f'crd/{step}/')}
        w_s, b_s, w_t, b_t = (oracle[f'crd/{name}'].double().requires_grad_() for name in names)
        f_s, f_t = (at[name].double().requires_grad_() for name in ('f_s', 'f_t'))
        v_s = F.normalize(F.linear(f_s, w_s, b_s), dim=1)
        v_t = F.normalize(F.linear(f_t, w_t, b_t), dim=1)
        index = at['contrast_idx']
        if constants is None:
            constants = crd_constants(v_s, v_t, memory_s, memory_t, index, temperature)
        close(constants, at['Z'])
        losses = crd_loss(v_s, v_t, memory_s, memory_t, index, *constants, temperature)
        for loss, name in zip(losses, ('loss_s', 'loss_t')):
            close(loss[None], at[name])
        grads = torch.autograd.grad(sum(losses), (f_s, f_t, w_s, w_t))
        for grad, name in zip(grads, ('f_s', 'f_t', 'embed_s_w', 'embed_t_w')):
            close(grad, at[f'grad_{name}'], atol=1e-13)
        exact = crd_loss(v_s, v_t, memory_s, memory_t, index, *constants)
        close(sum(exact)[None].detach(), at['loss'], rtol=3e-6)
        single = [t.detach().float() for t in (v_s, v_t, memory_s, memory_t)]
        ours = sum(crd_loss(*single, index, *constants.float()))
        close(ours[None], oracle[f'crd32/{step}/loss_f32'], rtol=1e-5)
        memory_s, memory_t = (at[f'memory_v{i}_after'] for i in (1, 2))


@pytest.mark.parametrize(
    'batch,images,width,negatives', [(1, 2, 1, 1), (4, 9, 3, 5), (7, 40, 16, 60)]
)
@pytest.mark.parametrize('temperature', [0.07, 0.5])
def test_crd_by_its_definition(batch, images, width, negatives, temperature):
    memory_s, memory_t = unit(images, width, seed=2), unit(images, width, seed=3)
    v_s = unit(batch, width).requires_grad_()
    v_t = unit(batch, width, seed=1).requires_grad_()
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(images, (batch, 1 + negatives), generator=generator)
    z_s, z_t = 3.0, 5.0
    expected = []
    for v, memory, z in ((v_s, memory_t, z_s), (v_t, memory_s, z_t)):
        total = 0.0
        c = negatives / images
        for b in range(batch):
            for k in range(1 + negatives):
                p = torch.exp((v[b] * memory[index[b, k]]).sum() / temperature) / z
                top = c if k else p
                total = total - torch.log(top / (p + c + 1e-7)) / batch
        expected.append(total)
    losses = crd_loss(v_s, v_t, memory_s, memory_t, index, z_s, z_t, temperature)
    for ours, theirs, leaf in zip(losses, expected, (v_s, v_t)):
        close(ours.detach(), theirs.detach(), rtol=1e-10, atol=1e-14)
        grads = [torch.autograd.grad(value, leaf)[0] for value in (ours, theirs)]
        close(*grads, rtol=1e-8, atol=1e-12)


@HALF
def test_crd_is_computed_in_single_precision(dtype):
    arrays = [unit(n, 8, seed=n).to(dtype) for n in (4, 4)]
    memories = [unit(20, 8, seed=n).float() for n in (1, 2)]
    index = torch.randint(20, (4, 6))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = crd_loss(*arrays, *memories, index, 1.0, 1.0)
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses)
    close(losses[0], crd_loss(*(a.float() for a in arrays), *memories, index, 1.0, 1.0)[0], 1e-6)


def test_crd_refuses_an_index_without_negatives():
    v = unit(4, 8)
    with pytest.raises(ValueError, match='K >= 1'):
        crd_loss(v, v, v, v, torch.zeros(4, 1, dtype=torch.long), 1.0, 1.0)


# --- sampling ---------------------------------------------------------------------------------


@pytest.mark.parametrize('negatives', [1, 10, 31, 32, 100])
@pytest.mark.parametrize('relax', [False, True])
def test_negatives_are_of_other_classes_and_positives_of_the_same(negatives, relax):
    labels = torch.tensor([0] * 5 + [1] * 9 + [3] * 7 + [2] * 20)[torch.randperm(41)]
    classes = index_classes(labels)
    assert classes.fewest_negatives == 21
    sample_idx = torch.randperm(41)[:16]
    index = crd_index(sample_idx, classes, negatives, torch.tensor(3), relax=relax)
    assert index.shape == (16, 1 + negatives) and index.dtype == torch.long
    assert (labels[index[:, 1:]] != labels[sample_idx][:, None]).all()
    assert torch.equal(labels[index[:, 0]], labels[sample_idx])
    assert relax or torch.equal(index[:, 0], sample_idx)
    if negatives <= 21:
        assert all(len(row.unique()) == negatives for row in index[:, 1:])


def test_a_draw_depends_on_seed_step_and_image_only():
    classes = index_classes(torch.arange(60) % 6)
    draw = crd_index(torch.arange(30), classes, 20, torch.tensor(5))
    part = crd_index(torch.arange(10, 20), classes, 20, torch.tensor(5))
    assert torch.equal(draw[10:20], part)
    for step, seed in ((6, 0), (5, 1)):
        other = crd_index(torch.arange(30), classes, 20, torch.tensor(step), seed=seed)
        assert (other[:, 1:].sort(1).values != draw[:, 1:].sort(1).values).any(1).all()


@pytest.mark.parametrize('negatives', [8, 120])
@pytest.mark.parametrize('relax', [False, True])
def test_draws_are_uniform(negatives, relax):
    """Every image is drawn as often as any other, over steps: chi-squared within 5 deviations."""
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3])
    classes = index_classes(labels)
    steps = 4000
    drawn = torch.stack(
        [
            crd_index(torch.tensor([3]), classes, negatives, torch.tensor(step), relax=relax)[0]
            for step in range(steps)
        ]
    )
    counts = drawn[:, 1:].flatten().bincount(minlength=14)[labels != 1].double()
    mean = steps * negatives / 11
    chi = float(((counts - mean) ** 2 / mean).sum())
    assert chi < 10 + 5 * math.sqrt(20)
    if relax:
        counts = drawn[:, 0].bincount(minlength=14)[2:5].double()
        assert float(((counts - steps / 3) ** 2 / (steps / 3)).sum()) < 2 + 5 * 2


def test_one_class_has_no_negatives():
    with pytest.raises(ValueError, match='only one class'):
        index_classes(torch.zeros(5, dtype=torch.long))
