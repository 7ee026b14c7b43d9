"""SimSiam's cosine in subsets against the definition: a dummy, differentiated twice."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ipirm_mm.functional import cosine_risks


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def reference(p1, p2, t1, t2, subset_ids, count):
    losses, penalties = [], []
    for subset in range(count):
        images = [i for row in subset_ids.tolist() for i, g in enumerate(row) if g == subset]
        theta = torch.ones((), dtype=p1.dtype, requires_grad=True)
        terms = [
            (theta * p[i] - t[i]).square().sum() / 2
            for p, t in ((p1, t2), (p2, t1))
            for i in images
        ]
        if len(images) < 2:
            losses.append(p1.new_zeros(()))
            penalties.append(p1.new_zeros(()))
            continue
        loss = torch.stack(terms).mean()
        (grad,) = torch.autograd.grad(loss, theta, create_graph=True)
        losses.append(loss)
        penalties.append(grad.square())
    return torch.stack(losses), torch.stack(penalties)


@pytest.mark.parametrize(
    'batch,width,num_subsets,partitions',
    [(2, 3, 1, 1), (7, 4, 2, 3), (12, 8, 3, 2), (9, 2, 20, 2), (1, 3, 2, 1), (5, 3, 2, 0)],
)
def test_against_double_backward(batch, width, num_subsets, partitions):
    generator = torch.Generator().manual_seed(batch)
    subset_ids = torch.randint(num_subsets, (partitions, batch), generator=generator)
    subset_ids = subset_ids + num_subsets * torch.arange(partitions)[:, None]
    leaves = [unit(batch, width, seed=seed).requires_grad_() for seed in range(4)]
    count = max(1, num_subsets * partitions)
    # Through the normalization, as in a model: the definition also holds ||p||^2, which is 1.
    rows = [F.normalize(leaf, dim=1) for leaf in leaves]
    risks = cosine_risks(tuple(rows[:2]), tuple(rows[2:]), subset_ids, count)
    loss, penalty = reference(*rows, subset_ids, count)
    torch.testing.assert_close(risks.loss, loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(risks.penalty, penalty, rtol=1e-12, atol=1e-12)
    assert risks.size.tolist() == [int((subset_ids == subset).sum()) for subset in range(count)]
    if not loss.requires_grad:
        return
    weights = torch.rand(2, count, generator=generator, dtype=torch.float64)
    ours, theirs = (
        torch.autograd.grad((weights[0] * a + weights[1] * b).sum(), leaves, retain_graph=True)
        for a, b in ((risks.loss, risks.penalty), (loss, penalty))
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_half_precision_is_computed_in_float32():
    leaves = [unit(6, 4, seed=seed).bfloat16().requires_grad_() for seed in range(4)]
    risks = cosine_risks(tuple(leaves[:2]), tuple(leaves[2:]), torch.zeros(1, 6).long(), 1)
    assert risks.loss.dtype == torch.float32
    risks.loss.sum().backward()
    assert all(leaf.grad is not None and leaf.grad.dtype == torch.bfloat16 for leaf in leaves)
