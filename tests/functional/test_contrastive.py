"""Step 1 against slow references: one subset at a time, double backward through the dummy."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ipirm_mm.functional import contrastive_risks, subset_contrastive_risks

DATA = Path(__file__).parents[1] / 'data'


def reference(
    z1,
    z2,
    assignments,
    num_subsets,
    temperature,
    irm_temperature,
    penalty,
    targets=None,
    negatives='both_views',
):
    """The definition: build each subset's logit table, scale it by a dummy, differentiate."""
    targets = targets or (z1, z2)
    irm_temperature = temperature if irm_temperature is None else irm_temperature
    losses, penalties = [], []
    for assignment in assignments.tolist():
        for k in range(num_subsets):
            images = [i for i, a in enumerate(assignment) if a == k]
            if len(images) < 2:
                losses.append(z1.new_zeros(()))
                penalties.append(z1.new_zeros(()))
                continue
            rows = [(v, i) for v in (0, 1) for i in images]
            table = []
            for view, image in rows:
                anchor = (z1, z2)[view][image]
                columns = [(1 - view, image)]
                columns += [(v, i) for v, i in rows if i != image]
                table.append(torch.stack([anchor @ targets[v][i] for v, i in columns]))
            similarity = torch.stack(table)
            if negatives == 'other_view':  # the other columns are not there
                m = len(images)
                view = torch.tensor([v for v, _ in rows])[:, None]
                view_of_column = torch.tensor([-1] + [0] * (m - 1) + [1] * (m - 1))
                similarity = similarity.masked_fill(view == view_of_column, -1e9)
            target = torch.zeros(len(rows), dtype=torch.long)
            losses.append(F.cross_entropy(similarity / temperature, target))
            shape = (1, similarity.shape[1]) if penalty == 'vector' else (1, 1)
            dummy = torch.ones(shape, dtype=z1.dtype, requires_grad=True)
            risk = F.cross_entropy(similarity / irm_temperature * dummy, target)
            (grad,) = torch.autograd.grad(risk, dummy, create_graph=True)
            penalties.append(grad.square().sum())
    shape = (len(assignments), num_subsets)
    return torch.stack(losses).view(shape), torch.stack(penalties).view(shape)


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def gradients(loss, penalty, leaves, seed=5):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(2, *loss.shape, generator=generator, dtype=loss.dtype)
    total = (weights[0] * loss + weights[1] * penalty).sum()
    return torch.autograd.grad(total, leaves)


