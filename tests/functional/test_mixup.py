"""MixUp in Step 1 against slow references: one subset at a time, double backward."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from ipirm_mm.functional import (
    mean_lam,
    mix_images,
    mixup_lam,
    mixup_partners,
    mixup_risks,
)


def reference(
    queries, keys, assignments, num_subsets, partners, lam, temperature, irm_temperature, penalty
):
    """The definition: the logit table of each subset, scaled by a dummy and differentiated."""
    irm_temperature = irm_temperature or temperature
    losses, penalties = [], []
    for p, assignment in enumerate(assignments.tolist()):
        for k in range(num_subsets):
            images = [i for i, a in enumerate(assignment) if a == k]
            if len(images) < 2:
                losses.append(keys.new_zeros(()))
                penalties.append(keys.new_zeros(()))
                continue
            table = torch.stack(
                [torch.stack([queries[p, i] @ keys[j] for j in images]) for i in images]
            )
            own = torch.arange(len(images))
            other = torch.tensor([images.index(int(partners[p, i])) for i in images])
            weight = lam[p, images]

            def risk(logits, own=own, other=other, weight=weight):
                first = F.cross_entropy(logits, own, reduction='none')
                second = F.cross_entropy(logits, other, reduction='none')
                return (weight * first + (1 - weight) * second).mean()

            losses.append(risk(table / temperature))
            shape = (1, len(images)) if penalty == 'vector' else (1, 1)
            dummy = torch.ones(shape, dtype=keys.dtype, requires_grad=True)
            scaled = risk(table / irm_temperature * dummy)
            (grad,) = torch.autograd.grad(scaled, dummy, create_graph=True)
            penalties.append(grad.square().sum())
    return torch.stack(losses), torch.stack(penalties)


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def numbered(assignments, num_subsets):
    return assignments + num_subsets * torch.arange(len(assignments))[:, None]


def check(
    assignments, num_subsets, width, temperature=0.2, irm_temperature=None, penalty='vector'
):
    partitions, batch = assignments.shape
    leaves = [
        unit(partitions, batch, width).requires_grad_(),
        unit(batch, width, seed=1).requires_grad_(),
    ]
    partners = mixup_partners(assignments, uniform(partitions, batch, seed=2))
    lam = mixup_lam(uniform(partitions, batch, seed=3))
    total = partitions * num_subsets
    risks = mixup_risks(
        *leaves,
        numbered(assignments, num_subsets),
        total,
        partners,
        lam,
        temperature,
        irm_temperature,
        penalty,
    )
    loss, expected = reference(
        *leaves, assignments, num_subsets, partners, lam, temperature, irm_temperature, penalty
    )
    torch.testing.assert_close(risks.loss, loss, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(risks.penalty, expected, rtol=1e-10, atol=1e-10)
    sizes = [(row == k).sum().item() for row in assignments for k in range(num_subsets)]
    assert risks.size.tolist() == sizes
    alone = risks.size < 2
    assert not risks.loss[alone].any() and not risks.penalty[alone].any()
    ours, theirs = (
        torch.autograd.grad(
            (uniform(total, seed=4) * a + uniform(total, seed=5) * b).sum(),
            leaves,
            allow_unused=True,
            materialize_grads=True,
        )
        if a.requires_grad
        else [torch.zeros_like(leaf) for leaf in leaves]
        for a, b in ((risks.loss, risks.penalty), (loss, expected))
    )
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
@pytest.mark.parametrize(
    'batch,width,num_subsets,partitions',
    [(2, 3, 1, 1), (7, 4, 2, 3), (12, 8, 3, 2), (16, 5, 5, 1), (9, 2, 20, 2)],
)
def test_sizes(batch, width, num_subsets, partitions, penalty):
    generator = torch.Generator().manual_seed(batch)
    assignments = torch.randint(num_subsets, (partitions, batch), generator=generator)
    check(assignments, num_subsets, width, penalty=penalty)


@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
@pytest.mark.parametrize(
    'temperature,irm_temperature', list(itertools.product([0.05, 0.2, 2.0], [None, 0.5, 0.1]))
)
def test_temperatures(temperature, irm_temperature, penalty):
    assignments = torch.tensor([[0, 1, 1, 0, 1, 0, 0], [1, 1, 0, 1, 1, 1, 0]])
    check(assignments, 2, 6, temperature, irm_temperature, penalty)


@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
@pytest.mark.parametrize(
    'assignment',
    [[0], [0, 1], [0] * 6, [1] * 6, [0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0, 1, 2, 2, 1, 1]],
)
def test_subsets_of_0_1_2_and_all_images(assignment, penalty):
    check(torch.tensor([assignment]), 3, 4, penalty=penalty)


def test_without_penalty():
    assignments = torch.tensor([[0, 1, 1, 0, 1]])
    partners, lam = mixup_partners(assignments, uniform(1, 5)), mixup_lam(uniform(1, 5))
    given = (unit(1, 5, 3), unit(5, 3, seed=1), assignments, 2, partners, lam)
    plain = mixup_risks(*given, penalty=None)
    assert not plain.penalty.any()
    assert torch.equal(plain.loss, mixup_risks(*given).loss)


def test_mean_lam_is_what_the_code_of_the_authors_weights_with():
    """They multiply the mean cross-entropy of a subset by the vector of shares."""
    assignment = torch.tensor([[0, 1, 1, 0, 1, 0, 1]])
    queries, keys = unit(1, 7, 4), unit(7, 4, seed=1)
    partners = mixup_partners(assignment, uniform(1, 7, seed=2))
    lam = mixup_lam(uniform(1, 7, seed=3))
    mean = mean_lam(lam, assignment, 2)
    risks = mixup_risks(queries, keys, assignment, 2, partners, mean)
    for k in range(2):
        images = (assignment[0] == k).nonzero()[:, 0]
        logits = queries[0, images] @ keys[images].T / 0.2
        own = torch.arange(len(images))
        other = torch.tensor([images.tolist().index(r) for r in partners[0, images].tolist()])
        shares = lam[0, images]
        expected = (
            shares * F.cross_entropy(logits, own) + (1 - shares) * F.cross_entropy(logits, other)
        ).mean()
        torch.testing.assert_close(risks.loss[k], expected, rtol=1e-10, atol=1e-10)
    assert (
        risks.loss - mixup_risks(queries, keys, assignment, 2, partners, lam).loss
    ).abs().max() > 1e-3


def test_neither_depends_on_the_order_of_the_batch():
    assignment = torch.tensor([[0, 1, 1, 0, 1, 0, 1]])
    queries, keys = unit(1, 7, 4), unit(7, 4, seed=1)
    partners = mixup_partners(assignment, uniform(1, 7, seed=2))
    lam = mixup_lam(uniform(1, 7, seed=3))
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    moved = order.argsort()[partners[:, order]]
    one = mixup_risks(queries, keys, assignment, 2, partners, lam)
    other = mixup_risks(
        queries[:, order], keys[order], assignment[:, order], 2, moved, lam[:, order]
    )
    torch.testing.assert_close(one.loss, other.loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(one.penalty, other.penalty, rtol=1e-12, atol=1e-12)


def test_partners_are_a_permutation_within_each_subset():
    assignments = torch.randint(4, (5, 40), generator=torch.Generator().manual_seed(0))
    partners = mixup_partners(assignments, uniform(5, 40))
    assert torch.equal(assignments.gather(1, partners), assignments)
    assert torch.equal(partners.sort(1).values, torch.arange(40).expand(5, 40))


def test_every_permutation_is_equally_frequent():
    draws = 12000
    subset_ids = torch.tensor([0, 1, 0, 0]).expand(draws, 4)
    partners = mixup_partners(subset_ids, uniform(draws, 4))
    assert (partners[:, 1] == 1).all()
    seen, counts = partners.unique(dim=0, return_counts=True)
    assert len(seen) == 6
    # Standard deviation of each count: 41.
    assert (counts - draws / 6).abs().max() < 200


def test_shares_are_those_of_the_larger_part():
    lam = mixup_lam(uniform(20000))
    assert lam.min() >= 0.5 and lam.max() <= 1
    beta = torch.distributions.Beta(1.0, 1.0).sample((20000,))
    expected = torch.maximum(beta, 1 - beta).quantile(torch.tensor([0.1, 0.5, 0.9]))
    found = lam.float().quantile(torch.tensor([0.1, 0.5, 0.9]))
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)


@pytest.mark.parametrize('dtype', [torch.float16, torch.float32, torch.float64])
def test_images_are_mixed_in_their_own_type(dtype):
    images = uniform(3, 2, 4, 4).to(dtype)
    lam = torch.tensor([1.0, 0.5, 0.75], dtype=torch.float64)
    mixed = mix_images(images, images.flip(0), lam)
    assert mixed.dtype == dtype
    assert torch.equal(mixed[0], images[0])
    torch.testing.assert_close(mixed[2], (0.75 * images[2] + 0.25 * images[0]).to(dtype))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_and_autocast_compute_in_single_precision(dtype):
    assignments = torch.tensor([[0, 1, 1, 0, 1, 0, 0]])
    queries, keys = unit(1, 7, 4).to(dtype), unit(7, 4, seed=1).to(dtype)
    partners, lam = mixup_partners(assignments, uniform(1, 7)), mixup_lam(uniform(1, 7))
    with torch.autocast('cpu', torch.bfloat16):
        risks = mixup_risks(queries, keys, assignments, 2, partners, lam)
    exact = mixup_risks(queries.double(), keys.double(), assignments, 2, partners, lam)
    for ours, theirs in zip(risks[:2], exact[:2]):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    'change,message',
    [
        (dict(queries=unit(5, 3)), 'queries must be'),
        (dict(keys=unit(4, 3)), 'queries must be'),
        (dict(lam=uniform(1, 4)), 'lam must be'),
        (dict(partners=torch.zeros(5, dtype=torch.long)), 'partners must be'),
        (dict(penalty='both'), 'penalty must be one of'),
        (dict(temperature=0.0), 'must be positive'),
        (dict(irm_temperature=-1.0), 'must be positive'),
    ],
)
def test_bad_arguments(change, message):
    given = dict(
        queries=unit(1, 5, 3),
        keys=unit(5, 3),
        subset_ids=torch.zeros(1, 5, dtype=torch.long),
        num_subsets=1,
        partners=torch.arange(5)[None],
        lam=uniform(1, 5),
    )
    with pytest.raises(ValueError, match=message):
        mixup_risks(**{**given, **change})
