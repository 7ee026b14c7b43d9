"""Step 2 of IP-IRM: find a partition that maximizes the objective (report Eq. 3)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.functional._common import PENALTIES, at_least_float32
from ipirm_mm.functional.information import normalized_mutual_information
from ipirm_mm.functional.mixup_partition import QUERY_WEIGHTS
from ipirm_mm.functional.partition import BALANCES
from ipirm_mm.options import check_one_of, check_positive, check_whole

from .expand import extend_by_linear_fit
from .local_moves import enforce_min_size, local_moves
from .mixing import Mixing
from .objective import BlockedObjective, ObjectiveOptions
from .partition_set import MAX_SUBSETS
from .starts import (
    STARTS,
    Candidate,
    Progress,
    Start,
    distinct_partitions,
    factor_subsets,
    optimize_soft_partition,
)

STRATEGIES = ('local', 'authors', 'kmeans', 'random', 'factor')
# Relative time of each start, for the progress bar; 1 where none is given.
_DURATIONS = {'clusters': 12, 'authors': 4, 'pca': 3}


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
        report = progress or (lambda fraction, text: None)
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
        generator = torch.Generator().manual_seed(seed)

        strategy = self.strategy
        if strategy == 'local':
            found = self._local(objective, generator, report)
            strategy = f'local ({found.name})'
            value = found.history[-1]
        else:
            if strategy == 'factor':
                assignment = factor_subsets(factor, z1.shape[1], self.num_subsets)
                found = Candidate(assignment.to(z1.device), 'factor')
            else:
                (found,) = self._start(strategy)(objective, generator, report)
            if strategy == 'authors':
                (value,) = objective.values(
                    [found.assignment], lambda fraction: report(1.0, f'objective: {fraction:.0%}')
                )
            else:
                value = objective.estimate(found.assignment)
        report(1.0, 'done')
        return PartitionResult(
            found.assignment,
            value,
            found.history or [value],
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

    def _local(
        self, objective: BlockedObjective, generator: torch.Generator, report: Progress
    ) -> Candidate:
        """Local moves from all starts; the candidate with the highest objective."""
        # One block is enough to find what the subsets of a good partition have in common. Which
        # partition is the best is decided on all images.
        first = objective.first_blocks(1)
        durations = [_DURATIONS.get(name, 1) for name in self.starts]
        results: list[Candidate] = []
        for number, name in enumerate(self.starts):
            begin = sum(durations[:number]) / sum(durations)
            share = durations[number] / sum(durations)
            report_start = partial(_report_share, report, begin, share)
            # The cluster search chooses blocks itself.
            images = objective if name == 'clusters' else first
            candidates = self._start(name)(images, generator, report_start)
            results += [_improve(candidate, first, objective) for candidate in candidates]
            report_start(1.0, name)
        if first is not objective:
            assignments = [candidate.assignment for candidate in results]
            distinct = distinct_partitions(assignments, len(assignments))
            values = objective.values(
                [assignments[place] for place in distinct],
                lambda fraction: report(1.0, f'all images: {fraction:.0%}'),
            )
            results = [
                Candidate(results[place].assignment, results[place].name, [value])
                for place, value in zip(distinct, values)
            ]
        return max(results, key=lambda candidate: candidate.history[-1])


def _improve(
    candidate: Candidate, first: BlockedObjective, objective: BlockedObjective
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
    return Candidate(assignment, candidate.name, history)


def _report_share(
    report: Progress, begin: float, share: float, fraction: float, text: str
) -> None:
    """Report the progress of one part as progress of the whole."""
    report(begin + share * fraction, text)
