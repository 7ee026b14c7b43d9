"""Step 2 of IP-IRM: find a partition that maximizes the objective (report Eq. 3)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice

import torch
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.functional._common import PENALTIES, at_least_float32
from ipirm_mm.functional.information import normalized_mutual_information
from ipirm_mm.functional.mixup_partition import QUERY_WEIGHTS
from ipirm_mm.functional.partition import BALANCES
from ipirm_mm.options import check_one_of, check_positive, check_whole

from .candidates import (
    Candidate,
    Start,
    distinct_partitions,
    number_in_order,
    pack,
    share_out,
    unpack,
)
from .cluster_start import ClusterSearch
from .expand import extend_by_linear_fit
from .local_moves import enforce_min_size, local_moves
from .mixing import Mixing
from .objective import BlockedObjective, ObjectiveOptions
from .partition_set import MAX_SUBSETS
from .sharing import Progress, Share, Task, ignore_progress, one_by_one, report_part
from .starts import STARTS, factor_subsets, optimize_soft_partition

STRATEGIES = ('local', 'authors', 'kmeans', 'random', 'factor')
# Where the starts and the local moves of 'local' end on the progress bar.
_SEARCHED, _IMPROVED = 0.75, 0.85
# Where the starts end, of both, and the refinements of the cluster search begin.
_BEGUN = 0.7
# What one task of these starts takes, compared with the others.
_COSTS = {'authors': 2.5, 'clusters': 1.0}


@dataclass
class PartitionResult:
    """A partition and how it was found.

    Attributes:
        assignment: Subset of each image, ``(N,)`` long.
        objective: Objective of the hard partition (report Eq. 3, with the balance term). Of the
            strategies that do not need it (``'kmeans'``, ``'random'``, ``'factor'``) it is
            estimated on eight blocks of images, where there are more.
        history: Objective at the winning start and after each accepted step; for ``'authors'`` the
            mean soft objective of each epoch.
        strategy: The strategy, and for ``'local'`` the winning start, e.g. ``'local (kmeans)'``.
        sizes: Number of images of each subset.
        nmi: Normalized mutual information with each earlier partition.
        seconds: Time that the solver took, in seconds.
    """

    assignment: Tensor
    objective: float
    history: list[float]
    strategy: str = ''
    sizes: list[int] = field(default_factory=list)
    nmi: list[float] = field(default_factory=list)
    seconds: float = 0.0


class PartitionSolver:
    r"""Find the partition of a data set that maximizes the objective (report Eq. 3).

    Strategies:

    * ``'local'`` (default): local moves of single images
      (:func:`~ipirm_mm.partition.local_moves.local_moves`) from each of ``starts``; the start with
      the highest objective wins.
    * ``'authors'``: the optimizer of Wang et al. (IP-IRM, NeurIPS 2021)
      (:func:`~ipirm_mm.partition.starts.optimize_soft_partition`).
    * ``'kmeans'``: k-means on the mean of the two views' projections, without the objective.
    * ``'random'``: random subsets of equal size (a control).
    * ``'factor'``: a known factor of the images, modulo K (a control).

    With more images than ``block_size``, the objective is the mean over the blocks of one fixed
    random division of the images, with the balance term of all images. ``'local'`` then searches
    in the first blocks only, eight for ``'clusters'`` and one for every other start. It extends
    each partition to all images (by cluster means, or by a linear fit to the features) and returns
    the one with the highest objective on all images. It does not move single images afterwards:
    such moves fit the division, and the objective under any other division falls.

    With ``balance='relaxed'``, local moves make no subset smaller than three quarters of
    ``1 / (K + 1)`` of the images, since the balance term alone does not prevent very small subsets
    (:mod:`ipirm_mm.partition.balance`). Within that limit, and in one block, ``'local'`` is never
    below ``'authors'`` with the same seed if ``'authors'`` is one of its starts.

    Args:
        num_subsets: Number of subsets *K*, 2 to 256. Defaults to 2 (``env_num`` in the code of
            Wang et al.).
        temperature: Temperature of the loss. Defaults to 0.5 (report).
        irm_weight: Weight of the penalty, :math:`\lambda_2`. Defaults to 0.5 (report).
        penalty: ``'vector'`` (code of Wang et al.) or ``'scalar'`` (report). Defaults to
            ``'vector'``.
        balance: ``'relaxed'``, ``'strict'`` or ``'none'``, see
            :func:`~ipirm_mm.functional.partition.balance_term`. Defaults to ``'relaxed'``.
        irm_temperature: Temperature of the penalty. Defaults to None: the same as ``temperature``.
        strategy: See above. Defaults to ``'local'``.
        starts: Starts of ``'local'``: ``'authors'``, ``'kmeans'``, ``'clusters'`` (k-means into
            5 to 30 clusters per subset, then a search over which subset each cluster belongs to),
            ``'pca'`` (quantiles along each of the first three principal components) and
            ``'random'``. Defaults to all.
        block_size: Maximum number of images per block. Defaults to 3096 (code of Wang et al.).
        epochs: Maximum number of epochs of ``'authors'``, which after 51 epochs stops early, once
            five in a row have not raised the objective. Defaults to 61 (code of Wang et al.).
        query_weight: With MixUp, the weight of a query: ``'own'``, that of its image, or
            ``'pair'``, the product of its image's and its partner's, see
            :func:`~ipirm_mm.functional.soft_mixup_objective`. Defaults to ``'own'``.

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
        starts: Sequence[str] = tuple(STARTS),
        block_size: int = 3096,
        epochs: int = 61,
        query_weight: str = 'own',
    ) -> None:
        check_whole('PartitionSolver.num_subsets', num_subsets, 2, MAX_SUBSETS)
        for name, value, allowed in (
            ('penalty', penalty, PENALTIES),
            ('balance', balance, BALANCES),
            ('strategy', strategy, STRATEGIES),
            ('query_weight', query_weight, QUERY_WEIGHTS),
        ):
            check_one_of(f'PartitionSolver.{name}', value, allowed)
        if not starts or not set(starts) <= set(STARTS):
            raise UserError(
                f'PartitionSolver.starts must be a list of at least one of {tuple(STARTS)}, but '
                f'is {starts!r}'
            )
        for name, number, least in (('block_size', block_size, 2), ('epochs', epochs, 1)):
            check_whole(f'PartitionSolver.{name}', number, least)
        check_positive('PartitionSolver.temperature', temperature)
        if irm_temperature is not None:
            check_positive('PartitionSolver.irm_temperature', irm_temperature)
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
        self.query_weight = query_weight

    def solve(
        self,
        z1: Tensor,
        z2: Tensor,
        seed: int = 0,
        factor: Tensor | None = None,
        previous: Tensor | None = None,
        progress: Progress | None = None,
        mixing: Mixing | None = None,
        share: Share = one_by_one,
    ) -> PartitionResult:
        """Find a partition.

        Args:
            z1: Projections of the first view, ``(N, D)``, rows of unit norm; or ``(M, N, D)`` for
                M draws of the augmentation. The objective is the mean over the draws; the strategy
                ``'authors'`` takes the next draw in each epoch.
            z2: Projections of the second view, same shape as ``z1``.
            seed: Seed of the solver; it does not use the global random generators. Defaults to 0.
            factor: Known factor of each image, ``(N,)`` integers, for ``strategy='factor'``.
                Defaults to None.
            previous: Earlier partitions, ``(P, N)``, for ``PartitionResult.nmi``. Defaults to
                None.
            progress: Called with the fraction done and a text. Defaults to None.
            mixing: With MixUp, how the first views were mixed; ``z1`` are the projections of the
                mixed images. The objective is then that of
                :func:`~ipirm_mm.functional.soft_mixup_objective`, and k-means and principal
                components are those of ``z2``. Defaults to None: the views are not mixed.
            share: Does tasks, see :mod:`ipirm_mm.partition.sharing`. Several processes that give
                the same arguments can share them out by
                :class:`~ipirm_mm.engine.waiting.SharedWork`; the result does not depend on their
                number. Defaults to one by one, in this process.

        Returns:
            :class:`PartitionResult`.

        Raises:
            UserError: If the shapes of the views differ, there are fewer images than subsets,
                features are not finite, the factor is missing or has another length, or a block
                is too small to keep partners together.
            ValueError: If ``mixing`` does not fit the features.
        """
        began = time.perf_counter()
        z1, z2 = self._check_features(z1, z2)
        report = progress or ignore_progress
        options = ObjectiveOptions(
            num_subsets=self.num_subsets,
            temperature=self.temperature,
            irm_weight=self.irm_weight,
            penalty=self.penalty,
            balance=self.balance,
            irm_temperature=self.irm_temperature,
            block_size=self.block_size,
            query_weight=self.query_weight,
        )
        if mixing is not None:
            mixing.check(len(z1), z1.shape[1], self.block_size)
        objective = BlockedObjective.divide(z1, z2, options, seed, mixing)
        if self.strategy == 'local':
            found = self._local(objective, seed, share, report)
            strategy = f'local ({found.name})'
        else:
            found = self._simple(objective, seed, factor, share, report)
            strategy = self.strategy
        value = found.history[-1]
        if strategy == 'authors':
            (value,) = objective.values([found.assignment], share)
        report(1.0, 'done')
        return PartitionResult(
            found.assignment,
            value,
            found.history,
            strategy,
            torch.bincount(found.assignment, minlength=self.num_subsets).tolist(),
            [
                float(normalized_mutual_information(found.assignment, row.to(found.assignment)))
                for row in (() if previous is None else previous)
            ],
            time.perf_counter() - began,
        )

    def _check_features(self, z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor]:
        """The features as ``(M, N, D)``, at least float32, without gradient."""
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
                'partition needs at least one image per subset'
            )
        # The extremes are not finite if any value is not; isfinite would copy all of them.
        if not bool(torch.isfinite(torch.stack([*z1.aminmax(), *z2.aminmax()])).all()):
            raise UserError(
                'the features have values that are not finite: the encoder has diverged, lower '
                'the learning rate'
            )
        return at_least_float32(z1.detach()), at_least_float32(z2.detach())

    def _start(self, name: str) -> Start:
        if name == 'authors':
            return partial(optimize_soft_partition, epochs=self.epochs)
        return STARTS[name]

    def _simple(
        self,
        objective: BlockedObjective,
        seed: int,
        factor: Tensor | None,
        share: Share,
        report: Progress,
    ) -> Candidate:
        """The partition of a strategy that has no local moves; one process finds it."""

        def find(report: Progress) -> Candidate:
            if self.strategy == 'factor':
                assignment = factor_subsets(factor, len(objective.mean), self.num_subsets)
                found = Candidate(assignment.to(objective.mean.device), 'factor')
            else:
                generator = torch.Generator().manual_seed(seed)
                (found,) = self._start(self.strategy)(objective, generator, report)
            if not found.history:
                found.history.append(objective.estimate(found.assignment))
            return pack(found)

        (found,) = share([find], report)
        return unpack(found, objective.mean.device)

    def _local(
        self, objective: BlockedObjective, seed: int, share: Share, report: Progress
    ) -> Candidate:
        """Local moves from all starts; the candidate with the highest objective."""
        # One block is enough to find what the subsets of a good partition have in common. Which
        # partition is the best is decided on all images.
        first = objective.first_blocks(1)
        candidates = self._candidates(
            objective, first, seed, share, partial(report_part, report, 0.0, _SEARCHED)
        )
        moves = [partial(_improve, candidate, first, objective) for candidate in candidates]
        improved = share(moves, partial(report_part, report, _SEARCHED, _IMPROVED - _SEARCHED))
        candidates = [unpack(candidate, objective.mean.device) for candidate in improved]
        if first is not objective:
            assignments = [candidate.assignment for candidate in candidates]
            distinct = distinct_partitions(assignments, len(assignments))
            values = objective.values(
                [assignments[place] for place in distinct],
                share,
                partial(report_part, report, _IMPROVED, 1 - _IMPROVED),
            )
            candidates = [
                Candidate(assignments[place], candidates[place].name, [value])
                for place, value in zip(distinct, values)
            ]
        best = max(candidates, key=lambda candidate: candidate.history[-1])
        best.assignment = number_in_order(best.assignment, self.num_subsets)
        return best

    def _candidates(
        self,
        objective: BlockedObjective,
        first: BlockedObjective,
        seed: int,
        share: Share,
        report: Progress,
    ) -> list[Candidate]:
        """What the starts find: partitions of the first block, or of all images."""
        # The cluster search chooses blocks itself, and has several tasks.
        search = ClusterSearch(objective, seed)
        tasks: dict[str, list[Task]] = {
            name: search.tasks()
            if name == 'clusters'
            else [partial(self._begin, name, first, seed)]
            for name in self.starts
        }
        every = list(chain(*tasks.values()))
        costs = [_COSTS.get(name, 0.1) for name, several in tasks.items() for _ in several]
        device = objective.mean.device
        begin = partial(report_part, report, 0.0, _BEGUN)
        results = iter(share_out(every, device, begin, share, costs))
        found = {
            name: list(chain(*islice(results, len(several)))) for name, several in tasks.items()
        }
        if 'clusters' in found:
            best = search.best(found['clusters'])
            refine = partial(report_part, report, _BEGUN, 1 - _BEGUN)
            refined = share_out(search.refinements(best), device, refine, share)
            found['clusters'] = search.best([*chain(*refined), *best])
        return list(chain(*found.values()))

    def _begin(
        self, name: str, objective: BlockedObjective, seed: int, report: Progress
    ) -> list[Candidate]:
        """What one start finds, with the draws that it has as a strategy."""
        return self._start(name)(objective, torch.Generator().manual_seed(seed), report)


def _improve(
    candidate: Candidate, first: BlockedObjective, objective: BlockedObjective, report: Progress
) -> Candidate:
    """Local moves of a partition of the first block, which is then extended to all images.

    A partition of several blocks stays as it is: moves would fit the division into blocks.
    """
    assignment = candidate.assignment
    history: list[float] = []
    num_first, num_images = len(first.mean), len(objective.mean)
    if len(assignment) == num_first:
        assignment, history = local_moves(first, enforce_min_size(first, assignment))
    if len(assignment) < num_images:
        assignment = extend_by_linear_fit(
            assignment,
            objective.order[:num_first],
            objective.mean,
            objective.options.num_subsets,
            objective.min_size,
        )
    report(1.0, f'{candidate.name}: local moves')
    return pack(Candidate(assignment, candidate.name, history))
