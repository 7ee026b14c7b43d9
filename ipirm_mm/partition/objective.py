"""The objective of hard partitions, averaged over blocks of images (report Eq. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ipirm_mm.functional.mixup_partition import MixedBlock, mixed_block
from ipirm_mm.functional.partition import (
    SimilarityBlock,
    balance_term,
    block_objective,
    similarity_block,
)

from .balance import min_subset_size
from .mixing import Mixing
from .sharing import Progress, Share, ignore_progress, one_by_one

# Memory limit of the cached similarities, in bytes. Computing the similarities of a block takes
# as long as several evaluations of its objective.
_CACHE_BYTES = 2**30
# Blocks on which the objective of a partition is estimated that was found without it.
_ESTIMATED_BLOCKS = 8


@dataclass(frozen=True)
class ObjectiveOptions:
    r"""Options of the objective; :class:`~ipirm_mm.partition.PartitionSolver` describes them.

    Attributes:
        num_subsets: Number of subsets *K*. Defaults to 2.
        temperature: Temperature of the loss. Defaults to 0.5.
        irm_weight: Weight of the penalty, :math:`\lambda_2`. Defaults to 0.5.
        penalty: ``'vector'`` or ``'scalar'``. Defaults to ``'vector'``.
        balance: ``'relaxed'``, ``'strict'`` or ``'none'``. Defaults to ``'relaxed'``.
        irm_temperature: Temperature of the penalty. Defaults to None: the same as ``temperature``.
        block_size: Maximum number of images per block. Defaults to 3096.
        query_weight: With MixUp, ``'own'`` or ``'pair'``. Defaults to ``'own'``.
    """

    num_subsets: int = 2
    temperature: float = 0.5
    irm_weight: float = 0.5
    penalty: str = 'vector'
    balance: str = 'relaxed'
    irm_temperature: float | None = None
    block_size: int = 3096
    query_weight: str = 'own'


class BlockedObjective:
    """The objective of hard partitions of a set of images, averaged over blocks of images.

    The balance term is not averaged over blocks: it counts all images together.

    Args:
        z1: Projections of the first view, ``(M, N, D)``, M draws of the augmentation.
        z2: Projections of the second view, ``(M, N, D)``.
        blocks: Indices of the images of each block, ``(B,)`` long each; every image is in one
            block.
        options: Options of the objective.
        mixing: How the first views were mixed. Blocks must then contain partners together.
            Defaults to None: they are not mixed.

    Attributes:
        mean: Mean projection of each image over draws and views, ``(N, D)``, rows of unit norm. A
            mixed view is not of one image, so that with MixUp it is the mean of the second views.
        order: Indices of the images, block after block, ``(N,)``.
        min_size: Size below which the solver does not reduce a subset, see
            :func:`~ipirm_mm.partition.balance.min_subset_size`.
    """

    def __init__(
        self,
        z1: Tensor,
        z2: Tensor,
        blocks: Sequence[Tensor],
        options: ObjectiveOptions,
        mixing: Mixing | None = None,
    ) -> None:
        self.options = options
        self.z1, self.z2 = z1, z2
        self.mixing = mixing
        # In place: a data set's features can fill half of the memory.
        self.mean = z2[0].clone()
        for other in (*(z1 if mixing is None else ()), *z2[1:]):
            self.mean += other
        F.normalize(self.mean, dim=1, out=self.mean)
        self.blocks = tuple(blocks)
        self.order = torch.cat(self.blocks)
        self.min_size = min_subset_size(len(self.mean), options.num_subsets, options.balance)
        self._cache: dict[int, list[SimilarityBlock | MixedBlock]] = {}

    @classmethod
    def divide(
        cls,
        z1: Tensor,
        z2: Tensor,
        options: ObjectiveOptions,
        seed: int,
        mixing: Mixing | None = None,
    ) -> BlockedObjective:
        """Objective of all images, in random blocks whose sizes differ by one image at most.

        With MixUp, their numbers of groups of partners differ by one at most.

        Args:
            z1: Projections of the first view, ``(M, N, D)``.
            z2: Projections of the second view, ``(M, N, D)``.
            options: Options of the objective.
            seed: Seed of the division.
            mixing: How the first views were mixed. Defaults to None: not at all.
        """
        images = z1.shape[1]
        generator = torch.Generator().manual_seed(seed)
        if mixing is not None and images > options.block_size:
            return cls(z1, z2, mixing.blocks(options.block_size, generator), options, mixing)
        num_blocks = max(1, -(-images // options.block_size))
        if num_blocks == 1:
            order = torch.arange(images)
        else:
            order = torch.randperm(images, generator=generator)
        # Equal sizes, so that no block has a single image. Sorted within each block.
        blocks = [block.sort().values.to(z1.device) for block in order.tensor_split(num_blocks)]
        return cls(z1, z2, blocks, options, mixing)

    def select(self, blocks: Sequence[Tensor]) -> BlockedObjective:
        """Objective of some of the images; image ``i`` of it is ``torch.cat(blocks)[i]``.

        Args:
            blocks: Indices of the images of each block, ``(B,)`` long each.
        """
        images = torch.cat(tuple(blocks))
        positions = torch.arange(len(images), device=images.device)
        return BlockedObjective(
            self.z1[:, images],
            self.z2[:, images],
            positions.split([len(block) for block in blocks]),
            self.options,
            None if self.mixing is None else self.mixing.select(images),
        )

    def first_blocks(self, count: int) -> BlockedObjective:
        """Objective of the first ``count`` blocks; itself if there are no more blocks."""
        return self if len(self.blocks) <= count else self.select(self.blocks[:count])

    def random_blocks(self, generator: torch.Generator) -> Sequence[Tensor]:
        """A new random division of the images into blocks; with MixUp, of whole groups."""
        block_size = self.options.block_size
        if self.mixing is not None:
            return self.mixing.blocks(block_size, generator)
        order = torch.randperm(len(self.mean), generator=generator)
        return order.to(self.mean.device).split(block_size)

    def random_sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Ascending indices of a random sample; with MixUp, of whole groups."""
        if self.mixing is not None and count < len(self.mean):
            return self.mixing.blocks(count, generator)[0]
        sample = torch.randperm(len(self.mean), generator=generator)
        return sample[:count].sort().values.to(self.mean.device)

    def similarity(
        self, images: Tensor, draw: int, columns: bool = True
    ) -> SimilarityBlock | MixedBlock:
        """Similarities of some images, ``(B,)`` indices, in one draw.

        Without ``columns``, the large matrix that only the vector dummy needs is left out.
        """
        options = self.options
        z1, z2 = self.z1[draw, images], self.z2[draw, images]
        settings = (options.temperature, options.irm_temperature, options.penalty)
        if self.mixing is not None:
            mixing = self.mixing.select(images)
            partners, lam = mixing.partners[draw], mixing.lam[draw]
            mixed = mixed_block(z1, z2, partners, lam, *settings, options.query_weight)
            keep = columns or options.penalty == 'scalar'
            return mixed if keep else mixed._replace(weighted=None)
        block = similarity_block(z1, z2, *settings)
        return block if columns else block._replace(weighted_views=None)

    def similarities(self, number: int) -> list[SimilarityBlock | MixedBlock]:
        """Similarities of one block, one entry per draw.

        The first blocks stay in the cache, as many as fit. The block that was computed last stays
        too, until another one is computed.
        """
        if number not in self._cache:
            images, draws = self.blocks[number], len(self.z1)
            # A matrix of (2B, 2B), and one or two of half that size.
            size = 8 * draws * len(images) ** 2 * self.z1.element_size()
            while self._cache and (len(self._cache) + 1) * size > _CACHE_BYTES:
                del self._cache[next(reversed(self._cache))]
            self._cache[number] = [self.similarity(images, draw) for draw in range(draws)]
        return self._cache[number]

    def values(
        self,
        assignments: Sequence[Tensor],
        share: Share = one_by_one,
        report: Progress = ignore_progress,
    ) -> list[float]:
        """Objective of each of several hard partitions.

        Computes the similarities of each block once for all partitions.

        Args:
            assignments: Subset of each image, ``(N,)`` long each.
            share: Does the tasks, one per block. Defaults to one by one, in this process.
            report: Told the progress. Defaults to nothing.
        """
        tasks = [
            partial(self._block_values, number, assignments) for number in range(len(self.blocks))
        ]
        values = [self._balance(assignment) for assignment in assignments]
        for parts in share(tasks, report):
            values = [value + part for value, part in zip(values, parts)]
        return values

    def _block_values(
        self, number: int, assignments: Sequence[Tensor], report: Progress
    ) -> list[float]:
        """The part of the objective of each partition that one block has."""
        images, similarities = self.blocks[number], self.similarities(number)
        part = len(images) / len(self.mean) / len(similarities)
        values = []
        for assignment in assignments:
            weights = self._weights(assignment[images])
            risks = [block_objective(s, weights, self.options.irm_weight) for s in similarities]
            values.append(part * float(sum(risks)))
        report(1.0, f'all images: {number + 1} of {len(self.blocks)} blocks')
        return values

    def _weights(self, assignment: Tensor) -> Tensor:
        """One-hot weights of a hard partition of some images, ``(B, K)``."""
        return F.one_hot(assignment, self.options.num_subsets).to(self.mean.dtype)

    def _balance(self, assignment: Tensor) -> float:
        """Balance term of a hard partition of all images."""
        sizes = torch.bincount(assignment, minlength=self.options.num_subsets)
        shares = sizes.to(self.mean.dtype) / len(assignment)
        return float(balance_term(shares, self.options.balance))

    def estimate(self, assignment: Tensor) -> float:
        """Objective of a hard partition on the first eight blocks, for the log.

        Blocks are random, so that these stand for all. The balance term counts all images.
        Similarities are not kept.

        Args:
            assignment: Subset of each image, ``(N,)`` long.
        """
        options, draws = self.options, range(len(self.z1))
        value = self._balance(assignment)
        blocks = self.blocks[:_ESTIMATED_BLOCKS]
        images = sum(map(len, blocks))
        for block in blocks:
            weights = self._weights(assignment[block])
            risks = [
                block_objective(self.similarity(block, draw), weights, options.irm_weight)
                for draw in draws
            ]
            value += len(block) / images / len(draws) * float(sum(risks))
        return value

    @torch.enable_grad()
    def value_and_gradient(self, assignment: Tensor) -> tuple[float, Tensor]:
        """Objective of a hard partition, and its gradient with respect to the weights.

        Args:
            assignment: Subset of each image, ``(N,)`` long.

        Returns:
            The objective, and the gradient ``(N, K)`` at the one-hot weights of the partition.
        """
        options = self.options
        weights = self._weights(assignment).requires_grad_()
        balance = balance_term(weights.mean(0), options.balance)
        (gradient,) = (
            torch.autograd.grad(balance, weights)
            if balance.requires_grad
            else (torch.zeros_like(weights),)
        )
        value = float(balance.detach())
        for number, images in enumerate(self.blocks):
            similarities = self.similarities(number)
            share = len(images) / len(assignment) / len(similarities)
            for similarity in similarities:
                block_weights = weights.detach()[images].requires_grad_()
                objective = block_objective(similarity, block_weights, options.irm_weight)
                (block_gradient,) = torch.autograd.grad(share * objective, block_weights)
                gradient[images] += block_gradient
                value += share * float(objective.detach())
        return value, gradient
