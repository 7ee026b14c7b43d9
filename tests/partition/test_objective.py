"""The objective of hard partitions over blocks, compared with that of soft partitions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ipirm_mm.functional import soft_partition_objective
from ipirm_mm.partition import objective as module
from ipirm_mm.partition.objective import BlockedObjective, ObjectiveOptions


def views(images=60, draws=2, width=5):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(images, width, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, draws, images, width, generator=generator, dtype=torch.float64)
    return tuple(F.normalize(base + 0.4 * view, dim=2) for view in noise)


def test_blocks_have_almost_equal_sizes():
    objective = BlockedObjective.divide(*views(), ObjectiveOptions(block_size=25), seed=3)
    assert [len(block) for block in objective.blocks] == [20, 20, 20]
    assert objective.order.sort().values.tolist() == list(range(60))
    again = BlockedObjective.divide(*views(), ObjectiveOptions(block_size=25), seed=3)
    assert torch.equal(again.order, objective.order)
    one = BlockedObjective.divide(*views(), ObjectiveOptions(block_size=60), seed=3)
    assert torch.equal(one.order, torch.arange(60))


@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
@pytest.mark.parametrize('balance', ['relaxed', 'strict', 'none'])
def test_value_and_gradient(balance, penalty):
    z1, z2 = views()
    options = ObjectiveOptions(3, penalty=penalty, balance=balance, block_size=25)
    objective = BlockedObjective.divide(z1, z2, options, seed=0)
    assignment = torch.arange(60).clamp(max=50) // 30 + (torch.arange(60) == 0)  # lopsided
    value, gradient = objective.value_and_gradient(assignment)
    weights = F.one_hot(assignment, 3).double().requires_grad_()
    expected = module.balance_term(weights.mean(0), balance)
    for block in objective.blocks:
        for draw in range(2):
            part = soft_partition_objective(
                z1[draw, block], z2[draw, block], weights[block], penalty=penalty, balance='none'
            )
            expected = expected + part * len(block) / 60 / 2
    assert value == pytest.approx(expected.item(), abs=1e-12)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, weights)[0])
    other = assignment.flip(0)
    values = objective.values([assignment, other])
    assert values[0] == pytest.approx(value, abs=1e-12)
    assert values[1] == pytest.approx(objective.value_and_gradient(other)[0], abs=1e-12)


def test_select_keeps_the_images_of_the_blocks():
    z1, z2 = views()
    objective = BlockedObjective.divide(z1, z2, ObjectiveOptions(block_size=25), seed=0)
    part = objective.first_blocks(2)
    images = torch.cat(objective.blocks[:2])
    assert torch.equal(part.z1, z1[:, images]) and torch.equal(part.z2, z2[:, images])
    assert torch.equal(part.mean, objective.mean[images])
    assert [block.tolist() for block in part.blocks] == [list(range(20)), list(range(20, 40))]
    assert objective.first_blocks(3) is objective


@pytest.mark.parametrize('blocks_that_fit', [0, 1, 2])
def test_small_cache_gives_the_same_values(monkeypatch, blocks_that_fit):
    options = ObjectiveOptions(block_size=25)
    assignment = torch.arange(60) % 2
    expected = BlockedObjective.divide(*views(), options, seed=0).value_and_gradient(assignment)
    size = 10 * 2 * 20**2 * 8  # of one block, in bytes
    monkeypatch.setattr(module, '_CACHE_BYTES', blocks_that_fit * size)
    objective = BlockedObjective.divide(*views(), options, seed=0)
    for _ in range(2):
        value, gradient = objective.value_and_gradient(assignment)
        assert value == expected[0] and torch.equal(gradient, expected[1])
        assert len(objective._cache) == max(1, blocks_that_fit)
