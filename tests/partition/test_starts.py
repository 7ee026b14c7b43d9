"""The starts of the solver, one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ipirm_mm.errors import UserError
from ipirm_mm.partition import starts
from ipirm_mm.partition.candidates import Candidate, distinct_partitions, number_in_order
from ipirm_mm.partition.cluster_search import ClusterSearchOptions
from ipirm_mm.partition.cluster_start import ClusterSearch, cluster_search_subsets
from ipirm_mm.partition.objective import BlockedObjective, ObjectiveOptions
from ipirm_mm.partition.starts import (
    STARTS,
    factor_subsets,
    kmeans_subsets,
    optimize_soft_partition,
    principal_component_subsets,
    random_subsets,
)

# One search instead of six.
ONE_SEARCH = ClusterSearchOptions(clusters_per_subset=(5,), evaluations_per_image=10)


def build(images=100, width=4, num_subsets=2, block_size=1000):
    """Two groups far apart along one direction, and small noise."""
    generator = torch.Generator().manual_seed(0)
    group = torch.randperm(images, generator=generator) % 2
    base = 0.3 * torch.randn(images, width, generator=generator)
    base[:, 0] += 2 * group - 1
    noise = 0.1 * torch.randn(2, 1, images, width, generator=generator)
    z1, z2 = F.normalize(base + noise, dim=3)
    options = ObjectiveOptions(num_subsets, block_size=block_size)
    return BlockedObjective.divide(z1, z2, options, seed=0), group


def same_partition(assignment, group):
    return torch.equal(assignment, group) or torch.equal(assignment, 1 - group)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ignore(fraction, text):
    pass


@pytest.mark.parametrize('name', sorted(STARTS))
@pytest.mark.parametrize('num_subsets', [2, 3])
def test_every_start_gives_partitions(name, num_subsets):
    objective, _ = build(images=40, num_subsets=num_subsets)
    candidates = STARTS[name](objective, generator(), ignore)
    assert candidates
    for candidate in candidates:
        assert candidate.name.startswith(name)
        assert candidate.assignment.shape == (40,) and candidate.assignment.dtype == torch.long
        assert candidate.assignment.unique().tolist() == list(range(num_subsets))


@pytest.mark.parametrize('start', [kmeans_subsets, principal_component_subsets])
def test_two_groups_are_found(start):
    objective, group = build()
    assert same_partition(start(objective, generator(), ignore)[0].assignment, group)


@pytest.mark.parametrize(
    'width,expected', [(2, ['pca 1', 'pca 2']), (4, ['pca 1', 'pca 2', 'pca 3'])]
)
def test_principal_components(width, expected):
    objective, _ = build(width=width, num_subsets=3)
    candidates = principal_component_subsets(objective, generator(), ignore)
    assert [candidate.name for candidate in candidates] == expected
    for candidate in candidates:
        assert torch.bincount(candidate.assignment).tolist() == [34, 33, 33]


def test_random_subsets_have_equal_sizes():
    objective, _ = build(num_subsets=3)
    first, second, other = (
        random_subsets(objective, generator(seed), ignore)[0].assignment for seed in (1, 1, 2)
    )
    assert torch.bincount(first).tolist() == [34, 33, 33]
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_soft_optimizer_depends_on_the_initial_seed_only():
    objective, _ = build(images=30)
    used = generator(4)
    torch.randn(10, generator=used)
    seen = []
    (first,) = optimize_soft_partition(objective, generator(4), ignore, epochs=5)
    (second,) = optimize_soft_partition(
        objective, used, lambda fraction, text: seen.append(fraction), epochs=5
    )
    assert torch.equal(first.assignment, second.assignment) and first.history == second.history
    assert len(first.history) == 5
    assert seen == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])


def epochs_of_wang(values):
    """Number of epochs by the rule of their loop, whose epochs count from 0, and the best epoch.

    ``if epoch > 50 and cnt >= 5 or epoch == 60`` ends it, and ``cnt`` counts the epochs in a row
    whose loss was not below the lowest.
    """
    low, count, best = float('inf'), 0, None
    for epoch, value in enumerate(values):
        if -value < low:
            low, count, best = -value, 0, epoch
        else:
            count += 1
        if epoch > 50 and count >= 5 or epoch == 60:
            return epoch + 1, best
    raise AssertionError


RISING = [float(epoch) for epoch in range(61)]


@pytest.mark.parametrize(
    'values,epochs',
    [
        (RISING, 61),
        ([0.0] * 61, 52),  # the first that may end it
        (RISING[:4] + [0.0] * 57, 52),
        (RISING[:51] + [0.0] * 10, 56),
        (RISING[:52] + [0.0] * 9, 57),
        (RISING[:47] + [0.0] * 14, 52),
        # Four in vain, one better, and five in vain.
        (RISING[:49] + [0.0] * 4 + [99.0] + [0.0] * 7, 59),
        (RISING[:55] + [54.0] * 6, 60),  # equal is in vain
        (RISING[:56] + [55.0] * 5, 61),
        *(
            (torch.randn(61, generator=generator(seed)).add(torch.arange(61) / 9).tolist(), None)
            for seed in range(8)
        ),
    ],
)
@pytest.mark.parametrize('block_size', [1000, 2])
def test_soft_optimizer_stops_as_the_code_of_wang_does(values, epochs, block_size, monkeypatch):
    objective, _ = build(images=6, block_size=block_size)
    objective.options = replace(objective.options, balance='none')
    blocks = 1 if block_size == 1000 else 3
    calls, weights_seen = [], []

    def planned(similarity, weights, irm_weight):
        calls.append(values[len(calls) // blocks])
        weights_seen.append(weights.detach())
        # Four epochs towards subset 0, and then towards subset 1.
        share = weights[:, 0].sum() if len(calls) <= 4 * blocks else weights[:, 1].sum()
        return share - share.detach() + calls[-1]

    monkeypatch.setattr(starts, 'block_objective', planned)
    (found,) = optimize_soft_partition(objective, generator(), ignore)
    expected, best = epochs_of_wang(values)
    assert epochs in (None, expected)
    assert len(found.history) == len(calls) / blocks == expected
    assert found.history == pytest.approx(values[:expected])
    if blocks == 1:  # the partition of the best epoch is kept, not that of the last
        assert torch.equal(found.assignment, weights_seen[best].argmax(1))
        assert best != 3 or not torch.equal(found.assignment, weights_seen[-1].argmax(1))


@pytest.mark.parametrize('block_size', [1000, 40])
def test_cluster_search(block_size):
    objective, group = build(block_size=block_size)
    candidates = cluster_search_subsets(objective, generator(), ignore, ONE_SEARCH)
    assert 1 <= len(candidates) <= 8
    assert same_partition(candidates[0].assignment, group), candidates[0]
    for candidate in candidates:
        assert torch.bincount(candidate.assignment, minlength=2).min() >= objective.min_size


def test_cluster_search_of_the_first_blocks_gives_all_images_a_subset():
    objective, group = build(block_size=20)
    options = ClusterSearchOptions(
        clusters_per_subset=(5,), evaluations_per_image=10, num_blocks=2, sample_size=15
    )
    best, *_ = cluster_search_subsets(objective, generator(), ignore, options)
    assert len(best.assignment) == 100
    assert (best.assignment == group).double().mean().sub(0.5).abs() > 0.45


@pytest.mark.parametrize('block_size', [1000, 40])
def test_refinement_begins_at_the_partition_and_raises_the_objective(block_size):
    objective, group = build(block_size=block_size)
    # A sixth of the images of one subset are in the other.
    begin = torch.where(torch.arange(100) % 6 == 0, 1 - group, group)
    before, best = objective.values([begin, group])
    options = ClusterSearchOptions(refined_clusters_per_subset=(5, 3), num_refined=1)
    search = ClusterSearch(objective, 0, options)
    other = Candidate(torch.arange(100) % 2, 'clusters')
    (task,) = search.refinements([Candidate(begin, 'clusters'), other])
    (found,) = task(ignore)
    (after,) = objective.values([found.assignment])
    assert before < after == pytest.approx(best)
    # The estimate leaves out part of the penalty, of the order of one over the number of images.
    assert found.history == [pytest.approx(after, abs=0.05)]
    # Already the best: stays as it is, but for the numbers of the subsets.
    (task,) = search.refinements([Candidate(group, 'clusters')])
    assert same_partition(task(ignore)[0].assignment, group)


@pytest.mark.parametrize('most', [3, 5, 13])
def test_divided_clusters_keep_the_partition(most):
    objective, _ = build(images=130, num_subsets=3)
    search = ClusterSearch(objective, 0, ClusterSearchOptions(sample_size=10 * most))
    # Five clusters, one in one subset and four in three: 13 parts of different sizes.
    cluster = torch.arange(130) // 26
    assignment = torch.arange(130) * 7 % 17 % 3 * (cluster > 0)
    part, subset = search._divide(cluster, assignment)
    assert torch.equal(subset[part], assignment)
    assert torch.equal(part.unique(), torch.arange(len(subset)))
    whole = [len(cluster[part == number].unique()) == 1 for number in range(len(subset))]
    pairs = (cluster * 3 + assignment).unique(return_counts=True)[1].sort(descending=True).values
    assert len(pairs) == 13
    if most == 13:
        assert len(subset) == len(pairs) and all(whole)
    else:  # the largest ones as they are, and one part for what is left of each subset
        assert len(subset) <= most + 3 and sum(whole) >= most
        sizes = torch.bincount(part)
        assert all(int(size) in sizes.tolist() for size in pairs[:most])


def test_subsets_are_numbered_in_the_order_of_their_first_images():
    assert number_in_order(torch.tensor([3, 3, 0, 4, 0, 3]), 5).tolist() == [0, 0, 1, 2, 1, 0]
    partition = torch.randint(7, (50,), generator=generator())
    numbered = number_in_order(partition, 7)
    assert distinct_partitions([partition, numbered], 2) == [0]
    # Whatever the numbers were.
    assert torch.equal(number_in_order(torch.randperm(7)[partition], 7), numbered)


def test_distinct_partitions():
    even = torch.arange(40) % 2
    half = torch.arange(40) // 20
    thirds = torch.arange(40) % 3
    partitions = [even, 1 - even, half, even, thirds]
    assert distinct_partitions(partitions, 8) == [0, 2, 4]
    assert distinct_partitions(partitions, 2) == [0, 2]


def test_factor_is_taken_modulo_the_number_of_subsets():
    found = factor_subsets(torch.tensor([0, 1, 5, 3], dtype=torch.uint8), 4, 3)
    assert found.tolist() == [0, 1, 2, 0] and found.dtype == torch.long
    with pytest.raises(UserError, match='needs the factor of each image'):
        factor_subsets(None, 4, 3)
    with pytest.raises(UserError, match=r'each of the 4 images, but its shape is \(3,\)'):
        factor_subsets(torch.zeros(3), 4, 3)
