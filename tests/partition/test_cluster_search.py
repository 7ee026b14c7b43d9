"""The objective of whole clusters compared with that of their images, and the search."""

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
    assignments = torch.randint(subsets, (9, count), generator=generator)
    assignments[0] = 0  # an empty subset
    assignments[1] = 0  # a subset of one cluster
    assignments[1, 0] = 1
    values = build(z1, z2, cluster, count, subsets, penalty, balance, irm_temperature)(assignments)
    for value, assignment in zip(values, assignments):
        weights = F.one_hot(assignment[cluster], subsets).double()
        expected = soft_partition_objective(
            z1, z2, weights, 0.5, irm_temperature, 0.5, penalty, balance
        )
        if penalty == 'scalar':
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-10)
        else:  # leaves out a sum of squares, the entries of the negatives
            assert -1e-10 <= expected - value < 0.05


@pytest.mark.parametrize('subsets', [2, 3])
def test_search_finds_the_best_of_all_assignments(subsets):
    images, count = 90, 7
    z1, z2 = features(images, seed=3)
    cluster = torch.arange(images) % count
    cluster = cluster[torch.randperm(images, generator=torch.Generator().manual_seed(0))]
    objective = build(z1, z2, cluster, count, subsets, 'scalar', 'relaxed')
    everything = torch.tensor(list(itertools.product(range(subsets), repeat=count)))
    min_size = 15
    large = (objective.sizes(everything) >= min_size).all(1)
    best = objective(everything[large]).max()
    assignments = search_clusters(objective, torch.Generator().manual_seed(0), min_size)
    values = objective(torch.stack(assignments))
    torch.testing.assert_close(values[0], best)
    assert values.tolist() == sorted(values.tolist(), reverse=True)
    assert (objective.sizes(torch.stack(assignments)) >= min_size).all()
    again = search_clusters(objective, torch.Generator().manual_seed(0), min_size)
    assert torch.equal(assignments[0], again[0])


def test_search_ends_where_no_move_is_allowed():
    z1, z2 = features(20)
    objective = build(z1, z2, torch.arange(20) % 2, 2, 2, 'scalar', 'none')
    assignments = search_clusters(
        objective, torch.Generator().manual_seed(0), min_size=10, budget=50
    )
    assert len(assignments) >= 1


@pytest.mark.parametrize('subsets', [2, 5])
def test_clusters_without_an_image_get_a_subset_too(subsets):
    """A sample need not have an image of each cluster; a random order can put such a cluster last."""
    z1, z2 = features(60)
    cluster = torch.arange(60) % 7
    objective = build(z1, z2, cluster, 10, subsets, 'scalar', 'relaxed')
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        assignments = torch.stack(search_clusters(objective, generator, budget=300))
        assert assignments.shape[1] == 10
        assert assignments.min() >= 0 and assignments.max() < subsets
        assert objective.sizes(assignments).sum(1).eq(60).all()


def test_several_blocks_are_averaged():
    images, count = 90, 5
    z1, z2 = features(images)
    cluster = torch.arange(images) % count
    index = torch.randperm(images, generator=torch.Generator().manual_seed(2)).split([50, 40])
    blocks = [similarity_block(z1[i], z2[i], penalty='scalar') for i in index]
    objective = ClusterObjective(blocks, [cluster[i] for i in index], count, 2, 0.5, 'none')
    assignments = torch.randint(2, (6, count), generator=torch.Generator().manual_seed(3))
    separate = [
        build(z1[i], z2[i], cluster[i], count, 2, 'scalar', 'none')(assignments) for i in index
    ]
    torch.testing.assert_close(objective(assignments), (50 * separate[0] + 40 * separate[1]) / 90)
    shares = objective.sizes(assignments) / images
    balanced = ClusterObjective(blocks, [cluster[i] for i in index], count, 2, 0.5, 'strict')
    entropy = -(shares * shares.clamp(min=1e-30).log()).sum(1)  # of all images
    torch.testing.assert_close(balanced(assignments), objective(assignments) + entropy)


def test_search_starts_from_given_assignments():
    z1, z2 = features(90, seed=3)
    cluster = torch.arange(90) % 9
    objective = build(z1, z2, cluster, 9, 2, 'scalar', 'relaxed')
    best = search_clusters(objective, torch.Generator().manual_seed(0), 15)[0]
    found = search_clusters(objective, torch.Generator().manual_seed(1), 15, 1, [best])
    assert len(found) == 1 and torch.equal(found[0], best)
