"""Step 2 of IP-IRM: find a partition (report Eq. 3)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.functional.contrastive import PENALTIES, at_least_float32
from ipirm_mm.functional.information import normalized_mutual_information
from ipirm_mm.functional.partition import (
    BALANCES,
    SimilarityBlock,
    balance_term,
    block_objective,
    similarity_block,
)

from .kmeans import kmeans
from .partition_set import MAX_SUBSETS

STRATEGIES = ('local', 'authors', 'kmeans', 'random', 'factor')
STARTS = ('authors', 'kmeans', 'pca', 'random')
# Bytes of similarities that are kept between evaluations; making them costs ten evaluations.
_KEPT_BYTES = 2 * 2**30

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
      wins. It never ends below ``'authors'`` with the same seed, as long as that is a start.
    * ``'authors'``: the authors' optimiser, Adam on the logits of a soft partition: learning rate
      0.5, times 0.2 after epochs 5 and 35, standard normal start, 61 epochs, blocks of a new
      permutation each epoch, the best epoch's logits kept, then the argmax.
    * ``'kmeans'``: k-means on the mean of the two views' projections, without the objective.
    * ``'random'``: random subsets of equal size (a control).
    * ``'factor'``: a known factor of the images, modulo K (a control).

    For more images than ``block_size`` the objective is the mean over the blocks of one fixed
    random division, and the balance that of the whole.

    Args:
        num_subsets: Number of subsets *K*. Defaults to 2 (the authors' ``env_num``).
        temperature: Temperature of the loss. Defaults to 0.5 (report).
        irm_weight: :math:`\lambda_2`. Defaults to 0.5 (report).
        penalty: ``'vector'`` or ``'scalar'``. Defaults to ``'vector'``.
        balance: ``'relaxed'``, ``'strict'`` or ``'none'``. Defaults to ``'relaxed'``.
        irm_temperature: Temperature of the penalty; None means ``temperature``.
        strategy: See above. Defaults to ``'local'``.
        starts: Starts of ``'local'``: ``'authors'``, ``'kmeans'``, ``'pca'`` (quantiles along each
            of the first three principal components) and ``'random'``. Defaults to all.
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
            z1: Projections of the first view, ``(N, D)``, rows of unit norm.
            z2: Projections of the second view, ``(N, D)``, rows of unit norm.
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
        if z1.ndim != 2 or z1.shape != z2.shape:
            raise UserError(
                'the features of the two views must both be (images, width), but their shapes are '
                f'{tuple(z1.shape)} and {tuple(z2.shape)}'
            )
        images = len(z1)
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
        problem = _Problem(self, z1, z2, seed)
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
        objective, _ = problem.objective_and_gradient(assignment)
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
        images = len(problem.z1)
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
        """Local moves from each start; the best partition, its history and its start."""
        names: list[str] = []
        for start in self.starts:
            components = range(1, min(3, problem.mean.shape[1]) + 1)
            names += [f'pca {number}' for number in components] if start == 'pca' else [start]
        best: tuple[Tensor, list[float], str] | None = None
        for number, name in enumerate(names):
            # The first half of a start's share of the progress is the making of it.
            report_start = partial(_report_part, report, number / len(names), 0.5 / len(names))
            assignment, _ = self._start(name, problem, generator, report_start)
            assignment, history = self._moves(
                problem, assignment, partial(_report_start, report_start, name)
            )
            if best is None or history[-1] > best[1][-1]:
                best = assignment, history, name
        assert best is not None
        return best

    def _moves(
        self, problem: _Problem, assignment: Tensor, report: Callable[[str], None]
    ) -> tuple[Tensor, list[float]]:
        """Hard local moves until no move of 0.02 % of the images raises the objective."""
        value, gradient = problem.objective_and_gradient(assignment)
        history = [value]
        fraction = 0.2
        while True:
            own = gradient.gather(1, assignment[:, None])
            gain, target = (gradient - own).max(1)
            gaining = (gain > 0).nonzero().flatten()
            count = int(fraction * len(gaining))
            if count < max(1, 0.0002 * len(assignment)):
                return assignment, history
            movers = gaining[gain[gaining].topk(count).indices]
            moved = assignment.clone()
            moved[movers] = target[movers]
            new_value, new_gradient = problem.objective_and_gradient(moved)
            if new_value > value:
                assignment, value, gradient = moved, new_value, new_gradient
                history.append(value)
                report(f'objective {value:.4f}')
            else:
                fraction /= 2

    def _authors(
        self, problem: _Problem, generator: torch.Generator, report: Progress
    ) -> tuple[Tensor, list[float]]:
        """The authors' optimiser of the soft partition."""
        images, device = len(problem.z1), problem.z1.device
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
                block = next(problem.blocks())[1] if whole else problem.block(index)
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


def _report_start(report: Progress, start: str, text: str) -> None:
    report(1.0, f'{start}: {text}')


def _report_part(report: Progress, begin: float, share: float, fraction: float, text: str) -> None:
    report(begin + share * fraction, text)


class _Problem:
    """The objective of hard partitions of a set of features, block by block."""

    def __init__(self, solver: PartitionSolver, z1: Tensor, z2: Tensor, seed: int) -> None:
        self.solver = solver
        self.z1, self.z2 = z1, z2
        self.mean = F.normalize(z1 + z2, dim=1)  # of the two views
        images = len(z1)
        blocks = max(1, -(-images // solver.block_size))
        if blocks == 1:
            order = torch.arange(images)
        else:
            order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
        # Sorted within a block and of almost equal sizes, so that no block is left with one image.
        self.index = [part.sort().values.to(z1.device) for part in order.tensor_split(blocks)]
        self.kept: dict[int, SimilarityBlock] = {}

    def block(self, index: Tensor) -> SimilarityBlock:
        solver = self.solver
        return similarity_block(
            self.z1[index],
            self.z2[index],
            solver.temperature,
            solver.irm_temperature,
            solver.penalty,
        )

    def blocks(self) -> Iterator[tuple[Tensor, SimilarityBlock]]:
        for number, index in enumerate(self.index):
            block = self.kept.get(number)
            if block is None:
                block = self.block(index)
                # Two matrices of (2B, 2B) and one of half that size.
                size = 10 * len(index) ** 2 * self.z1.element_size()
                if (len(self.kept) + 1) * size <= _KEPT_BYTES:
                    self.kept[number] = block
            yield index, block

    @torch.enable_grad()
    def objective_and_gradient(self, assignment: Tensor) -> tuple[float, Tensor]:
        """Objective of a hard partition, and its gradient by the weights, ``(N, K)``."""
        solver = self.solver
        weights = F.one_hot(assignment, solver.num_subsets).to(self.z1.dtype).requires_grad_()
        balance = balance_term(weights.mean(0), solver.balance)
        (gradient,) = (
            torch.autograd.grad(balance, weights)
            if balance.requires_grad
            else (torch.zeros_like(weights),)
        )
        value = float(balance.detach())
        for index, block in self.blocks():
            part = weights.detach()[index].requires_grad_()
            objective = block_objective(block, part, solver.irm_weight)
            share = len(index) / len(assignment)
            (part_gradient,) = torch.autograd.grad(share * objective, part)
            gradient[index] += part_gradient
            value += share * float(objective.detach())
        return value, gradient
