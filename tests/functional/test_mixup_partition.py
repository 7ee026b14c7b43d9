"""MixUp in Step 2 against a slow reference: one query at a time, double backward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ipirm_mm.functional import mixup_lam, mixup_partners, mixup_risks, soft_mixup_objective
from ipirm_mm.functional.mixup_partition import QUERY_WEIGHTS, mixed_block, mixed_block_risks
from ipirm_mm.functional.partition import balance_term


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def soft_weights(images, num_subsets):
    return (4 * uniform(images, num_subsets, seed=3)).softmax(1)


def mixing(images):
    partners = mixup_partners(torch.zeros(1, images, dtype=torch.long), uniform(1, images, seed=4))
    return partners[0], mixup_lam(uniform(images, seed=5))


def reference_risks(
    queries,
    keys,
    partners,
    lam,
    weights,
    temperature,
    irm_temperature,
    penalty,
    query_weight='own',
    normalized=True,
):
    """The definition. Without ``normalized``, negatives have their weights as they are."""
    images = len(keys)
    losses, penalties = [], []
    for w in weights.T:
        alone = (w > 0).sum() < 2

        def risk(temperature, dummy, w=w, alone=alone):
            weighted_losses, total = [], 0
            for i in range(images):
                r = int(partners[i])
                logits = torch.stack([queries[i] @ key for key in keys]) / temperature * dummy
                targets = {i, r}
                negatives = [j for j in range(images) if j not in targets]
                terms = [logits[j].exp() for j in targets]
                total_weight = sum(w[j] for j in negatives)
                if total_weight > 0:
                    scale = len(negatives) / total_weight if normalized else 1
                    terms += [w[j] * scale * logits[j].exp() for j in negatives]
                loss = sum(terms).log() - lam[i] * logits[i] - (1 - lam[i]) * logits[r]
                query = w[i] if query_weight == 'own' else w[i] * w[r]
                total = total + query
                weighted_losses.append(query * loss)
            return sum(weighted_losses) / total if total > 0 and not alone else 0 * total

        losses.append(risk(temperature, 1))
        shape = images if penalty == 'vector' else 1
        dummy = torch.ones(shape, dtype=keys.dtype, requires_grad=True)
        scaled = risk(irm_temperature or temperature, dummy)
        if scaled.requires_grad and scaled != 0:
            (grad,) = torch.autograd.grad(scaled, dummy, create_graph=True)
            penalties.append(grad.square().sum())
        else:
            penalties.append(0 * w.sum())
    return torch.stack(losses), torch.stack(penalties)


def check(
    weights,
    width=4,
    temperature=0.2,
    irm_temperature=None,
    penalty='vector',
    query_weight='own',
    partners=None,
):
    images = len(weights)
    drawn, lam = mixing(images)
    partners = drawn if partners is None else partners
    leaves = [unit(images, width), unit(images, width, seed=1), weights.clone(), lam]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    queries, keys, weights, lam = leaves
    options = (temperature, irm_temperature, penalty, query_weight)
    block = mixed_block(queries, keys, partners, lam, *options)
    ours = mixed_block_risks(block, weights)
    expected = reference_risks(queries, keys, partners, lam, weights, *options)
    for a, b in zip(ours, expected):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    factors = uniform(2, weights.shape[1], seed=6)
    gradients = [
        torch.autograd.grad(
            (factors[0] * loss + factors[1] * pen).sum(),
            leaves,
            allow_unused=True,
            materialize_grads=True,
        )
        for loss, pen in (ours, expected)
    ]
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('query_weight', QUERY_WEIGHTS)
@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
@pytest.mark.parametrize('images,num_subsets', [(2, 2), (3, 2), (4, 3), (8, 4), (9, 5)])
def test_sizes(images, num_subsets, penalty, query_weight):
    check(soft_weights(images, num_subsets), penalty=penalty, query_weight=query_weight)


@pytest.mark.parametrize('query_weight', QUERY_WEIGHTS)
@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
@pytest.mark.parametrize('temperature,irm_temperature', [(0.05, 0.5), (0.2, 0.2), (1.0, 0.1)])
def test_temperatures(temperature, irm_temperature, penalty, query_weight):
    check(soft_weights(6, 2), 5, temperature, irm_temperature, penalty, query_weight)


@pytest.mark.parametrize('query_weight', QUERY_WEIGHTS)
@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
@pytest.mark.parametrize(
    'partners',
    [
        [0, 1, 2, 3, 4, 5],  # nothing is mixed
        [1, 0, 3, 2, 5, 4],
        [1, 2, 3, 4, 5, 0],
        [0, 2, 1, 3, 5, 4],
        [1, 1, 1, 1, 1, 1],  # no permutation, as where images are rejected
    ],
)
def test_partners(partners, penalty, query_weight):
    check(
        soft_weights(6, 3),
        penalty=penalty,
        query_weight=query_weight,
        partners=torch.tensor(partners),
    )


@pytest.mark.parametrize('query_weight', QUERY_WEIGHTS)
@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
@pytest.mark.parametrize(
    'assignment,partners',
    [
        ([0, 0, 1, 1, 1, 0], [1, 5, 3, 4, 2, 0]),
        ([0, 0, 1, 1, 1, 0], [2, 3, 0, 1, 5, 4]),  # no image with its partner
        ([0, 0, 0, 0, 0, 0], [1, 0, 3, 2, 4, 5]),  # one subset is empty
        ([0, 0, 0, 0, 0, 1], [1, 0, 3, 2, 4, 5]),  # one image, its own partner
        ([0, 0, 0, 0, 0, 1], [1, 0, 3, 2, 5, 4]),  # one image without its partner
        ([0, 0, 0, 0, 1, 1], [1, 0, 3, 2, 5, 4]),  # two images without negatives
        ([0, 0, 1, 1, 1, 0], [1, 2, 3, 4, 5, 0]),  # some with their partners
    ],
)
def test_hard_partitions(assignment, partners, penalty, query_weight):
    """The gradient of an image that is the only one, or the only negative, is left out."""
    partners = torch.tensor(partners)
    weights = F.one_hot(torch.tensor(assignment), 2).double().requires_grad_()
    queries, keys, (_, lam) = unit(6, 4), unit(6, 4, seed=1), mixing(6)
    block = mixed_block(queries, keys, partners, lam, penalty=penalty, query_weight=query_weight)
    ours = mixed_block_risks(block, weights)
    expected = reference_risks(
        queries, keys, partners, lam, weights, 0.2, None, penalty, query_weight
    )
    for a, b in zip(ours, expected):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    (gradient,) = torch.autograd.grad(sum(ours).sum(), weights)
    assert gradient.isfinite().all()
    for k in (0, 1):
        together = any(a == k and assignment[r] == k for a, r in zip(assignment, partners))
        counts = assignment.count(k) > 1 and (together or query_weight == 'own')
        assert bool(ours[0][k] != 0) == counts


@pytest.mark.parametrize('query_weight', QUERY_WEIGHTS)
@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
def test_relation_to_step_1_at_hard_partitions(penalty, query_weight):
    """Equal, but for the weight of the negatives, which sum to as many as the block has."""
    assignment = torch.tensor([0, 1, 1, 0, 2, 1, 2, 0, 0, 1])
    partners = mixup_partners(assignment[None], uniform(1, 10, seed=4))
    assert (partners[0] == torch.arange(10)).any()
    queries, keys, (_, lam) = unit(10, 4), unit(10, 4, seed=1), mixing(10)
    step1 = mixup_risks(
        queries[None], keys, assignment[None], 3, partners, lam[None], 0.2, 0.5, penalty
    )
    weights = F.one_hot(assignment, 3).double()
    given = (queries, keys, partners[0], lam, weights, 0.2, 0.5, penalty, query_weight)
    for ours, expected in zip(step1[:2], reference_risks(*given, normalized=False)):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)
    block = mixed_block(*given[:4], *given[5:])
    for ours, expected in zip(mixed_block_risks(block, weights), reference_risks(*given)):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)

    # A subset of the whole block has as many negatives as the block: equal.
    trivial = torch.zeros_like(assignment)
    partners = mixup_partners(trivial[None], uniform(1, 10, seed=4))
    step1 = mixup_risks(
        queries[None], keys, trivial[None], 1, partners, lam[None], 0.2, 0.5, penalty
    )
    block = mixed_block(queries, keys, partners[0], lam, *given[5:])
    for ours, expected in zip(mixed_block_risks(block, F.one_hot(trivial, 2).double()), step1):
        torch.testing.assert_close(ours[:1], expected, rtol=1e-10, atol=1e-10)
        assert ours[1] == 0


def test_objective_adds_penalty_and_balance():
    queries, keys, (partners, lam) = unit(8, 4), unit(8, 4, seed=1), mixing(8)
    weights = soft_weights(8, 3)
    loss, pen = reference_risks(queries, keys, partners, lam, weights, 0.3, 0.4, 'scalar', 'pair')
    for balance in ('relaxed', 'strict', 'none'):
        value = soft_mixup_objective(
            queries, keys, partners, lam, weights, 0.3, 0.4, 0.7, 'scalar', balance, 'pair'
        )
        expected = loss.mean() + 0.7 * pen.mean() + balance_term(weights.mean(0), balance)
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('query_weight', QUERY_WEIGHTS)
@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
def test_single_precision_of_extreme_weights(penalty, query_weight):
    """Of tiny subsets, of one image's weight, of one pair's: values and gradients are finite."""
    queries, keys, (partners, lam) = unit(64, 8), unit(64, 8, seed=1), mixing(64)
    i = int((partners != torch.arange(64)).nonzero()[0])
    options = dict(penalty=penalty, query_weight=query_weight)
    block = mixed_block(queries.float(), keys.float(), partners, lam, **options)
    exact = mixed_block(queries, keys, partners, lam, **options)
    for images, logit in (([], 60.0), ([i], 80.0), ([i, int(partners[i])], 12.0), ([], 1000.0)):
        logits = torch.tensor([0.0, -logit]).repeat(64, 1)
        logits[images, 1] = 0
        logits.requires_grad_()
        value = sum(mixed_block_risks(block, logits.softmax(1))).sum()
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.isfinite() and gradient.isfinite().all()
        if logit == 12:
            expected = sum(mixed_block_risks(exact, logits.detach().double().softmax(1))).sum()
            torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    'change,message',
    [
        (dict(keys=unit(4, 3)), 'must both be'),
        (dict(lam=uniform(4)), 'lam must be'),
        (dict(partners=torch.zeros(4, dtype=torch.long)), 'partners must be'),
        (dict(weights=soft_weights(4, 2)), 'weights must be'),
        (dict(penalty='both'), 'penalty must be one of'),
        (dict(query_weight='none'), 'query_weight must be one of'),
        (dict(balance='some'), 'balance must be one of'),
        (dict(temperature=0.0), 'must be positive'),
    ],
)
def test_bad_arguments(change, message):
    given = dict(queries=unit(5, 3), keys=unit(5, 3), weights=soft_weights(5, 2))
    given.update(zip(('partners', 'lam'), mixing(5)))
    with pytest.raises(ValueError, match=message):
        soft_mixup_objective(**{**given, **change})
