"""Step 2 of IP-IRM: find a partition (report Eq. 3)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.functional._common import PENALTIES, at_least_float32
from ipirm_mm.functional.information import normalized_mutual_information
from ipirm_mm.functional.partition import (
    BALANCES,
    SimilarityBlock,
    balance_term,
    block_objective,
    similarity_block,
)

from .cluster_search import ClusterObjective, search_clusters
from .kmeans import cluster_means, kmeans
from .partition_set import MAX_SUBSETS

STRATEGIES = ('local', 'authors', 'kmeans', 'random', 'factor')
STARTS = ('authors', 'kmeans', 'clusters', 'pca', 'random')
# Bytes of similarities that are kept between evaluations; making them costs ten evaluations.
_KEPT_BYTES = 2 * 2**30
# The start 'clusters': how many clusters a subset, one search each, since a semantic may be whole
# in one k-means and not in the next; how many of the first blocks are searched, since splits that
# differ much can be within 0.0002 of each other in one block, and 0.008 apart on all; images of a
# sample, at most a block, that is searched before; ways to deal the clusters out that the search
# of the sample looks at, for each image (that of the blocks takes as long); and how many results
# are compared on all images.
_CLUSTERS = (10, 10, 15, 15, 20, 20, 30, 30, 7, 7, 5, 5)
_CLUSTER_BLOCKS, _CLUSTER_IMAGES, _CLUSTER_BUDGET, _CLUSTER_RESULTS = 8, 2048, 30, 8
# The NMI from which two partitions are one.
_SAME_NMI = 0.9

Progress = Callable[[float, str], None]


@dataclass
class PartitionResult:
    """A partition and how it was found.

    Attributes:
        assignment: Subset of each image, ``(N,)`` long.
        objective: Objective of the hard partition (report Eq. 3, balance included).
        history: Objective after each accepted step of the winning start; for ``'authors'`` the
            mean soft objective of each epoch.
        strategy: Which strategy, and for ``'local'`` which start, e.g. ``'local (kmeans)'``.
        sizes: Number of images of each subset.
        nmi: Normalised mutual information with each earlier partition.
        seconds: Time it took.
    """

    assignment: Tensor
    objective: float
    history: list[float]
    strategy: str = ''
    sizes: list[int] = field(default_factory=list)
    nmi: list[float] = field(default_factory=list)
    seconds: float = 0.0


class PartitionSolver:
    r"""Find the partition of a data set that maximises the objective, or another.

    Strategies:

    * ``'local'`` (default): from each of ``starts``, hard local moves. At a hard partition the
      gradient of the objective with respect to the weights tells what each image would gain in
      another subset; the best 20 % of the positive gains move at once if the objective rises,
      otherwise half as many, until fewer than 0.02 % of the images would move. The best start
      wins.
    * ``'authors'``: the authors' optimiser, Adam on the logits of a soft partition: learning rate
      0.5, times 0.2 after epochs 5 and 35, standard normal start, 61 epochs, blocks of a new
      permutation each epoch, the best epoch's logits kept, then the argmax.
    * ``'kmeans'``: k-means on the mean of the two views' projections, without the objective.
    * ``'random'``: random subsets of equal size (a control).
    * ``'factor'``: a known factor of the images, modulo K (a control).

    For more images than ``block_size`` the objective is the mean over the blocks of one fixed
    random division, and the balance that of the whole. ``'local'`` then looks for partitions in
    the first blocks, eight for clusters and one for the other starts, carries them over to all
    images (clusters by their means, the others by a linear fit to the features), and keeps the one
    that is best there. It moves no single images after that: moves fit the division, and the
    objective falls in any other.

    With ``balance='relaxed'`` the term of the objective does not keep a split near 2:1: a small,
    tight group of images against the rest can have more than it takes off. Local moves therefore
    make no subset smaller than three quarters of its least share at the bound, ``1 / (K + 1)``.
    Within that limit, and in one block, ``'local'`` never ends below ``'authors'`` with the same
    seed, as long as that is a start.

    Args:
        num_subsets: Number of subsets *K*. Defaults to 2 (the authors' ``env_num``).
        temperature: Temperature of the loss. Defaults to 0.5 (report).
        irm_weight: :math:`\lambda_2`. Defaults to 0.5 (report).
        penalty: ``'vector'`` or ``'scalar'``. Defaults to ``'vector'``.
        balance: ``'relaxed'``, ``'strict'`` or ``'none'``. Defaults to ``'relaxed'``.
        irm_temperature: Temperature of the penalty; None means ``temperature``.
        strategy: See above. Defaults to ``'local'``.
        starts: Starts of ``'local'``: ``'authors'``, ``'kmeans'``, ``'clusters'`` (k-means into
            5 to 30 clusters a subset, then a search over which subset each cluster belongs to),
            ``'pca'`` (quantiles along each of the first three principal components) and
            ``'random'``. Defaults to all.
        block_size: Images a block. Defaults to 3096 (authors' code).
        epochs: Epochs of the authors' optimiser. Defaults to 61 (authors' code).

    Raises:
        UserError: If an option has a value that does not exist.
    """

    def __init__(
        self,
        num_subsets: int = 2,
        temperature: float = 0.5,
        irm_weight: float = 0.5,
        penalty: str = 'vector',
        balance: str = 'relaxed',
        irm_temperature: float | None = None,
        strategy: str = 'local',
        starts: Sequence[str] = STARTS,
        block_size: int = 3096,
        epochs: int = 61,
    ) -> None:
        if not 2 <= num_subsets <= MAX_SUBSETS:
            raise UserError(f'num_subsets must be from 2 to {MAX_SUBSETS}, but is {num_subsets}')
        for name, value, allowed in (
            ('penalty', penalty, PENALTIES),
            ('balance', balance, BALANCES),
            ('strategy', strategy, STRATEGIES),
            *(('starts', start, STARTS) for start in starts),
        ):
            if value not in allowed:
                raise UserError(f'PartitionSolver.{name} must be of {allowed}, but is {value!r}')
        for name, number, least in (
            ('starts', len(starts), 1),
            ('block_size', block_size, 2),
            ('epochs', epochs, 1),
        ):
            if number < least:
                raise UserError(
                    f'PartitionSolver.{name} must be at least {least}, but is {number}'
                )
        if temperature <= 0 or (irm_temperature is not None and irm_temperature <= 0):
            raise UserError(
                'PartitionSolver.temperature and irm_temperature must be positive, but are '
                f'{temperature} and {irm_temperature}'
            )
        self.num_subsets = num_subsets
        self.temperature = temperature
        self.irm_weight = irm_weight
        self.penalty = penalty
        self.balance = balance
        self.irm_temperature = irm_temperature
        self.strategy = strategy
        self.starts = tuple(starts)
        self.block_size = block_size
        self.epochs = epochs

    def solve(
        self,
        z1: Tensor,
        z2: Tensor,
        seed: int = 0,
        factor: Tensor | None = None,
        previous: Tensor | None = None,
        progress: Progress | None = None,
    ) -> PartitionResult:
        """Find a partition.

        Args:
            z1: Projections of the first view, ``(N, D)``, rows of unit norm; or of several draws
                of the augmentation, ``(M, N, D)``, over which the objective is averaged (the
                authors' optimiser takes the next one in each epoch).
            z2: Projections of the second view, alike.
            seed: Seed; the global generators are left alone. Defaults to 0.
            factor: Known factor of each image, ``(N,)`` integers, for ``strategy='factor'``;
                values are taken modulo K.
            previous: Earlier partitions, ``(P, N)``, to report the NMI with.
            progress: Called with the fraction done and a text.

        Returns:
            :class:`PartitionResult`.

        Raises:
            UserError: If there are fewer images than subsets, features are not finite, or the
                factor is missing or of other images.
        """
        began = time.perf_counter()
        if z1.ndim not in (2, 3) or z1.shape != z2.shape:
            raise UserError(
                'the features of the two views must both be (images, width), or (draws, images, '
                f'width), but their shapes are {tuple(z1.shape)} and {tuple(z2.shape)}'
            )
        if z1.ndim == 2:
            z1, z2 = z1[None], z2[None]
        images = z1.shape[1]
        if images < self.num_subsets:
            raise UserError(
                f'num_subsets is {self.num_subsets}, but there are only {images} images: a '
                'partition needs at least one image a subset'
            )
        if not bool(torch.isfinite(z1).all() & torch.isfinite(z2).all()):
            raise UserError(
                'the features have values that are not finite: the encoder has diverged, lower '
                'the learning rate'
            )
        z1, z2 = at_least_float32(z1.detach()), at_least_float32(z2.detach())
        report = progress or (lambda fraction, text: None)
        problem = _Problem.divide(self, z1, z2, seed)
        generator = torch.Generator().manual_seed(seed)

        strategy = self.strategy
        history: list[float] = []
        if strategy == 'factor':
            assignment = self._factor(factor, problem)
        elif strategy == 'local':
            assignment, history, start = self._local(problem, generator, report)
            strategy = f'local ({start})'
        else:
            assignment, history = self._start(strategy, problem, generator, report)
        if self.strategy == 'local':
            objective = history[-1]
        else:
            (objective,) = problem.objectives([assignment])
        report(1.0, 'done')
        sizes = torch.bincount(assignment, minlength=self.num_subsets).tolist()
        nmi = (
            []
            if previous is None
            else [
                float(normalized_mutual_information(assignment, row.to(assignment)))
                for row in previous
            ]
        )
        return PartitionResult(
            assignment,
            objective,
            history or [objective],
            strategy,
            sizes,
            nmi,
            time.perf_counter() - began,
        )

    def _factor(self, factor: Tensor | None, problem: _Problem) -> Tensor:
        """The partition by a known factor."""
        images = len(problem.mean)
        if factor is None:
            raise UserError(
                "PartitionSolver.strategy='factor' needs the factor of each image: have the "
                'data pipeline set it (TintByFactor) and pack it, PackInputs(meta_keys='
                "('sample_idx', 'factor'))"
            )
        if factor.shape != (images,):
            raise UserError(
                f'factor must be one integer for each of the {images} images, but its shape '
                f'is {tuple(factor.shape)}'
            )
        return factor.to(problem.z1.device, torch.long) % self.num_subsets

    def _start(
        self, name: str, problem: _Problem, generator: torch.Generator, report: Progress
    ) -> tuple[Tensor, list[float]]:
        """A partition that is a strategy of its own or a start of ``'local'``, and its history."""
        mean = problem.mean
        if name == 'authors':
            # A generator of its own makes it the same as a start and as a strategy.
            own = torch.Generator().manual_seed(generator.initial_seed())
            return self._authors(problem, own, report)
        if name == 'kmeans':
            return kmeans(mean, self.num_subsets, generator), []
        if name == 'random':  # of equal size, up to one image
            order = torch.randperm(len(mean), generator=generator).to(mean.device)
            return order % self.num_subsets, []
        centred = mean - mean.mean(0)
        # The covariance is (D, D): cheaper than a decomposition of all images.
        _, vectors = torch.linalg.eigh(centred.T @ centred)
        rank = (centred @ vectors[:, -int(name.split()[1])]).argsort().argsort()
        return rank * self.num_subsets // len(rank), []

    def _local(
        self, problem: _Problem, generator: torch.Generator, report: Progress
    ) -> tuple[Tensor, list[float], str]:
        """The best of the partitions from all starts, its history and its start."""
        # One block is enough to tell what the subsets of a good partition have in common; which
        # partition is the best, all images tell.
        first = problem.first(1)
        names: list[str] = []
        for start in self.starts:
            components = range(1, min(3, problem.mean.shape[1]) + 1)
            names += [f'pca {number}' for number in components] if start == 'pca' else [start]
        # About how long each takes, for the time left.
        efforts = [{'clusters': 12, 'authors': 4}.get(name, 1) for name in names]
        results: list[tuple[Tensor, list[float], str]] = []
        for number, name in enumerate(names):
            before, of = sum(efforts[:number]), sum(efforts)
            report_start = partial(_report_part, report, before / of, efforts[number] / of)
            if name == 'clusters':
                starts = self._clusters(problem, generator, report_start)
            else:
                starts = [self._start(name, first, generator, report_start)[0]]
            for assignment in starts:
                history: list[float] = []
                # Of several blocks, moves of all images would fit the division into these.
                if len(assignment) == len(first.mean):
                    assignment, history = self._moves(first, first.within_bound(assignment))
                if len(assignment) < len(problem.mean):
                    assignment = problem.extend(assignment)
                results.append((assignment, history, name))
            report_start(1.0, name)
        if first is not problem:
            candidates = [assignment for assignment, *_ in results]
            kept = _distinct(candidates, len(candidates))
            values = problem.objectives([candidates[number] for number in kept])
            results = [(candidates[n], [value], results[n][2]) for n, value in zip(kept, values)]
        return max(results, key=lambda result: result[1][-1])

    def _moves(self, problem: _Problem, assignment: Tensor) -> tuple[Tensor, list[float]]:
        """Hard local moves until no move of 0.02 % of the images raises the objective.

        Args:
            problem: The problem.
            assignment: Partition to start from, ``(N,)``.

        Returns:
            The partition, and the objective after each step.
        """
        value, gradient = problem.objective_and_gradient(assignment)
        history = [value]
        fraction = 0.2
        while True:
            gain, target = (gradient - gradient.gather(1, assignment[:, None])).max(1)
            gaining = (gain > 0).nonzero().flatten()
            count = int(fraction * len(gaining))
            if count < max(1, 0.0002 * len(assignment)):
                return assignment, history
            movers = gaining[gain[gaining].topk(count).indices]
            moved = assignment.clone()
            moved[movers] = target[movers]
            if problem.allows(moved, assignment):
                new_value, new_gradient = problem.objective_and_gradient(moved)
                if new_value > value:
                    assignment, value, gradient = moved, new_value, new_gradient
                    history.append(value)
                    continue
            fraction /= 2

    def _clusters(
        self, problem: _Problem, generator: torch.Generator, report: Progress
    ) -> list[Tensor]:
        """Partitions that keep clusters whole: the best that a search finds for each number."""
        subsets, part = self.num_subsets, problem.first(_CLUSTER_BLOCKS)
        images = len(part.mean)
        chosen = torch.randperm(images, generator=generator)
        chosen = chosen[: min(_CLUSTER_IMAGES, len(part.index[0]))].sort().values
        chosen = chosen.to(part.mean.device)
        sample = part.part([chosen])
        # Without the large matrices of the vector dummy, which the search leaves out.
        blocks = [
            similarity._replace(weighted_after=None, weighted_before=None)
            for block in range(len(part.index))
            for similarity in part.similarities(block)
        ]
        places = [index for index in part.index for _ in part.z1]
        budget = _CLUSTER_BUDGET * len(chosen)
        found: list[tuple[float, Tensor]] = []
        for number, per_subset in enumerate(_CLUSTERS):
            # Each has about ten images or more among those that the search looks at, on average.
            count = max(subsets, min(per_subset * subsets, len(chosen) // 10))
            cluster = kmeans(part.mean, count, generator)
            options = (count, subsets, self.irm_weight, self.balance)
            quick = ClusterObjective(sample.similarities(0)[:1], [cluster[chosen]], *options)
            whole = ClusterObjective(blocks, [cluster[place] for place in places], *options)
            deals = search_clusters(quick, generator, sample.least, budget)
            if len(chosen) < images:
                kept = _distinct([deal[cluster] for deal in deals], _CLUSTER_RESULTS)
                starts = [deals[best] for best in kept]
                steps = budget * len(chosen) // images
                deals = search_clusters(whole, generator, part.least, steps, starts)
            kept = _distinct([deal[cluster] for deal in deals], _CLUSTER_RESULTS)
            best = [deals[place] for place in kept]
            values = whole(torch.stack(best)).tolist()
            found += zip(values, problem.deal_out(best, cluster))
            report((number + 1) / len(_CLUSTERS), f'clusters: {len(deals)} deals of {count}')
        found.sort(key=lambda result: -result[0])
        partitions = [assignment for _, assignment in found]
        return [partitions[number] for number in _distinct(partitions, _CLUSTER_RESULTS)]

    def _authors(
        self, problem: _Problem, generator: torch.Generator, report: Progress
    ) -> tuple[Tensor, list[float]]:
        """The authors' optimiser of the soft partition."""
        draws, images, device = *problem.z1.shape[:2], problem.z1.device
        logits = torch.randn(images, self.num_subsets, generator=generator).to(problem.z1)
        logits.requires_grad_()
        optimizer = torch.optim.Adam([logits], lr=0.5)
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [5, 35], gamma=0.2)
        best_value, best_logits = -float('inf'), logits.detach().clone()
        history = []
        whole = images <= self.block_size
        for epoch in range(self.epochs):
            # With one block a permutation changes only the order of the vector dummy's columns.
            order = torch.arange(images) if whole else torch.randperm(images, generator=generator)
            total = 0.0
            # The logits that gave this epoch's value, block by block, not those that steps made of
            # them (each step of Adam moves the logits of all images).
            used = torch.empty_like(logits)
            for index in order.to(device).split(self.block_size):
                used[index] = logits.detach()[index]
                if len(index) < 2:
                    continue
                draw = epoch % draws
                block = problem.similarities(0)[draw] if whole else problem.block(index, draw)
                weights = logits[index].softmax(1)
                objective = block_objective(block, weights, self.irm_weight)
                objective = objective + balance_term(weights.mean(0), self.balance)
                optimizer.zero_grad()
                (-objective).backward()
                optimizer.step()
                total += float(objective.detach()) * len(index)
            scheduler.step()
            history.append(total / images)
            if history[-1] > best_value:
                best_value, best_logits = history[-1], used
            report(
                (epoch + 1) / self.epochs,
                f'authors: epoch {epoch + 1}/{self.epochs}, objective {history[-1]:.4f}',
            )
        return best_logits.argmax(1), history


def _distinct(assignments: Sequence[Tensor], most: int) -> list[int]:
    """Which of some partitions, best first, are no earlier one again; at most so many."""
    kept: list[int] = []
    for number, assignment in enumerate(assignments):
        same = (normalized_mutual_information(assignment, assignments[other]) for other in kept)
        if len(kept) < most and not any(float(nmi) > _SAME_NMI for nmi in same):
            kept.append(number)
    return kept


def _report_part(report: Progress, begin: float, share: float, fraction: float, text: str) -> None:
    report(begin + share * fraction, text)


class _Problem:
    """The objective of hard partitions of a set of features, block by block.

    Args:
        solver: The solver, for its options.
        z1: Projections of the first view, ``(M, N, D)``, of M draws.
        z2: Projections of the second view, alike.
        index: Images of each block.
    """

    def __init__(
        self, solver: PartitionSolver, z1: Tensor, z2: Tensor, index: Sequence[Tensor]
    ) -> None:
        self.solver = solver
        self.z1, self.z2 = z1, z2
        self.mean = F.normalize((z1 + z2).sum(0), dim=1)  # of the draws and the two views
        self.index = index
        self.order = torch.cat(tuple(index))  # the images, block by block
        self.kept: dict[int, list[SimilarityBlock]] = {}
        images, subsets = len(self.mean), solver.num_subsets
        # With the relaxed balance: three quarters of the least share at its bound.
        relaxed = solver.balance == 'relaxed'
        self.least = int(0.75 * images / (subsets + 1)) if relaxed else 0

    @classmethod
    def divide(cls, solver: PartitionSolver, z1: Tensor, z2: Tensor, seed: int) -> _Problem:
        """The problem of all images, in random blocks of almost equal sizes."""
        images = z1.shape[1]
        blocks = max(1, -(-images // solver.block_size))
        if blocks == 1:
            order = torch.arange(images)
        else:
            order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
        # Sorted within a block; equal sizes, so that no block is left with one image.
        index = [part.sort().values.to(z1.device) for part in order.tensor_split(blocks)]
        return cls(solver, z1, z2, index)

    def part(self, blocks: Sequence[Tensor]) -> _Problem:
        """The problem of the images of some blocks, in their order."""
        images = torch.cat(tuple(blocks))
        places = torch.arange(len(images), device=images.device)
        index = places.split([len(block) for block in blocks])
        return _Problem(self.solver, self.z1[:, images], self.z2[:, images], index)

    def first(self, blocks: int) -> _Problem:
        """The problem of the first blocks; itself, if there are no more."""
        return self if len(self.index) <= blocks else self.part(self.index[:blocks])

    def extend(self, assignment: Tensor) -> Tensor:
        """Carry a partition of the first blocks over to all images, by a linear fit.

        What sets those blocks apart is smoothed out, so that the objective of the result is that
        of any other blocks too.
        """
        first = self.order[: len(assignment)]
        ones = self.mean.new_ones(len(self.mean), 1)
        features = torch.cat((self.mean, ones), 1).double()
        known = features[first]
        target = F.one_hot(assignment, self.solver.num_subsets).double()
        ridge = 1e-3 * len(first) / features.shape[1]
        gram = known.T @ known + ridge * torch.eye(known.shape[1]).to(known)
        fit = features @ torch.linalg.solve(gram, known.T @ target)
        least = max(self.least, 1)
        return self.raise_small(fit.argmax(1), fit, least, least)

    def deal_out(self, deals: Sequence[Tensor], cluster: Tensor) -> list[Tensor]:
        """Partitions of all images by the subset of each cluster.

        Args:
            deals: Subset of each cluster, ``(C,)`` each.
            cluster: Cluster of each image of the first blocks, or of all; other images belong to
                the one whose mean is nearest.
        """
        everywhere = len(cluster) == len(self.mean)
        known = self.mean if everywhere else self.mean[self.order[: len(cluster)]]
        distance = torch.cdist(self.mean, cluster_means(known, cluster, len(deals[0])))
        if not everywhere:
            cluster = distance.argmin(1)
        partitions = []
        for deal in deals:
            nearest = [distance[:, deal == k].amin(1) for k in range(self.solver.num_subsets)]
            scores = -torch.stack(nearest, 1)
            # Small on all images, though not among those that a search looked at.
            partitions.append(self.raise_small(deal[cluster], scores, self.least, self.least))
        return partitions

    def allows(self, moved: Tensor, assignment: Tensor) -> bool:
        """Whether a move makes no subset too small, or smaller than it was if it is already."""
        if not self.least:
            return True
        subsets = self.solver.num_subsets
        before, after = (torch.bincount(a, minlength=subsets) for a in (assignment, moved))
        return bool((after >= before.clamp(max=self.least)).all())

    def within_bound(self, assignment: Tensor) -> Tensor:
        """Raise subsets that are too small to the bound, by the images that lose least by it."""
        subsets = self.solver.num_subsets
        target = -(-len(assignment) // (subsets + 1))
        sizes = torch.bincount(assignment, minlength=subsets)
        if int(sizes.min()) >= self.least:
            return assignment
        _, gradient = self.objective_and_gradient(assignment)
        return self.raise_small(assignment, gradient, self.least, target)

    def raise_small(self, assignment: Tensor, scores: Tensor, least: int, target: int) -> Tensor:
        """Raise subsets under ``least`` to ``target``, by the images that lose least of scores.

        Args:
            assignment: A partition, ``(N,)``.
            scores: Score of each image in each subset, ``(N, K)``.
            least: Size from which a subset is left as it is.
            target: Size that a smaller one gets, out of the largest one of the time.
        """
        subsets = self.solver.num_subsets
        assignment = assignment.clone()
        sizes = torch.bincount(assignment, minlength=subsets)
        for small in (sizes < least).nonzero().flatten().tolist():
            while (need := target - int(sizes[small])) > 0:
                largest = int(sizes.argmax())
                donors = (assignment == largest).nonzero().flatten()
                gain = scores[donors, small] - scores[donors, largest]
                count = min(need, len(donors) - target)
                if count < 1:  # too few images for so many subsets
                    return assignment
                assignment[donors[gain.topk(count).indices]] = small
                sizes = torch.bincount(assignment, minlength=subsets)
        return assignment

    def block(self, index: Tensor, draw: int) -> SimilarityBlock:
        solver = self.solver
        return similarity_block(
            self.z1[draw, index],
            self.z2[draw, index],
            solver.temperature,
            solver.irm_temperature,
            solver.penalty,
        )

    def similarities(self, number: int) -> list[SimilarityBlock]:
        """Those of a block, one a draw; as many blocks as fit are kept, and the last one."""
        if number not in self.kept:
            index, draws = self.index[number], len(self.z1)
            # Two matrices of (2B, 2B) and one of half that size.
            size = 10 * draws * len(index) ** 2 * self.z1.element_size()
            while self.kept and (len(self.kept) + 1) * size > _KEPT_BYTES:
                del self.kept[next(reversed(self.kept))]
            self.kept[number] = [self.block(index, draw) for draw in range(draws)]
        return self.kept[number]

    def objectives(self, assignments: list[Tensor]) -> list[float]:
        """Objectives of several hard partitions; each block is made once for all of them."""
        solver = self.solver
        weights = [F.one_hot(a, solver.num_subsets).to(self.mean.dtype) for a in assignments]
        values = [float(balance_term(w.mean(0), solver.balance)) for w in weights]
        for number, index in enumerate(self.index):
            similarities = self.similarities(number)
            share = len(index) / len(self.mean) / len(similarities)
            for place, w in enumerate(weights):
                risks = [block_objective(s, w[index], solver.irm_weight) for s in similarities]
                values[place] += share * float(sum(risks))
        return values

    @torch.enable_grad()
    def objective_and_gradient(self, assignment: Tensor) -> tuple[float, Tensor]:
        """Objective of a hard partition, ``(N,)``, and its gradient by the weights, ``(N, K)``."""
        solver = self.solver
        weights = F.one_hot(assignment, solver.num_subsets).to(self.mean.dtype).requires_grad_()
        balance = balance_term(weights.mean(0), solver.balance)
        (gradient,) = (
            torch.autograd.grad(balance, weights)
            if balance.requires_grad
            else (torch.zeros_like(weights),)
        )
        value = float(balance.detach())
        for number, index in enumerate(self.index):
            similarities = self.similarities(number)
            share = len(index) / len(assignment) / len(similarities)
            for similarity in similarities:
                part = weights.detach()[index].requires_grad_()
                objective = block_objective(similarity, part, solver.irm_weight)
                (part_gradient,) = torch.autograd.grad(share * objective, part)
                gradient[index] += part_gradient
                value += share * float(objective.detach())
        return value, gradient
