"""The solver as a maximizer, and on features with planted factors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ipirm_mm.errors import UserError
from ipirm_mm.functional import soft_partition_objective
from ipirm_mm.partition import PartitionSolver
from ipirm_mm.partition.local_moves import local_moves
from ipirm_mm.partition.objective import BlockedObjective, ObjectiveOptions

# Three seeds in `make test`, all ten in `make test-all`.
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))]


def planted(images=300, width=16, seed=0, strengths=(1.5,), noise=0.25):
    """Unit features with two-valued factors along random directions, and two noisy views."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    factors = torch.stack([torch.randperm(images, generator=generator) % 2 for _ in strengths])
    content = 0.35 * torch.randn(images, width, generator=generator)
    for factor, strength, direction in zip(factors, strengths, directions):
        content = content + strength * (2 * factor[:, None] - 1) * direction
    views = [
        F.normalize(content + noise * torch.randn(images, width, generator=generator), dim=1)
        for _ in range(2)
    ]
    return (*views, factors)


def agreement(assignment, factor):
    share = (assignment == factor).double().mean().item()
    return max(share, 1 - share)


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize(
    'strengths,balance',
    [
        ((1.5,), 'relaxed'),
        ((1.5, 0.75), 'relaxed'),
        ((1.2, 1.0, 0.8), 'relaxed'),
        # With a weaker factor, the maximum under the relaxed balance is often a split of 2:1,
        # which cannot agree with an even factor on more than 83 % of the images.
        ((0.8,), 'strict'),
        ((0.8, 0.7, 0.6), 'strict'),
        ((0.9, 0.9, 0.9), 'strict'),
    ],
)
def test_finds_a_planted_factor(strengths, balance, seed):
    z1, z2, factors = planted(strengths=strengths, seed=seed)
    result = PartitionSolver(balance=balance).solve(z1, z2, seed=seed)
    assert max(agreement(result.assignment, factor) for factor in factors) >= 0.95


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('strengths', [(0.8,), (0.8, 0.7, 0.6), (0.9, 0.9, 0.9)])
def test_a_weak_factor_is_missed_only_for_a_higher_objective(strengths, seed):
    z1, z2, factors = planted(strengths=strengths, seed=seed)
    result = PartitionSolver().solve(z1, z2, seed=seed)
    known = PartitionSolver(strategy='factor')
    best = max(known.solve(z1, z2, factor=factor).objective for factor in factors)
    if max(agreement(result.assignment, factor) for factor in factors) < 0.95:
        assert result.objective > best
    assert result.objective > best - 0.005


@pytest.mark.parametrize(
    'seed', [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]
)
@pytest.mark.parametrize(
    'images',
    [60, pytest.param(300, marks=pytest.mark.slow)],  # 1 block, 3 blocks
)
@pytest.mark.parametrize('penalty', ['vector', 'scalar'])
@pytest.mark.parametrize('num_subsets', [2, 5])
def test_never_below_the_authors_optimizer(num_subsets, penalty, images, seed):
    z1, z2, _ = planted(images=images, seed=seed, strengths=(0.6, 0.5))
    options = dict(num_subsets=num_subsets, penalty=penalty, block_size=128)
    ours = PartitionSolver(**options).solve(z1, z2, seed=seed)
    authors = PartitionSolver(strategy='authors', **options).solve(z1, z2, seed=seed)
    assert ours.objective >= authors.objective
    assert 52 <= len(authors.history) <= 61  # it stops early


@pytest.mark.parametrize('num_subsets', [2, 3])
# Five blocks, and 13.
@pytest.mark.parametrize('block_size', [100, pytest.param(40, marks=pytest.mark.slow)])
def test_partition_of_several_blocks_holds_in_other_blocks(num_subsets, block_size):
    """Moves of single images in each block would not: they lower the objective elsewhere."""
    z1, z2, _ = planted(images=500, strengths=(0.5,))
    options = dict(num_subsets=num_subsets, block_size=block_size)
    result = PartitionSolver(**options).solve(z1, z2)

    def elsewhere(assignment):
        values = []
        for seed in range(1, 6):
            objective = BlockedObjective.divide(
                z1[None], z2[None], ObjectiveOptions(**options), seed
            )
            values += objective.values([assignment])
        return sum(values) / len(values)

    random = PartitionSolver(strategy='random', **options).solve(z1, z2)
    gain = result.objective - random.objective
    assert gain > 0.02
    assert elsewhere(result.assignment) - elsewhere(random.assignment) > 0.9 * gain


