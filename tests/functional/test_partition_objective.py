"""Step 2 against a slow reference: one subset at a time, double backward through the dummy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ipirm_mm.functional import partition as module
from ipirm_mm.functional import soft_partition_objective
from ipirm_mm.functional.partition import (
    balance_term,
    block_risks,
    entropy_bound,
    similarity_block,
)

ORACLE = Path(__file__).parents[1] / 'data' / 'ipirm_oracle_step2.npz'


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def soft_weights(images, num_subsets, seed=3, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(images, num_subsets, generator=generator, dtype=torch.float64)
    return logits.softmax(1)


def reference_risks(z1, z2, weights, temperature, irm_temperature, penalty):
    irm_temperature = temperature if irm_temperature is None else irm_temperature
    images, num_subsets = weights.shape
    views = (z1, z2)
    rows = [(v, i) for v in (0, 1) for i in range(images)]
    similarity = torch.stack(
        [
            torch.stack(
                [views[v][i] @ views[1 - v][i]]
                + [views[v][i] @ views[w][j] for w, j in rows if j != i]
            )
            for v, i in rows
        ]
    )
    losses, penalties = [], []
    for k in range(num_subsets):
        w = weights[:, k]
        if (w != 0).sum() < 2:
            losses.append(w.sum() * 0)
            penalties.append(w.sum() * 0)
            continue
        anchor = torch.stack([w[i] for _, i in rows])
        negative = torch.stack([torch.stack([w[j] for _, j in rows if j != i]) for _, i in rows])
        negative = negative / negative.sum(1, keepdim=True) * negative.shape[1]

        def risk(logits, anchor=anchor, negative=negative):
            terms = torch.cat((logits[:, :1].exp(), negative * logits[:, 1:].exp()), 1)
            loss = terms.sum(1).log() - logits[:, 0]
            return (anchor * loss).sum() / anchor.sum()

        losses.append(risk(similarity / temperature))
        shape = (1, similarity.shape[1]) if penalty == 'vector' else (1, 1)
        dummy = torch.ones(shape, dtype=weights.dtype, requires_grad=True)
        (grad,) = torch.autograd.grad(
            risk(similarity / irm_temperature * dummy), dummy, create_graph=True
        )
        penalties.append(grad.square().sum())
    return torch.stack(losses), torch.stack(penalties)


def reference_objective(
    z1, z2, weights, temperature, irm_temperature, irm_weight, penalty, balance
):
    loss, pen = reference_risks(z1, z2, weights, temperature, irm_temperature, penalty)
    share = weights.mean(0)
    entropy = -(share[share > 0] * share[share > 0].log()).sum()
    value = loss.mean() + irm_weight * pen.mean()
    if balance == 'strict':
        return value + entropy
    if balance == 'relaxed':
        sizes = torch.ones(weights.shape[1], dtype=torch.float64)
        sizes[0] = 2
        bound = torch.distributions.Categorical(probs=sizes).entropy()
        return value - (bound - entropy).clamp(min=0)
    return value


def check(z1, z2, weights, *options):
    leaves = [tensor.clone().requires_grad_() for tensor in (z1, z2, weights)]
    ours = soft_partition_objective(*leaves, *options)
    expected = reference_objective(*leaves, *options)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)
    for mine, theirs in zip(
        torch.autograd.grad(ours, leaves), torch.autograd.grad(expected, leaves)
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('balance', ['relaxed', 'strict', 'none'])
@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
@pytest.mark.parametrize('images,width,num_subsets', [(2, 3, 2), (8, 4, 2), (7, 5, 3), (9, 3, 5)])
def test_sizes(images, width, num_subsets, penalty, balance):
    check(
        unit(images, width),
        unit(images, width, seed=1),
        soft_weights(images, num_subsets),
        0.5,
        None,
        0.5,
        penalty,
        balance,
    )


@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
@pytest.mark.parametrize('temperature,irm_temperature', [(0.1, None), (0.2, 0.5), (1.0, 0.07)])
def test_temperatures(temperature, irm_temperature, penalty):
    check(
        unit(6, 4),
        unit(6, 4, seed=1),
        soft_weights(6, 2),
        temperature,
        irm_temperature,
        0.7,
        penalty,
        'relaxed',
    )


@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
@pytest.mark.parametrize('irm_temperature', [None, 0.9])
@pytest.mark.parametrize('rows', [1, 4, 7])
def test_tiles_change_nothing(monkeypatch, rows, irm_temperature, penalty):
    """Rows of similarities come some images at a time, of which 11 are no multiple."""
    images = 11
    arguments = (0.5, irm_temperature, 0.7, penalty, 'relaxed')

    def value_and_gradients():
        z1, z2 = unit(2, images, 6).requires_grad_().unbind(0)
        weights = soft_weights(images, 3).requires_grad_()
        value = soft_partition_objective(z1, z2, weights, *arguments)
        return value.detach(), *torch.autograd.grad(value, (z1, z2, weights))

    whole = value_and_gradients()
    monkeypatch.setitem(module._TILE_BYTES, 'cpu', rows * 4 * images * 8)
    monkeypatch.setitem(module._TILE_IMAGES, 'cpu', rows)
    for found, expected in zip(value_and_gradients(), whole):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize('balance', ['relaxed', 'strict', 'none'])
@pytest.mark.parametrize('num_subsets', [2, 7])
def test_balance_term_of_several_rows(num_subsets, balance):
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(3, 5, num_subsets, generator=generator).pow(4)
    shares[0, 0] = F.one_hot(torch.tensor(1), num_subsets)  # all images in one subset
    shares = shares / shares.sum(-1, keepdim=True)
    expected = torch.stack([balance_term(row, balance) for row in shares.flatten(0, 1)])
    assert torch.equal(balance_term(shares, balance), expected.view(3, 5))


def test_lopsided_weights_meet_the_balance_term():
    weights = torch.tensor([[0.9, 0.1]], dtype=torch.float64).repeat(6, 1)
    check(unit(6, 4), unit(6, 4, seed=1), weights, 0.5, None, 0.5, 'vector', 'relaxed')
    assert entropy_bound(2) == pytest.approx(0.6365, abs=1e-4)
    assert entropy_bound(4) < math.log(4)


@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
def test_hard_partitions_including_empty_and_single(penalty):
    z1, z2 = unit(7, 4), unit(7, 4, seed=1)
    for assignment in (
        [0, 1, 0, 1, 1, 0, 1],
        [0] * 7,
        [0, 0, 0, 0, 0, 0, 1],
        [2, 2, 1, 1, 1, 2, 0],
    ):
        weights = F.one_hot(torch.tensor(assignment), 3).double()
        loss, pen = block_risks(similarity_block(z1, z2, penalty=penalty), weights)
        expected_loss, expected_pen = reference_risks(z1, z2, weights, 0.5, None, penalty)
        torch.testing.assert_close(loss, expected_loss, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(pen, expected_pen, rtol=1e-10, atol=1e-10)
        # Subsets of no image and of one have no gradient either.
        check(z1, z2, weights, 0.5, None, 0.5, penalty, 'none')


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('balance', ['relaxed', 'strict', 'none'])
@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
def test_gradient_is_small_where_subsets_are_empty_or_single(penalty, balance, dtype):
    z1, z2 = unit(7, 4).to(dtype), unit(7, 4, seed=1).to(dtype)
    for assignment in ([0] * 7, [0] * 6 + [1], [1, 2] + [0] * 5):
        weights = F.one_hot(torch.tensor(assignment), 4).to(dtype).requires_grad_()
        value = soft_partition_objective(z1, z2, weights, penalty=penalty, balance=balance)
        (grad,) = torch.autograd.grad(value, weights)
        assert grad.abs().max() < 10


def test_one_image_has_no_risk():
    z, weights = unit(1, 4).requires_grad_(), soft_weights(1, 2).requires_grad_()
    value = soft_partition_objective(z, z, weights, balance='none')
    assert value == 0
    for grad in torch.autograd.grad(value, (z, weights)):
        assert torch.equal(grad, torch.zeros_like(grad))


@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
@pytest.mark.parametrize('scale', [30.0, 120.0, 1e4])
def test_weights_that_underflow_have_finite_gradients(penalty, scale):
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(32, 2, generator=generator)
    logits[:, 0] += scale * 4
    logits.requires_grad_()
    value = soft_partition_objective(
        unit(32, 8).float(), unit(32, 8, seed=1).float(), logits.softmax(1), penalty=penalty
    )
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
def test_float32_and_autocast(penalty):
    z1, z2, weights = unit(40, 8), unit(40, 8, seed=1), soft_weights(40, 2)
    exact = soft_partition_objective(z1, z2, weights, penalty=penalty)
    single = soft_partition_objective(z1.float(), z2.float(), weights.float(), penalty=penalty)
    torch.testing.assert_close(single.double(), exact, rtol=1e-5, atol=1e-5)
    with torch.autocast('cpu', torch.bfloat16):
        mixed = soft_partition_objective(z1.float(), z2.float(), weights.float(), penalty=penalty)
    assert torch.equal(mixed, single)


@pytest.mark.parametrize(
    'change,message',
    [
        (dict(penalty='matrix'), "penalty must be one of .* but is 'matrix'"),
        (dict(balance='loose'), "balance must be one of .* but is 'loose'"),
        (dict(temperature=-1.0), 'must be positive'),
        (dict(weights=soft_weights(3, 2)), r'weights must be \(4, subsets\)'),
        (dict(z2=unit(3, 3)), 'z1 and z2 must both be'),
    ],
)
def test_errors(change, message):
    arguments = dict(z1=unit(4, 3), z2=unit(4, 3), weights=soft_weights(4, 2))
    with pytest.raises(ValueError, match=message):
        soft_partition_objective(**{**arguments, **change})


@pytest.fixture(scope='module')
def oracle():
    with np.load(ORACLE, allow_pickle=False) as data:
        return {key: torch.from_numpy(np.asarray(data[key])) for key in data.files}


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('penalty,key', [('vector', 'w'), ('scalar', 'theta')])
def test_authors_functions(oracle, penalty, key, dtype):
    z1, z2 = (oracle[f'in/f{view}'].to(dtype) for view in (1, 2))
    logits = oracle['in/soft2'].to(dtype).requires_grad_()
    weights = logits[oracle['in/idx']].softmax(1)
    loss, pen = block_risks(similarity_block(z1, z2, 0.5, 0.5, penalty), weights)
    value_tolerance, grad_tolerance = (1e-9, 1e-9) if dtype == torch.float64 else (1e-5, 2e-3)

    def compare(value, name, relative):
        expected = oracle[name].double()
        bound = relative * expected.abs().max().item()
        torch.testing.assert_close(value.detach().double(), expected, rtol=0, atol=bound)

    compare(loss, 'c/soft2/loss', value_tolerance)
    compare(pen, f'c/soft2/pen_{key}', value_tolerance)
    for k in range(2):
        for values, name in ((loss, 'loss'), (pen, f'pen_{key}')):
            (grad,) = torch.autograd.grad(values[k], logits, retain_graph=True)
            compare(grad, f'c/soft2/grad_{name}_env{k}', grad_tolerance)
    for balance, name in (('none', 'none'), ('strict', 'plain'), ('relaxed', 'relax')):
        weights = logits[oracle['in/idx']].softmax(1)
        risk = -soft_partition_objective(z1, z2, weights, 0.5, 0.5, 0.5, penalty, balance)
        compare(risk, f'c/soft2/risk_{key}_{name}', value_tolerance)
        (grad,) = torch.autograd.grad(risk, logits)
        compare(grad, f'c/soft2/grad_risk_{key}_{name}', grad_tolerance)