def check(z1, z2, assignments, num_subsets, temperature, irm_temperature, penalty):
    leaves = [z1.clone().requires_grad_(), z2.clone().requires_grad_()]
    risks = subset_contrastive_risks(
        *leaves, assignments, num_subsets, temperature, irm_temperature, penalty
    )
    loss, pen = reference(*leaves, assignments, num_subsets, temperature, irm_temperature, penalty)
    torch.testing.assert_close(risks.loss, loss, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(risks.penalty, pen, rtol=1e-10, atol=1e-10)
    sizes = [[(row == k).sum().item() for k in range(num_subsets)] for row in assignments]
    assert risks.size.tolist() == sizes
    if not loss.requires_grad:  # no subset of two images: the slow reference is a constant
        grads = torch.autograd.grad(risks.loss.sum() + risks.penalty.sum(), leaves)
        assert all(torch.count_nonzero(grad) == 0 for grad in grads)
        return
    for ours, theirs in zip(
        gradients(risks.loss, risks.penalty, leaves), gradients(loss, pen, leaves)
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
@pytest.mark.parametrize(
    'batch,width,num_subsets,partitions',
    [(2, 3, 1, 1), (7, 4, 2, 3), (12, 8, 3, 2), (16, 5, 5, 1), (9, 2, 20, 2)],
)
def test_sizes(batch, width, num_subsets, partitions, penalty):
    generator = torch.Generator().manual_seed(batch)
    assignments = torch.randint(num_subsets, (partitions, batch), generator=generator)
    check(
        unit(batch, width),
        unit(batch, width, seed=1),
        assignments,
        num_subsets,
        0.5,
        None,
        penalty,
    )


@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
@pytest.mark.parametrize(
    'temperature,irm_temperature', list(itertools.product([0.07, 0.5, 2.0], [None, 0.5, 0.1]))
)
def test_temperatures(temperature, irm_temperature, penalty):
    assignments = torch.tensor([[0, 1, 1, 0, 1, 0, 0], [1, 1, 0, 1, 1, 1, 0]])
    check(unit(7, 6), unit(7, 6, seed=1), assignments, 2, temperature, irm_temperature, penalty)


@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
@pytest.mark.parametrize(
    'assignment', [[0] * 6, [1] * 6, [0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0, 1, 2, 2, 1, 1]]
)
def test_subsets_of_0_1_2_and_all_images(assignment, penalty):
    check(unit(6, 4), unit(6, 4, seed=1), torch.tensor([assignment]), 3, 0.5, None, penalty)


@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
@pytest.mark.parametrize('assignment', [[0], [1]])
def test_batch_of_one_image(assignment, penalty):
    check(unit(1, 4), unit(1, 4, seed=1), torch.tensor([assignment]), 2, 0.5, None, penalty)


@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
def test_identical_views(penalty):
    z = unit(6, 4)
    check(z, z, torch.tensor([[0, 1, 0, 1, 0, 1]]), 2, 0.5, None, penalty)


def test_no_partition_gives_empty_fields():
    risks = subset_contrastive_risks(unit(4, 3), unit(4, 3), torch.zeros(0, 4).long(), 2)
    assert risks.loss.shape == risks.penalty.shape == risks.size.shape == (0, 2)


@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
def test_float32_and_autocast(penalty):
    z1, z2 = unit(32, 16), unit(32, 16, seed=1)
    assignments = torch.arange(32).remainder(3)[None]
    exact = subset_contrastive_risks(z1, z2, assignments, 3, 0.1, penalty=penalty)
    single = subset_contrastive_risks(z1.float(), z2.float(), assignments, 3, 0.1, penalty=penalty)
    with torch.autocast('cpu', torch.bfloat16):
        mixed = subset_contrastive_risks(
            z1.float(), z2.float(), assignments, 3, 0.1, penalty=penalty
        )
        half = subset_contrastive_risks(
            z1.bfloat16(), z2.bfloat16(), assignments, 3, 0.1, penalty=penalty
        )
    assert single.loss.dtype == mixed.loss.dtype == half.loss.dtype == torch.float32
    for ours, expected in zip(single[:2], exact[:2]):
        torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(mixed.loss, single.loss) and torch.equal(mixed.penalty, single.penalty)
    torch.testing.assert_close(half.loss, single.loss, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
def test_small_temperature_stays_finite_in_float32(penalty):
    leaves = [unit(8, 4).float().requires_grad_(), unit(8, 4, seed=1).float().requires_grad_()]
    risks = subset_contrastive_risks(
        *leaves, torch.arange(8).remainder(2)[None], 2, 0.01, penalty=penalty
    )
    grads = torch.autograd.grad(risks.loss.sum() + risks.penalty.sum(), leaves)
    assert all(torch.isfinite(x).all() for x in (*risks[:2], *grads))


def test_compiles_to_one_graph():
    z1, z2 = unit(8, 4).requires_grad_(), unit(8, 4, seed=1)
    assignments = torch.arange(8).remainder(2)[None]
    # aot_eager traces forward and backward without needing a C++ compiler.
    compiled = torch.compile(subset_contrastive_risks, backend='aot_eager', fullgraph=True)
    for ours, expected in zip(
        compiled(z1, z2, assignments, 2), subset_contrastive_risks(z1, z2, assignments, 2)
    ):
        torch.testing.assert_close(ours, expected)
    compiled(z1, z2, assignments, 2).penalty.sum().backward()


@pytest.mark.parametrize(
    'change,message',
    [
        (dict(penalty='matrix'), "penalty must be one of .* but is 'matrix'"),
        (dict(temperature=0.0), 'must be positive, but are 0.0'),
        (dict(num_subsets=0), 'num_subsets must be at least 1, but is 0'),
        (dict(assignments=torch.zeros(1, 3).long()), r'assignments must be \(partitions, 4\)'),
        (dict(z2=unit(3, 3)), r'z1 and z2 must both be .*\(4, 3\) and \(3, 3\)'),
    ],
)
def test_errors(change, message):
    arguments = dict(
        z1=unit(4, 3), z2=unit(4, 3), assignments=torch.zeros(1, 4).long(), num_subsets=2
    )
    with pytest.raises(ValueError, match=message):
        subset_contrastive_risks(**{**arguments, **change})


@pytest.fixture(scope='module')
def oracle():
    return np.load(DATA / 'ipirm_oracle_step1.npz', allow_pickle=False)


def oracle_cases():
    names = json.loads((DATA / 'ipirm_oracle_step1.json').read_text())
    return names['cases']


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('penalty,key', [('vector', 'w'), ('scalar', 'theta')])
@pytest.mark.parametrize('case', oracle_cases())
def test_authors_functions(oracle, case, penalty, key, dtype):
    z1 = torch.from_numpy(oracle['in/f1']).to(dtype).requires_grad_()
    z2 = torch.from_numpy(oracle['in/f2']).to(dtype).requires_grad_()
    chosen = torch.zeros(16, dtype=torch.long)
    chosen[torch.from_numpy(oracle[f'{case}/sel'])] = 1
    risks = subset_contrastive_risks(z1, z2, chosen[None], 2, 0.5, 0.5, penalty)
    loss, pen = risks.loss[0, 1], risks.penalty[0, 1]

    def compare(value, name, relative):
        expected = torch.from_numpy(np.asarray(oracle[f'{case}/{name}'])).double()
        scale = expected.abs().max().item()
        torch.testing.assert_close(
            value.detach().double(), expected, rtol=0, atol=relative * scale
        )

    value_tolerance, grad_tolerance = (1e-9, 1e-9) if dtype == torch.float64 else (1e-5, 1e-4)
    compare(loss, 'ce', value_tolerance)
    compare(pen, f'pen_{key}', value_tolerance)
    for value, name in ((loss, 'grad_ce'), (pen, f'grad_pen_{key}')):
        grads = torch.autograd.grad(value, (z1, z2), retain_graph=True)
        compare(torch.cat(grads), name, grad_tolerance)


@pytest.mark.parametrize('negatives', ['both_views', 'other_view'])
@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
@pytest.mark.parametrize('batch,num_subsets,partitions', [(2, 1, 1), (7, 2, 3), (12, 5, 2)])
@pytest.mark.parametrize('temperature,irm_temperature', [(0.5, None), (0.1, 0.7)])
def test_targets_of_their_own(
    batch, num_subsets, partitions, temperature, irm_temperature, penalty, negatives
):
    """SimSiam's and MoCo v3's contrast: anchors are predictions, all others projections."""
    generator = torch.Generator().manual_seed(batch)
    assignments = torch.randint(num_subsets, (partitions, batch), generator=generator)
    subset_ids = assignments + num_subsets * torch.arange(partitions)[:, None]
    leaves = [unit(batch, 4, seed=seed).requires_grad_() for seed in range(4)]
    risks = contrastive_risks(
        *leaves[:2],
        subset_ids,
        num_subsets * partitions,
        temperature,
        irm_temperature,
        penalty,
        targets=tuple(leaves[2:]),
        negatives=negatives,
    )
    loss, pen = reference(
        *leaves[:2],
        assignments,
        num_subsets,
        temperature,
        irm_temperature,
        penalty,
        targets=leaves[2:],
        negatives=negatives,
    )
    torch.testing.assert_close(risks.loss, loss.flatten(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(risks.penalty, pen.flatten(), rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(
        gradients(risks.loss, risks.penalty, leaves),
        gradients(loss.flatten(), pen.flatten(), leaves),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_targets_must_have_the_shape_of_the_anchors():
    z = unit(4, 3)
    with pytest.raises(ValueError, match='targets must be two tensors of shape'):
        contrastive_risks(z, z, torch.zeros(1, 4).long(), 1, targets=(z, z[:2]))


@pytest.mark.parametrize('batch', [1, 2, 9])
@pytest.mark.parametrize('temperature', [0.07, 1.0, 1e4])
def test_negatives_of_the_other_view_are_two_cross_entropies(batch, temperature):
    """MoCo v3's logits: predictions of one view against the targets of the other, B x B."""
    p1, p2, t1, t2 = leaves = [unit(batch, 4, seed=seed).requires_grad_() for seed in range(4)]
    ids = torch.zeros(1, batch).long()
    loss = contrastive_risks(
        p1, p2, ids, 1, temperature, penalty=None, targets=(t1, t2), negatives='other_view'
    ).loss[0]
    own = torch.arange(batch)
    expected = sum(F.cross_entropy(p @ t.T / temperature, own) for p, t in ((p1, t2), (p2, t1)))
    torch.testing.assert_close(loss, expected / 2, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(
        torch.autograd.grad(loss, leaves), torch.autograd.grad(expected / 2, leaves)
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_unknown_negatives():
    z = unit(4, 3)
    with pytest.raises(ValueError, match="negatives must be one of .* but is 'all'"):
        contrastive_risks(z, z, torch.zeros(1, 4).long(), 1, negatives='all')
