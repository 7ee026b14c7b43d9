"""MixUp in Step 2: blocks of whole groups, the objective over them, clusters, and the solver."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ipirm_mm.errors import UserError
from ipirm_mm.functional import mixup_lam, mixup_partners, soft_mixup_objective
from ipirm_mm.functional.mixup_partition import QUERY_WEIGHTS, mixed_block
from ipirm_mm.partition import Mixing, PartitionSolver, mixing_groups
from ipirm_mm.partition.cluster_search import ClusterObjective
from ipirm_mm.partition.objective import BlockedObjective, ObjectiveOptions, balance_term


def draw_mixing(images, draws=1, group_size=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    groups = mixing_groups(torch.rand(images, generator=generator), group_size)
    uniform = torch.rand(2, draws, images, generator=generator, dtype=torch.float64)
    partners = mixup_partners(groups.expand(draws, -1), uniform[0])
    return Mixing(partners, mixup_lam(uniform[1]), groups)


def mixed_views(factor, mixing, strength=1.5, width=8, noise=0.3, seed=0):
    """Queries and keys, ``(M, N, D)``: a factor, and what is of one image only."""
    generator = torch.Generator().manual_seed(seed)
    draws, images = mixing.partners.shape
    base = torch.randn(images, width, generator=generator, dtype=torch.float64)
    base[:, 0] = strength * width**0.5 * (2.0 * factor - 1)
    first, keys = base + noise * torch.randn(
        2, draws, images, width, generator=generator, dtype=torch.float64
    )
    lam = mixing.lam[..., None]
    others = first.gather(1, mixing.partners[..., None].expand_as(first))
    return F.normalize(lam * first + (1 - lam) * others, dim=2), F.normalize(keys, dim=2)


def setting(images=60, draws=2, group_size=8):
    mixing = draw_mixing(images, draws, group_size)
    return *mixed_views(torch.arange(images) % 2, mixing, 0.5), mixing


def test_groups_are_random_and_of_almost_equal_size():
    uniform = torch.rand(200, generator=torch.Generator().manual_seed(0))
    groups = mixing_groups(uniform)
    assert torch.bincount(groups).tolist() == [50] * 4
    assert groups[uniform.argsort()].tolist() == sorted(groups.tolist())
    assert not mixing_groups(uniform[:64]).any()


def test_blocks_are_whole_groups_in_any_order():
    mixing = draw_mixing(100, 2, 8)  # 13 groups of 7 or 8
    blocks = mixing.blocks(25, torch.Generator().manual_seed(0))
    assert torch.cat(blocks).sort().values.tolist() == list(range(100))
    assert max(map(len, blocks)) <= 25 and len(blocks) == 5
    for block in blocks:
        part = mixing.select(block)
        assert torch.equal(block[part.partners], mixing.partners[:, block])
        assert torch.equal(part.lam, mixing.lam[:, block])
    other = mixing.blocks(25, torch.Generator().manual_seed(1))
    assert [block.tolist() for block in blocks] != [block.tolist() for block in other]


@pytest.mark.parametrize('query_weight', QUERY_WEIGHTS)
@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
@pytest.mark.parametrize('block_size', [100, 25])  # 1 block, 3 blocks
def test_value_and_gradient(block_size, penalty, query_weight):
    queries, keys, mixing = setting()
    options = ObjectiveOptions(
        3,
        penalty=penalty,
        block_size=block_size,
        irm_temperature=0.3,
        query_weight=query_weight,
    )
    objective = BlockedObjective.divide(queries, keys, options, 0, mixing)
    assignment = torch.arange(60).clamp(max=50) // 30 + (torch.arange(60) == 0)
    value, gradient = objective.value_and_gradient(assignment)
    weights = F.one_hot(assignment, 3).double().requires_grad_()
    expected = balance_term(weights.mean(0), 'relaxed')
    for block in objective.blocks:
        part = mixing.select(block)
        for draw in range(2):
            risk = soft_mixup_objective(
                queries[draw, block],
                keys[draw, block],
                part.partners[draw],
                part.lam[draw],
                weights[block],
                0.5,
                0.3,
                penalty=penalty,
                balance='none',
                query_weight=query_weight,
            )
            expected = expected + risk * len(block) / 60 / 2
    assert value == pytest.approx(expected.item(), abs=1e-12)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, weights)[0])
    assert objective.values([assignment]) == pytest.approx([value], abs=1e-12)
    first = objective.first_blocks(1)
    images = first.random_sample(16, torch.Generator().manual_seed(0))
    assert 8 <= len(images) <= 16
    sample = first.select([images])
    place = objective.order[images] if first is not objective else images
    assert torch.equal(place[sample.mixing.partners], mixing.partners[:, place])
    torch.testing.assert_close(objective.mean, F.normalize(keys.sum(0), dim=1))


@pytest.mark.parametrize('query_weight', QUERY_WEIGHTS)
@pytest.mark.parametrize('irm_temperature', [None, 0.3])
@pytest.mark.parametrize('subsets', [2, 3])
@pytest.mark.parametrize('penalty', ['scalar', 'vector'])
def test_objective_of_whole_clusters(penalty, subsets, irm_temperature, query_weight):
    queries, keys, mixing = setting(120, 1, 40)
    given = (queries[0], keys[0], mixing.partners[0], mixing.lam[0])
    assert (given[2] == torch.arange(120)).any()
    generator = torch.Generator().manual_seed(1)
    cluster = torch.randint(7, (120,), generator=generator)
    assignments = torch.randint(subsets, (9, 7), generator=generator)
    assignments[0] = 0  # an empty subset
    assignments[1] = 0  # a subset of one cluster
    assignments[1, 0] = 1
    block = mixed_block(*given, 0.5, irm_temperature, penalty, query_weight)
    values = ClusterObjective([block], [cluster], 7, subsets, 0.5, 'relaxed')(assignments)
    # The vector dummy's penalty is left out, as of the order of one over the number of images.
    irm_weight = 0.5 if penalty == 'scalar' else 0.0
    for value, assignment in zip(values, assignments):
        weights = F.one_hot(assignment[cluster], subsets).double()
        expected = soft_mixup_objective(
            *given, weights, 0.5, irm_temperature, irm_weight, penalty, 'relaxed', query_weight
        )
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize('strategy', ['authors', 'local'])
@pytest.mark.parametrize('block_size', [3096, 128])  # 1 block, 3 blocks
def test_finds_a_planted_factor(strategy, block_size):
    images = 256
    factor = torch.arange(images) % 2
    mixing = draw_mixing(images, 2)
    queries, keys = mixed_views(factor, mixing)
    solver = PartitionSolver(
        temperature=0.2,
        strategy=strategy,
        starts=['kmeans', 'random'],
        block_size=block_size,
        epochs=30,
    )
    result = solver.solve(queries, keys, mixing=mixing)
    agreement = (result.assignment == factor).double().mean()
    assert max(agreement, 1 - agreement) > 0.95
    again = solver.solve(queries, keys, mixing=mixing)
    assert torch.equal(result.assignment, again.assignment)


@pytest.mark.parametrize('images', [80, pytest.param(200, marks=pytest.mark.slow)])  # 1, 3 blocks
def test_all_starts_work_with_mixed_views(images):
    mixing = draw_mixing(images)
    queries, keys = mixed_views(torch.arange(images) % 2, mixing)
    options = dict(temperature=0.2, block_size=100, epochs=5)
    result = PartitionSolver(**options).solve(queries, keys, mixing=mixing)
    if images == 80:
        given = (queries[0], keys[0], mixing.partners[0], mixing.lam[0])
        weights = F.one_hot(result.assignment, 2).double()
        value = soft_mixup_objective(*given, weights)
        assert result.objective == pytest.approx(float(value), abs=1e-10)
        authors = PartitionSolver(**options, strategy='authors')
        assert result.objective >= authors.solve(queries, keys, mixing=mixing).objective
    assert sum(result.sizes) == images and min(result.sizes) > 0


def test_bad_mixing():
    queries, keys, mixing = setting(100, 2, 40)
    solver = PartitionSolver(block_size=30, strategy='random')
    with pytest.raises(UserError, match='block_size is 30, but with MixUp it must be at least 34'):
        solver.solve(queries, keys, mixing=mixing)
    with pytest.raises(ValueError, match='mixing must have partners'):
        solver.solve(queries[:1], keys[:1], mixing=mixing)
    wrong = mixing._replace(partners=(mixing.partners + 1) % 100)
    with pytest.raises(ValueError, match='of the same group'):
        solver.solve(queries, keys, mixing=wrong)
