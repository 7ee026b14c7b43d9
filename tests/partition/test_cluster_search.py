"""The objective of whole clusters against that of their images, and the search over them."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from ipirm_mm.functional import soft_partition_objective
from ipirm_mm.functional.partition import similarity_block
from ipirm_mm.partition.cluster_search import ClusterObjective, search_clusters


def features(images, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(images, width, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, images, width, generator=generator, dtype=torch.float64)
    return tuple(F.normalize(base + 0.4 * view, dim=1) for view in noise)


def build(z1, z2, cluster, count, subsets, penalty, balance, irm_temperature=None):
    block = similarity_block(z1, z2, 0.5, irm_temperature, penalty)
    return ClusterObjective([block], [cluster], count, subsets, 0.5, balance)


@pytest.mark.parametrize('balance', ['relaxed', 'strict', 'none'])
@pytest.mark.parametrize('irm_temperature', [None, 0.3])
@pytest.mark.parametrize('subsets', [2, 3])
@pytest.mark.parametrize('penalty', ['scalar', 'vector'])
def test_objective_of_whole_clusters(penalty, subsets, irm_temperature, balance):
    images, count = 120, 7
    z1, z2 = features(images)
    generator = torch.Generator().manual_seed(1)
    cluster = torch.randint(count, (images,), generator=generator)
    cluster[:count] = torch.arange(count)
    deals = torch.randint(subsets, (9, count), generator=generator)
    deals[0], deals[1, 1:], deals[1, 0] = 0, 0, 1  # an empty subset, and one of one cluster
    values = build(z1, z2, cluster, count, subsets, penalty, balance, irm_temperature)(deals)
    for value, deal in zip(values, deals):
        weights = F.one_hot(deal[cluster], subsets).double()
        expected = soft_partition_objective(
            z1, z2, weights, 0.5, irm_temperature, 0.5, penalty, balance
        )
        if penalty == 'scalar':
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-10)
        else:  # a sum of squares is left out, of the columns of the negatives
            assert -1e-10 <= expected - value < 0.05


@pytest.mark.parametrize('subsets', [2, 3])
def test_search_finds_the_best_of_all_deals(subsets):
    images, count = 90, 7
    z1, z2 = features(images, seed=3)
    cluster = torch.arange(images) % count
    cluster = cluster[torch.randperm(images, generator=torch.Generator().manual_seed(0))]
    objective = build(z1, z2, cluster, count, subsets, 'scalar', 'relaxed')
    everything = torch.tensor(list(itertools.product(range(subsets), repeat=count)))
    least = 15
    fits = (objective.sizes(everything) >= least).all(1)
    best = objective(everything[fits]).max()
    deals = search_clusters(objective, torch.Generator().manual_seed(0), least)
    values = objective(torch.stack(deals))
    torch.testing.assert_close(values[0], best)
    assert values.tolist() == sorted(values.tolist(), reverse=True)
    assert (objective.sizes(torch.stack(deals)) >= least).all()
    again = search_clusters(objective, torch.Generator().manual_seed(0), least)
    assert torch.equal(deals[0], again[0])


def test_search_ends_where_no_move_is_allowed():
    z1, z2 = features(20)
    objective = build(z1, z2, torch.arange(20) % 2, 2, 2, 'scalar', 'none')
    deals = search_clusters(objective, torch.Generator().manual_seed(0), least=10, budget=50)
    assert len(deals) >= 1


@pytest.mark.parametrize('subsets', [2, 5])
def test_clusters_without_an_image_are_dealt_too(subsets):
    """A sample need not have an image of each cluster; any order may put such a cluster last."""
    z1, z2 = features(60)
    cluster = torch.arange(60) % 7
    objective = build(z1, z2, cluster, 10, subsets, 'scalar', 'relaxed')
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        deals = torch.stack(search_clusters(objective, generator, budget=300))
        assert deals.shape[1] == 10
        assert deals.min() >= 0 and deals.max() < subsets
        assert objective.sizes(deals).sum(1).eq(60).all()


def test_several_blocks_are_averaged():
    images, count = 90, 5
    z1, z2 = features(images)
    cluster = torch.arange(images) % count
    index = torch.randperm(images, generator=torch.Generator().manual_seed(2)).split([50, 40])
    blocks = [similarity_block(z1[i], z2[i], penalty='scalar') for i in index]
    objective = ClusterObjective(blocks, [cluster[i] for i in index], count, 2, 0.5, 'none')
    deals = torch.randint(2, (6, count), generator=torch.Generator().manual_seed(3))
    apart = [build(z1[i], z2[i], cluster[i], count, 2, 'scalar', 'none')(deals) for i in index]
    torch.testing.assert_close(objective(deals), (50 * apart[0] + 40 * apart[1]) / 90)
    shares = objective.sizes(deals) / images
    balanced = ClusterObjective(blocks, [cluster[i] for i in index], count, 2, 0.5, 'strict')
    entropy = -(shares * shares.clamp(min=1e-30).log()).sum(1)  # of all images
    torch.testing.assert_close(balanced(deals), objective(deals) + entropy)


def test_search_goes_on_from_starts():
    z1, z2 = features(90, seed=3)
    cluster = torch.arange(90) % 9
    objective = build(z1, z2, cluster, 9, 2, 'scalar', 'relaxed')
    best = search_clusters(objective, torch.Generator().manual_seed(0), 15)[0]
    found = search_clusters(objective, torch.Generator().manual_seed(1), 15, 1, [best])
    assert len(found) == 1 and torch.equal(found[0], best)
