"""Measures of disentanglement, against loops and against cases that are known by hand."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from ipirm_mm.evaluation import (
    LinearProbe,
    SparseProbe,
    dci,
    disentanglement,
    disentanglement_scores,
    explicitness,
    irs,
    modularity,
    shifted_probe,
    sparse_probe,
    tied_rows,
)
from ipirm_mm.evaluation.disentanglement import area_under_roc, dci_of_importance

SIZES = [(12, 1, 1, 2), (40, 3, 2, 3), (75, 6, 3, 4), (200, 17, 4, 2)]


def data(images, dimensions, factors, values, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(values, (images, factors), generator=generator)
    y[:values] = torch.arange(values)[:, None]
    mixing = torch.randn(factors, dimensions, generator=generator, dtype=torch.float64)
    x = y.double() @ mixing + torch.randn(images, dimensions, generator=generator).double()
    return x, y


def crossed(*values, copies=3):
    """Every combination of values of the factors, equally often."""
    grid = torch.cartesian_prod(*(torch.arange(count) for count in values))
    return grid.view(-1, len(values)).repeat(copies, 1)


def one_hot(factors):
    columns = [torch.nn.functional.one_hot(factors[:, f]) for f in range(factors.shape[1])]
    return torch.cat(columns, 1).double()


def slow_quantile(values, q):
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def slow_irs(x, y, q):
    scores, weights = [], []
    for column in x.T.tolist():
        mean = sum(column) / len(column)
        greatest = max(abs(value - mean) for value in column)
        if max(column) == min(column):
            continue
        best = -math.inf
        for factor in y.T.tolist():
            deviations = []
            for value in sorted(set(factor)):
                group = [c for c, f in zip(column, factor) if f == value]
                center = sum(group) / len(group)
                deviations.append(slow_quantile([abs(c - center) for c in group], q))
            best = max(best, 1 - sum(deviations) / len(deviations) / greatest)
        scores.append(best)
        weights.append(greatest)
    return sum(s * w for s, w in zip(scores, weights)) / sum(weights) if weights else 0.0


def slow_information(a, b):
    pairs, first, second = Counter(zip(a, b)), Counter(a), Counter(b)
    n = len(a)
    return sum(
        count / n * math.log2(count * n / (first[i] * second[j]))
        for (i, j), count in pairs.items()
    )


def slow_modularity(x, y, bins):
    scores = []
    for column in x.T.numpy():
        # The bins that numpy makes: a value on an edge belongs to the higher one.
        edges = np.histogram(column, bins)[1][:-1]
        binned = np.digitize(column, edges).tolist()
        squares = [slow_information(binned, factor) ** 2 for factor in y.T.tolist()]
        best = max(squares)
        if best < 1e-20:
            scores.append(0.0)
        else:
            scores.append(1 - (sum(squares) - best) / (best * (len(squares) - 1)))
    return sum(scores) / len(scores)


def slow_concentration(importance):
    """Disentanglement; completeness is that of the transpose."""
    total, result = sum(map(sum, importance)), 0.0
    for row in importance:
        shares = [value / sum(row) for value in row] if sum(row) else []
        entropy = -sum(p * math.log(p, len(row)) for p in shares if p)
        result += sum(row) / total * (1 - entropy)
    return result


def slow_area(scores, positive):
    pairs = [(s, t) for s, p in zip(scores, positive) for t, n in zip(scores, positive) if p > n]
    return sum((s > t) + (s == t) / 2 for s, t in pairs) / len(pairs)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('q', [0.5, 0.99, 1.0])
def test_irs_equals_loops(size, q):
    x, y = data(*size)
    assert irs(x, y, q).score == pytest.approx(slow_irs(x, y, q), abs=1e-12)


@pytest.mark.parametrize('size', SIZES[1:])
@pytest.mark.parametrize('bins', [2, 7, 20])
def test_modularity_equals_loops(size, bins):
    x, y = data(*size)
    x[:, 0] = (4 * x[:, 0]).round() / 4  # values on the edges of bins
    assert modularity(x, y, bins).score == pytest.approx(slow_modularity(x, y, bins), abs=1e-12)
    expected = slow_information(y[:, 0].tolist(), y[:, 1].tolist())
    found = modularity(y.double(), y).information
    assert found[0, 1] == pytest.approx(expected, abs=1e-12)


def test_blocks_give_what_one_block_gives(monkeypatch):
    x, y = data(50, 7, 3, 3)
    expected = irs(x, y), modularity(x, y)
    monkeypatch.setattr(disentanglement, '_BLOCK', 120)  # two dimensions
    for found, whole in zip((irs(x, y), modularity(x, y)), expected):
        assert found.score == pytest.approx(whole.score, abs=1e-15)
        torch.testing.assert_close(found.per_dimension, whole.per_dimension)


@pytest.mark.parametrize('shape', [(2, 2), (5, 3), (9, 4)])
def test_dci_of_importance_equals_loops(shape):
    importance = torch.rand(shape, generator=torch.Generator().manual_seed(1)).double()
    importance[importance < 0.3] = 0
    found = dci_of_importance(importance, torch.ones(shape[1]))
    assert found.disentanglement == pytest.approx(slow_concentration(importance.tolist()))
    assert found.completeness == pytest.approx(slow_concentration(importance.T.tolist()))


def test_area_under_roc_equals_loops():
    generator = torch.Generator().manual_seed(0)
    for n in (2, 9, 40):
        scores = torch.randint(6, (n,), generator=generator).double()  # ties
        positive = torch.arange(n) % 3 == 1
        expected = slow_area(scores.tolist(), positive.tolist())
        assert float(area_under_roc(scores, positive)) == pytest.approx(expected, abs=1e-12)
    assert area_under_roc(scores, torch.ones(40, dtype=torch.bool)).isnan()


def test_explicitness_is_the_area_of_the_regression():
    x, y = data(90, 4, 2, 3)
    other, truth = data(30, 4, 2, 3, seed=1)
    found = explicitness(x, y, (other, truth), weight_decay=0.01)
    for f in range(2):
        scores = LinearProbe(0.01).fit(x, y[:, f]).scores(other).softmax(1)
        areas = [slow_area(scores[:, v].tolist(), (truth[:, f] == v).tolist()) for v in range(3)]
        assert float(found[f]) == pytest.approx(2 * sum(areas) / 3 - 1, abs=1e-10)


def test_perfect_one_hot_code():
    y = crossed(3, 4)
    x = one_hot(y)
    measured = dci(x, y)
    assert measured.disentanglement == pytest.approx(1, abs=1e-12)
    assert measured.informativeness.tolist() == [1, 1]
    # Evenly spread over 3 and 4 of 7 dimensions.
    each = [1 - math.log(count) / math.log(7) for count in (3, 4)]
    weights = measured.importance.sum(0) / measured.importance.sum()
    expected = sum(w * c for w, c in zip(weights.tolist(), each))
    assert measured.completeness == pytest.approx(expected, abs=1e-4)
    assert irs(x, y).score == pytest.approx(1, abs=1e-12)
    assert irs(x, y).parent.tolist() == [0] * 3 + [1] * 4
    assert modularity(x, y).score == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(explicitness(x, y), torch.ones(2).double())


def test_one_dimension_per_factor_is_complete():
    y = crossed(2, 2)
    measured = dci(2.0 * y - 1, y)
    assert measured.disentanglement == pytest.approx(1)
    assert measured.completeness == pytest.approx(1)
    # Two values at -1 and 1: the weights of the two classes differ by log((1 - l1) / l1).
    expected = math.log(0.99 / 0.01)
    assert measured.importance.diagonal().tolist() == pytest.approx([expected] * 2, abs=1e-2)


def test_fully_mixed_code():
    """Sum and difference of two signs: each dimension says as much of one as of the other."""
    y = crossed(2, 2)
    a, b = (2.0 * y - 1).T
    x = torch.stack([a + b, a - b], 1)
    measured = dci(x, y)
    assert measured.disentanglement == pytest.approx(0, abs=1e-6)
    assert measured.completeness == pytest.approx(0, abs=1e-6)
    assert measured.informativeness.tolist() == [1, 1]
    assert modularity(x, y).score == pytest.approx(0, abs=1e-12)
    # Half of the greatest deviation, 2, is left if one sign is fixed.
    assert irs(x, y).score == pytest.approx(0.5, abs=1e-12)
    torch.testing.assert_close(explicitness(x, y), torch.ones(2).double())


def test_order_of_dimensions_and_names_of_values_do_not_matter():
    x, y = data(80, 5, 3, 3)
    other = data(40, 5, 3, 3, seed=1)
    columns = torch.tensor([3, 0, 4, 1, 2])
    renamed = 100 - 7 * y[:, [2, 0, 1]]
    first = disentanglement_scores((x, y), other, 'abc')
    held_out = other[0][:, columns], 100 - 7 * other[1][:, [2, 0, 1]]
    second = disentanglement_scores((x[:, columns], renamed), held_out, 'cab')
    assert first.keys() == second.keys() and len(first) == 12
    for key, value in first.items():
        assert second[key] == pytest.approx(value, abs=1e-3), key


def test_independent_noise():
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(4, (2000, 2), generator=generator)
    x = torch.randn(2000, 6, generator=generator)
    other = torch.randint(4, (1000, 2), generator=generator)
    held_out = torch.randn(1000, 6, generator=generator), other
    scores = disentanglement_scores((x, y), held_out, ('a', 'b'))
    assert scores['dci_informativeness'] == pytest.approx(0.25, abs=0.05)
    assert scores['explicitness'] == pytest.approx(0, abs=0.05)
    # IRS is not 0: the maximum over all images is compared with a quantile.
    assert 0.1 < scores['irs'] < 0.5
    # No dimension matters if the penalty is above the noise.
    nothing = dci(x, y, l1_weight=0.1)
    assert nothing.importance.sum() == 0
    assert nothing.disentanglement == nothing.completeness == 0


def test_constant_dimensions():
    x, y = data(60, 3, 2, 3)
    padded = torch.cat([x, torch.full((60, 1), 0.1, dtype=torch.float64)], 1)
    assert irs(padded, y).score == pytest.approx(irs(x, y).score)
    assert irs(padded, y).per_dimension[3].isnan()
    assert modularity(padded, y).score == pytest.approx(0.75 * modularity(x, y).score)
    measured, plain = dci(padded, y), dci(x, y)
    assert measured.importance[3].tolist() == [0, 0]
    assert measured.disentanglement == pytest.approx(plain.disentanglement)
    assert math.isfinite(float(explicitness(padded, y).sum()))
    constant = torch.full((60, 2), 0.1)
    assert irs(constant, y).score == modularity(constant, y).score == 0


def test_what_is_undefined_is_nan():
    x, y = data(30, 1, 1, 2)
    measured = dci(x, y)
    assert math.isnan(measured.disentanglement) and math.isnan(measured.completeness)
    assert math.isnan(modularity(x, y).score)
    # All held-out images have one value: there is no area.
    assert explicitness(x, y, (x[:5], torch.zeros(5, 1, dtype=torch.long))).isnan().all()


def test_a_value_that_was_not_fitted_is_an_error():
    y = crossed(3, 2)
    x = one_hot(y)
    unknown = y.clone()
    unknown[:9, 0] = 5
    assert dci(x, y, (x, unknown)).informativeness.tolist() == [0.5, 1]
    assert math.isfinite(float(explicitness(x, y, (x, unknown)).sum()))


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda x, y: (x, y[:-1]), 'shapes are'),
        (lambda x, y: (x[0], y), 'shapes are'),
        (lambda x, y: (x, y.double()), 'must be integers'),
        (lambda x, y: (x, y[:, :0]), 'at least one'),
        (lambda x, y: (x / 0, y), 'must be finite'),
        (lambda x, y: (x, y * 0 + 3), r'factors\[:, 0\] must have at least two values'),
    ],
)
def test_bad_input(change, message):
    arguments = change(*data(20, 3, 2, 2))
    for function in (dci, irs, modularity, explicitness):
        with pytest.raises(ValueError, match=message):
            function(*arguments)


def test_bad_held_out():
    x, y = data(20, 3, 2, 2)
    for function in (dci, explicitness):
        with pytest.raises(ValueError, match='held_out must be features'):
            function(x, y, (x[:, :2], y))


@pytest.mark.parametrize('l1', [0.003, 0.03])
@pytest.mark.parametrize('size', [(40, 3, 1, 2), (60, 5, 1, 3), (30, 50, 1, 4)])
@pytest.mark.parametrize('first', [1, 64])
def test_sparse_probe_is_at_the_optimum(size, l1, first, monkeypatch):
    """Subgradients of the objective, from its definition: 0 is one of each entry.

    Also if the fit begins with one column only.
    """
    monkeypatch.setattr(sparse_probe, '_FIRST_COLUMNS', first)
    x, y = data(*size)
    x[:, 0] = 3 * x[:, 0] + 5
    probe = SparseProbe(l1, tolerance=1e-9, max_iterations=20000).fit(x, y[:, 0])
    standard = (x.numpy() - x.numpy().mean(0)) / x.numpy().std(0)
    logits = standard @ probe.weight.numpy().T + probe.bias.numpy()
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    for c in range(size[3]):
        error = p[:, c] - (y[:, 0].numpy() == c)
        assert abs(error.mean()) < 1e-8
        for d in range(size[1]):
            slope = (error * standard[:, d]).mean()
            weight = float(probe.weight[c, d])
            if weight:
                assert slope == pytest.approx(-math.copysign(l1, weight), abs=1e-8)
            else:
                assert abs(slope) <= l1 + 1e-8
    assert torch.equal(probe.predict(x), torch.from_numpy(logits.argmax(1)))


def test_sparse_probe_of_one_sign_has_a_closed_form():
    x = torch.tensor([[-1.0], [1.0]]).repeat(5, 1)
    for l1 in (0.01, 0.1, 0.3):
        probe = SparseProbe(l1, tolerance=1e-12).fit(x, (x[:, 0] > 0).long())
        expected = math.log((1 - l1) / l1)
        assert float(probe.weight.abs().sum()) == pytest.approx(expected, abs=1e-9)
    assert SparseProbe(0.5).fit(x, (x[:, 0] > 0).long()).weight.abs().sum() == 0


def test_sparse_probe_says_if_it_has_not_converged(monkeypatch):
    told = []
    monkeypatch.setattr(sparse_probe, 'print_log', lambda text, **_: told.append(text))
    x, y = data(60, 5, 1, 3)
    seen = []
    probe = SparseProbe(0.001, max_iterations=3).fit(x, y[:, 0], seen.append)
    assert probe.iterations == 3 and seen == [0, 1 / 3, 2 / 3]
    assert told == ['sparse probe: not converged after 3 iterations']
    SparseProbe(0.1).fit(x, y[:, 0])
    assert len(told) == 1


def test_tied_rows():
    y = crossed(3, 4, copies=9)
    labels, factor = y.T
    tied, free = tied_rows(labels, 10 * factor, shift=2, follow=0.9)
    assert len(set(tied.tolist())) == len(tied) == len(free) == len(set(free.tolist())) == 30
    assert int((factor[tied] == (labels[tied] + 2) % 4).sum()) == 27
    for rows in (tied, free):
        assert torch.bincount(labels[rows]).tolist() == [10, 10, 10]
    share = (factor[free] == (labels[free] + 2) % 4).double().mean()
    assert float(share) < 0.6
    tied, _ = tied_rows(labels, factor, follow=1.0)
    assert torch.equal(factor[tied], labels[tied]) and len(tied) == 27


def test_shifted_probe_tells_whether_a_factor_is_in_the_way():
    generator = torch.Generator().manual_seed(0)
    y = crossed(4, 4, copies=40)
    weak = one_hot(y[:, :1]) + 0.6 * torch.randn(len(y), 4, generator=generator)
    both = torch.cat([weak, one_hot(y[:, 1:])], 1)
    order = torch.randperm(len(y), generator=generator)
    fit, rest = order.chunk(2)
    results = {}
    for name, x in dict(apart=weak, mixed=both).items():
        held_out = x[rest], y[rest, 0]
        results[name] = shifted_probe(x[fit], *y[fit].T, held_out)
    tied, free = results['apart']
    assert abs(tied - free) < 0.08 and free > 0.5
    tied, free = results['mixed']
    assert free - tied > 0.1
    with pytest.raises(ValueError, match='follow must be'):
        shifted_probe(weak, *y.T, (weak, y[:, 0]), follow=0)
