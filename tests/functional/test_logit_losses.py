"""DKD and DIST against slow definitions in loops, and the forms of the original codes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from ipirm_mm.functional import dist_loss, dkd_loss, kl_divergence

HALF = pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
SIZES = pytest.mark.parametrize('rows,classes', [(1, 2), (2, 2), (1, 5), (3, 7), (9, 40)])


def randn(*shape, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def classes_of(rows, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(classes, (rows,), generator=generator)


def agree(ours, theirs, inputs):
    """Values, and gradients with respect to the inputs, to 1e-10."""
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(value, inputs, retain_graph=True) for value in (ours, theirs)]
    for own, expected in zip(*gradients):
        torch.testing.assert_close(own, expected, rtol=1e-10, atol=1e-10)


def softmax(row, temperature):
    """Of a list of scalars, in a loop."""
    largest = max(float(value.detach()) for value in row)
    parts = [((value - largest) / temperature).exp() for value in row]
    return [part / sum(parts) for part in parts]


def divergence(p, q):
    return sum(a * (a.log() - b.log()) for a, b in zip(p, q))


# --- DKD --------------------------------------------------------------------------------------


def slow_parts(student, teacher, label, temperature):
    """TCKD and NCKD of an image, without the factor of the temperature."""
    s, t = softmax(student, temperature), softmax(teacher, temperature)
    others = [c for c in range(len(student)) if c != label]
    rest_s, rest_t = (sum(p[c] for c in others) for p in (s, t))
    tckd = divergence([t[label], rest_t], [s[label], rest_s])
    nckd = divergence([t[c] / rest_t for c in others], [s[c] / rest_s for c in others])
    return tckd, nckd, rest_t


def slow_dkd(student, teacher, labels, alpha, beta, temperature):
    total = 0.0
    for s, t, label in zip(student, teacher, labels.tolist()):
        tckd, nckd, _ = slow_parts(s, t, label, temperature)
        total = total + alpha * tckd + beta * nckd
    return total * temperature**2 / len(student)


@SIZES
@pytest.mark.parametrize(
    'alpha,beta,temperature', [(1.0, 8.0, 4.0), (1.0, 0.5, 1.0), (0.0, 2.0, 0.5), (3.0, 0.0, 2.0)]
)
def test_dkd_is_its_definition(rows, classes, alpha, beta, temperature):
    student = randn(rows, classes).requires_grad_()
    teacher = randn(rows, classes, seed=1)
    labels = classes_of(rows, classes)
    options = (alpha, beta, temperature)
    agree(
        dkd_loss(student, teacher, labels, *options),
        slow_dkd(student, teacher, labels, *options),
        [student],
    )


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_dkd_is_that_of_the_original_code(temperature):
    """Zhao et al.: logarithm of sums of probabilities; 1000 subtracted from the class."""
    student, teacher = randn(6, 10).requires_grad_(), randn(6, 10, seed=1)
    labels = classes_of(6, 10)
    target = F.one_hot(labels, 10)

    def pair(z):
        p = F.softmax(z / temperature, dim=1)
        own = (p * target).sum(1, keepdim=True)
        return torch.cat([own, (p * (1 - target)).sum(1, keepdim=True)], 1)

    tckd = F.kl_div(pair(student).log(), pair(teacher), reduction='sum')
    rest_s, rest_t = (z / temperature - 1000.0 * target for z in (student, teacher))
    nckd = F.kl_div(F.log_softmax(rest_s, 1), F.softmax(rest_t, 1), reduction='sum')
    expected = (tckd + 8 * nckd) * temperature**2 / 6
    agree(dkd_loss(student, teacher, labels, 1.0, 8.0, temperature), expected, [student])


@SIZES
@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_kl_is_tckd_and_nckd_weighted_by_the_teachers_other_classes(rows, classes, temperature):
    """The identity by which Zhao et al. decouple: beta = 1 - p of the teacher, per image."""
    student = randn(rows, classes).requires_grad_()
    teacher, labels = randn(rows, classes, seed=1), classes_of(rows, classes)
    rest = 1 - (teacher / temperature).softmax(1).gather(1, labels[:, None])[:, 0]
    total = 0.0
    for n in range(rows):
        one = slice(n, n + 1)
        total = total + dkd_loss(
            student[one], teacher[one], labels[one], 1.0, float(rest[n]), temperature
        )
    agree(total / rows, kl_divergence(student, teacher, temperature), [student])


def test_dkd_of_two_classes_has_no_other_classes_to_compare():
    student, teacher = randn(5, 2).requires_grad_(), randn(5, 2, seed=1)
    labels = classes_of(5, 2)
    nckd = dkd_loss(student, teacher, labels, alpha=0.0)
    assert nckd == 0
    assert not torch.autograd.grad(nckd, student)[0].any()
    agree(dkd_loss(student, teacher, labels), kl_divergence(student, teacher, 4.0), [student])


def test_dkd_of_itself_is_zero():
    z = randn(4, 6).requires_grad_()
    loss = dkd_loss(z, z.detach(), classes_of(4, 6))
    assert abs(float(loss)) < 1e-13
    assert torch.autograd.grad(loss, z)[0].abs().max() < 1e-13


@pytest.mark.parametrize('scale', [300.0, 1e4])
def test_dkd_of_extreme_logits_is_finite_and_right(scale):
    """Also where a probability rounds to one, and where 1000 would not hide the class."""
    student = torch.tensor([[1.0, 0.0, 0.5]], dtype=torch.float64) * scale
    teacher = torch.tensor([[1.0, 0.5, 0.0]], dtype=torch.float64) * scale
    student.requires_grad_()
    labels = torch.tensor([0])
    nckd = dkd_loss(student, teacher, labels, 0.0, 1.0, 1.0)
    assert float(nckd) == pytest.approx(scale / 2)  # the teacher's second class, all of the rest
    wrong = dkd_loss(student, teacher, torch.tensor([2]), 1.0, 0.0, 1.0)
    assert torch.isfinite(wrong) and abs(float(wrong)) < 1e-12
    reverse = dkd_loss(student, -teacher, labels, 1.0, 0.0, 1.0)
    # The teacher gives the class none, the student all: the log of the student's rest.
    assert float(reverse) == pytest.approx(scale / 2)
    (gradient,) = torch.autograd.grad(nckd + reverse, student)
    torch.testing.assert_close(
        gradient, torch.tensor([[1.0, -1.0, 0.0]], dtype=torch.float64), rtol=0, atol=1e-9
    )
    assert torch.isfinite(dkd_loss(student.float(), teacher.float(), labels))


@HALF
def test_dkd_of_half_precision_is_computed_in_single(dtype):
    student, teacher = (randn(4, 6, seed=seed).to(dtype).requires_grad_() for seed in (0, 1))
    labels = classes_of(4, 6)
    loss = dkd_loss(student, teacher.detach(), labels)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(
        float(dkd_loss(student.double(), teacher.double(), labels)), rel=1e-5
    )
    loss.backward()
    assert student.grad.dtype == dtype and torch.isfinite(student.grad).all()
    with torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(dkd_loss(student, teacher, labels), loss)


def test_dkd_of_no_images_is_zero():
    empty = torch.zeros(0, 3)
    assert dkd_loss(empty, empty, torch.zeros(0, dtype=torch.long)) == 0


@pytest.mark.parametrize(
    'shapes,temperature,message',
    [
        (((2, 3), (2, 4), (2,)), 1.0, 'must have the same shape'),
        (((2, 3), (2, 3), (3,)), 1.0, r'labels must be \(2,\), one class per image, but are \(3,'),
        (((2, 3), (2, 3), (2, 3)), 1.0, 'one class per image'),
        (((2, 1), (2, 1), (2,)), 1.0, 'at least two classes'),
        (((2, 3), (2, 3), (2,)), 0.0, 'temperature must be positive'),
    ],
)
def test_dkd_checks_its_arguments(shapes, temperature, message):
    student, teacher, labels = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        dkd_loss(student, teacher, labels.long(), temperature=temperature)


# --- DIST -------------------------------------------------------------------------------------


def slow_correlation(a, b):
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    product = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b))
    norms = [sum((x - m) ** 2 for x in v).sqrt() for v, m in ((a, mean_a), (b, mean_b))]
    return product / (norms[0] * norms[1] + 1e-8)


def slow_dist(student, teacher, beta, gamma, temperature):
    s = [softmax(row, temperature) for row in student]
    t = [softmax(row, temperature) for row in teacher]
    rows = [slow_correlation(a, b) for a, b in zip(s, t)]
    inter = 1 - sum(rows) / len(rows)
    columns = [slow_correlation(a, b) for a, b in zip(zip(*s), zip(*t))]
    intra = 1 - sum(columns) / len(columns)
    return temperature**2 * (beta * inter + gamma * intra)


@pytest.mark.parametrize('rows,classes', [(2, 2), (3, 7), (7, 3), (9, 40)])
@pytest.mark.parametrize(
    'beta,gamma,temperature', [(1.0, 1.0, 1.0), (2.0, 0.5, 4.0), (0.0, 1.0, 0.5)]
)
def test_dist_is_its_definition(rows, classes, beta, gamma, temperature):
    student = randn(rows, classes).requires_grad_()
    teacher = randn(rows, classes, seed=1)
    options = (beta, gamma, temperature)
    agree(dist_loss(student, teacher, *options), slow_dist(student, teacher, *options), [student])


def test_dist_is_one_minus_the_correlations_of_torch():
    student, teacher = randn(6, 5), randn(6, 5, seed=1)
    s, t = student.softmax(1), teacher.softmax(1)

    def mean(a, b):
        pairs = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(a, b)]
        return float(sum(pairs)) / len(pairs)

    expected = 2 - mean(s, t) - mean(s.T, t.T)
    # Apart from what is added to the norms.
    assert float(dist_loss(student, teacher)) == pytest.approx(expected, abs=1e-6)


def test_dist_is_blind_to_scale_of_probabilities_but_not_to_order():
    """Half way to the uniform distribution, a row is as correlated as before."""
    p = randn(4, 5).softmax(1)
    flat = (0.5 * p + 0.1).log()
    same = dist_loss(flat, p.log(), gamma=0.0)
    assert abs(float(same)) < 1e-6
    assert float(kl_divergence(flat, p.log())) > 0.01
    assert float(dist_loss(flat.roll(1, 1), p.log(), gamma=0.0)) > 0.1


@pytest.mark.parametrize('classes', [2, 5])
def test_dist_of_one_image_has_no_correlation_over_images(classes):
    student, teacher = randn(1, classes).requires_grad_(), randn(1, classes, seed=1)
    intra = dist_loss(student, teacher, beta=0.0)
    assert intra == 1
    assert not torch.autograd.grad(intra, student)[0].any()
    loss = dist_loss(student, teacher)
    (gradient,) = torch.autograd.grad(loss, student)
    assert torch.isfinite(gradient).all()
    torch.testing.assert_close(loss, dist_loss(student, teacher, gamma=0.0) + 1)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_dist_of_constant_rows_is_finite(dtype):
    student = torch.zeros(3, 4, dtype=dtype).requires_grad_()
    teacher = randn(3, 4).to(dtype)
    for pair in ((student, teacher), (teacher.clone().requires_grad_(), student.detach())):
        loss = dist_loss(*pair)
        assert float(loss) == pytest.approx(2)
        (gradient,) = torch.autograd.grad(loss, [z for z in pair if z.requires_grad])
        assert torch.isfinite(gradient).all()


def test_dist_of_one_class_and_of_certain_probabilities_is_finite():
    one = torch.zeros(3, 1).requires_grad_()
    assert float(dist_loss(one, torch.ones(3, 1))) == pytest.approx(2)
    far = (1e4 * torch.eye(3)).requires_grad_()
    loss = dist_loss(far, 1e4 * torch.eye(3))
    assert abs(float(loss)) < 1e-6
    assert torch.isfinite(torch.autograd.grad(loss, far)[0]).all()


@HALF
def test_dist_of_half_precision_is_computed_in_single(dtype):
    student, teacher = (randn(4, 6, seed=seed).to(dtype).requires_grad_() for seed in (0, 1))
    loss = dist_loss(student, teacher.detach())
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(
        float(dist_loss(student.double(), teacher.double())), rel=1e-5
    )
    loss.backward()
    assert student.grad.dtype == dtype and torch.isfinite(student.grad).all()
    with torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(dist_loss(student, teacher), loss)


def test_gradients_by_finite_differences():
    labels = classes_of(3, 4)
    for function in (
        lambda z: dkd_loss(z, randn(3, 4, seed=1), labels),
        lambda z: dist_loss(z, randn(3, 4, seed=1), 2.0, 0.5, 2.0),
    ):
        assert torch.autograd.gradcheck(function, randn(3, 4).requires_grad_())


def test_dist_checks_its_arguments():
    z = torch.zeros(2, 3)
    with pytest.raises(ValueError, match='must have the same shape'):
        dist_loss(z, z[:1])
    with pytest.raises(ValueError, match='temperature must be positive'):
        dist_loss(z, z, temperature=math.nan)