@pytest.mark.parametrize('num_subsets', [pytest.param(2, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize('block_size', [pytest.param(1000, marks=pytest.mark.slow), 120])
def test_relaxed_balance_keeps_subsets_near_the_bound(num_subsets, block_size):
    """A tight group of images gains more than the balance term subtracts."""
    z1, z2, _ = planted(images=300, strengths=(0.5,))
    tight = F.normalize(torch.randn(2, 16, generator=torch.Generator().manual_seed(9)), dim=1)
    z1, z2 = z1.clone(), z2.clone()
    z1[:12] = F.normalize(0.05 * z1[:12] + tight[0], dim=1)
    z2[:12] = F.normalize(0.05 * z2[:12] + tight[0], dim=1)
    group = (torch.arange(300) < 12).long()
    bound = 0.75 * 300 / (num_subsets + 1)
    options = dict(num_subsets=num_subsets, block_size=block_size)
    result = PartitionSolver(**options).solve(z1, z2)
    assert min(result.sizes) >= int(bound)
    if num_subsets == 2 and block_size == 1000:
        known = PartitionSolver(strategy='factor').solve(z1, z2, factor=group)
        assert known.objective > result.objective  # so the limit acts
    free = PartitionSolver(balance='none', **options).solve(z1, z2)
    assert min(free.sizes) < bound


@pytest.mark.parametrize('block_size', [1000, pytest.param(64, marks=pytest.mark.slow)])
def test_several_draws_are_averaged(block_size):
    z1, z2, _ = planted(images=160)
    w1, w2, _ = planted(images=160, noise=0.6)
    solver = PartitionSolver(strategy='random', block_size=block_size)
    both = solver.solve(torch.stack((z1, w1)), torch.stack((z2, w2)), seed=3)
    apart = [solver.solve(*views, seed=3) for views in ((z1, z2), (w1, w2))]
    assert torch.equal(both.assignment, apart[0].assignment)
    mean = sum(result.objective for result in apart) / 2
    assert both.objective == pytest.approx(mean, abs=1e-5)
    for strategy in ('local', 'authors', 'kmeans'):
        solver = PartitionSolver(strategy=strategy, block_size=block_size)
        result = solver.solve(torch.stack((z1, w1)), torch.stack((z2, w2)))
        assert sum(result.sizes) == 160
        # The same draw twice is that draw.
        twice = solver.solve(torch.stack((z1, z1)), torch.stack((z2, z2)))
        once = solver.solve(z1, z2)
        assert twice.objective == pytest.approx(once.objective, abs=1e-3)


@pytest.mark.parametrize('images,exact', [(320, True), (640, False)])
def test_objective_is_estimated_on_eight_blocks_where_it_is_not_needed(images, exact):
    z1, z2, (factor, *_) = planted(images=images, strengths=(0.5,))
    z1, z2 = (torch.stack((z, z.flip(0))) for z in (z1, z2))
    objective = BlockedObjective.divide(z1, z2, ObjectiveOptions(block_size=40), seed=0)
    (whole,) = objective.values([factor])
    estimate = PartitionSolver(strategy='factor', block_size=40).solve(z1, z2, 0, factor).objective
    assert estimate == pytest.approx(whole, abs=1e-6 if exact else 0.05)
    assert exact or abs(estimate - whole) > 1e-6


def test_objective_is_that_of_the_definition():
    z1, z2, _ = planted(images=80)
    result = PartitionSolver(num_subsets=3).solve(z1, z2, previous=torch.zeros(1, 80).byte())
    weights = F.one_hot(result.assignment, 3).float()
    expected = soft_partition_objective(z1, z2, weights)
    assert result.objective == pytest.approx(expected.item(), rel=1e-5)
    assert result.history == sorted(result.history)
    assert result.sizes == torch.bincount(result.assignment, minlength=3).tolist()
    assert result.nmi == [0.0]


@pytest.mark.parametrize('strategy', ['local', 'authors', 'kmeans', 'random', 'factor'])
def test_same_seed_same_partition_and_global_generator_untouched(strategy):
    z1, z2, factors = planted(images=90)
    solver = PartitionSolver(num_subsets=2, strategy=strategy, block_size=40)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = solver.solve(z1, z2, seed=4, factor=factors[0])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = solver.solve(z1, z2, seed=4, factor=factors[0])
    assert torch.equal(first.assignment, second.assignment)
    assert first.objective == second.objective
    assert first.strategy.startswith(strategy)


def test_random_is_balanced_and_factor_is_the_factor():
    z1, z2, factors = planted(images=90)
    assert PartitionSolver(20, strategy='random').solve(z1, z2).sizes == [5] * 10 + [4] * 10
    result = PartitionSolver(strategy='factor').solve(z1, z2, factor=factors[0])
    assert torch.equal(result.assignment, factors[0])


def test_progress_is_reported():
    z1, z2, _ = planted(images=40)
    seen = []
    PartitionSolver(starts=['kmeans']).solve(z1, z2, progress=lambda *args: seen.append(args))
    assert seen[-1] == (1.0, 'done') and all(0 <= fraction <= 1 for fraction, _ in seen)
    for options in (dict(strategy='authors'), dict(starts=['pca', 'authors', 'random'])):
        seen.clear()
        PartitionSolver(epochs=4, **options).solve(
            z1, z2, progress=lambda *args: seen.append(args)
        )
        fractions = [fraction for fraction, _ in seen]
        assert fractions == sorted(fractions) and fractions[-1] == 1 and len(set(fractions)) >= 4


def test_authors_optimizer_keeps_the_weights_of_the_best_epoch():
    # After one epoch, the objective has only been evaluated at the initial logits (in the first
    # block at least).
    z1, z2, _ = planted(images=90)
    for block_size in (90, 40):
        solver = PartitionSolver(strategy='authors', epochs=1, block_size=block_size)
        generator = torch.Generator().manual_seed(5)
        logits = torch.randn(90, 2, generator=generator)
        if block_size == 90:
            assert torch.equal(solver.solve(z1, z2, seed=5).assignment, logits.argmax(1))
            continue
        first = torch.randperm(90, generator=generator)[:block_size]
        found = solver.solve(z1, z2, seed=5).assignment
        assert torch.equal(found[first], logits.argmax(1)[first])


def test_empty_subsets_do_not_stop_the_moves():
    z1, z2, factors = planted(images=60)
    for assignment in (torch.zeros(60).long(), factors[0]):
        options = ObjectiveOptions(num_subsets=4)
        objective = BlockedObjective.divide(z1[None], z2[None], options, seed=0)
        _, gradient = objective.value_and_gradient(assignment)
        assert torch.isfinite(gradient).all() and gradient.abs().max() < 10
        found, history = local_moves(objective, assignment)
        assert len(found.unique()) == 4
        assert history[-1] > history[0]


def test_as_many_subsets_as_clusters():
    """The cluster search then ends with subsets that have no cluster."""
    z1, z2, _ = planted(images=60)
    result = PartitionSolver(num_subsets=12, starts=['clusters']).solve(z1, z2)
    assert min(result.sizes) >= int(0.75 * 60 / 13)


@pytest.mark.parametrize(
    'options,message',
    [
        (dict(num_subsets=1), 'num_subsets must be from 2 to 256, but is 1'),
        (dict(strategy='best'), "strategy must be one of .* but is 'best'"),
        (dict(starts=['ica']), r"starts must be a list of .* but is \['ica'\]"),
        (dict(starts=[]), r'starts must be a list of at least one of .* but is \[\]'),
        (dict(penalty='x'), "penalty must be one of .* but is 'x'"),
        (dict(balance='x'), "balance must be one of .* but is 'x'"),
        (dict(block_size=1), 'block_size must be at least 2, but is 1'),
        (dict(temperature=0), 'must be positive'),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        PartitionSolver(**options)


def test_bad_features():
    z1, z2, _ = planted(images=20)
    with pytest.raises(UserError, match='num_subsets is 21, but there are only 20 images'):
        PartitionSolver(21).solve(z1, z2)
    with pytest.raises(UserError, match='not finite'):
        PartitionSolver().solve(z1 * float('nan'), z2)
    with pytest.raises(UserError, match='needs the factor of each image'):
        PartitionSolver(strategy='factor').solve(z1, z2)
    with pytest.raises(UserError, match='one integer for each of the 20 images'):
        PartitionSolver(strategy='factor').solve(z1, z2, factor=torch.zeros(19).long())
    with pytest.raises(UserError, match='must both be'):
        PartitionSolver().solve(z1, z2[:-1])
