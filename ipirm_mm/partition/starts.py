"""Ways to find a partition: strategies of their own, and starts of the local moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.functional.information import normalized_mutual_information
from ipirm_mm.functional.partition import balance_term, block_objective

from .cluster_search import ClusterObjective, ClusterSearchOptions, search_clusters
from .expand import expand_to_images
from .kmeans import kmeans
from .objective import BlockedObjective
from .sharing import Progress, Task, one_by_one

# Two partitions count as the same above this normalized mutual information.
_SAME_NMI = 0.9
# The early stop of Wang et al.'s optimizer: after 51 epochs, once five epochs in a row have not
# raised the best objective.
_MIN_EPOCHS = 51
_PATIENCE = 5


@dataclass
class Candidate:
    """A partition that a start found.

    Attributes:
        assignment: Subset of each image, ``(N,)`` long.
        name: Name of the start, with a number if it gives several kinds, e.g. ``'pca 1'``.
        history: Objective after each step. Defaults to an empty list: the start took no steps.
    """

    assignment: Tensor
    name: str
    history: list[float] = field(default_factory=list)


# Arguments: the objective, a random generator on the CPU, and a function that takes the fraction
# done and a text.
Start = Callable[[BlockedObjective, torch.Generator, Progress], list[Candidate]]


def optimize_soft_partition(
    objective: BlockedObjective,
    generator: torch.Generator,
    report: Progress,
    epochs: int = 61,
) -> list[Candidate]:
    """The optimizer of Wang et al. (IP-IRM, NeurIPS 2021; code Wangt-CN/IP-IRM).

    Adam on the logits of a soft partition, with learning rate 0.5, times 0.2 after epochs 5 and
    35, from standard normal logits. Each epoch divides the images into blocks by a new
    permutation (with MixUp, of the groups of partners) and takes the next draw of the augmentation
    and of MixUp. After 51 epochs it stops early, once
    five epochs in a row have not raised the best objective. The argmax of the logits of the best
    epoch is the result.

    Args:
        objective: The objective. Its division into blocks is used only if there is one block.
        generator: Random generator; only its initial seed is used, so that the result is the same
            as a strategy and as a start.
        report: Called with the fraction done and a text.
        epochs: Maximum number of epochs. Defaults to 61.

    Returns:
        One candidate, whose history is the mean soft objective of each epoch.
    """
    options = objective.options
    generator = torch.Generator().manual_seed(generator.initial_seed())
    draws, images = objective.z1.shape[:2]
    logits = torch.randn(images, options.num_subsets, generator=generator).to(objective.z1)
    logits.requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.5)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [5, 35], gamma=0.2)
    best_value, best_logits = -float('inf'), logits.detach().clone()
    in_vain = 0  # epochs since the best one
    history: list[float] = []
    one_block = images <= options.block_size
    for epoch in range(epochs):
        # In one block a permutation only changes the order of the entries of the vector dummy.
        blocks = objective.blocks if one_block else objective.random_blocks(generator)
        total = 0.0
        # The logits that the objective of this epoch was computed with. They are copied block by
        # block, since each step of Adam changes the logits of all images.
        used = torch.empty_like(logits)
        for number, index in enumerate(blocks):
            if number:  # other ranks wait for it to report
                fraction = (epoch + number / len(blocks)) / epochs
                report(fraction, f'authors: epoch {epoch + 1}/{epochs}')
            used[index] = logits.detach()[index]
            if len(index) < 2:
                continue
            draw = epoch % draws
            if one_block:
                similarity = objective.similarities(0)[draw]
            else:
                similarity = objective.similarity(index, draw)
            weights = logits[index].softmax(1)
            value = block_objective(similarity, weights, options.irm_weight)
            value = value + balance_term(weights.mean(0), options.balance)
            optimizer.zero_grad()
            (-value).backward()
            optimizer.step()
            total += float(value.detach()) * len(index)
        scheduler.step()
        history.append(total / images)
        if history[-1] > best_value:
            best_value, best_logits, in_vain = history[-1], used, 0
        else:
            in_vain += 1
        report(
            (epoch + 1) / epochs,
            f'authors: epoch {epoch + 1}/{epochs}, objective {history[-1]:.4f}',
        )
        if epoch >= _MIN_EPOCHS and in_vain >= _PATIENCE:
            break
    return [Candidate(best_logits.argmax(1), 'authors', history)]


def kmeans_subsets(
    objective: BlockedObjective, generator: torch.Generator, report: Progress
) -> list[Candidate]:
    """k-means with one cluster per subset, on the mean projection of each image."""
    assignment = kmeans(objective.mean, objective.options.num_subsets, generator)
    return [Candidate(assignment, 'kmeans')]


def random_subsets(
    objective: BlockedObjective, generator: torch.Generator, report: Progress
) -> list[Candidate]:
    """Random subsets whose sizes differ by one image at most."""
    order = torch.randperm(len(objective.mean), generator=generator).to(objective.mean.device)
    return [Candidate(order % objective.options.num_subsets, 'random')]


def principal_component_subsets(
    objective: BlockedObjective, generator: torch.Generator, report: Progress
) -> list[Candidate]:
    """Quantiles along each of the first three principal components of the mean projections."""
    mean, num_subsets = objective.mean, objective.options.num_subsets
    centered = mean - mean.mean(0)
    # The covariance is (D, D): cheaper than a decomposition of all images.
    _, vectors = torch.linalg.eigh(centered.T @ centered)
    candidates = []
    for number in range(1, min(3, mean.shape[1]) + 1):
        rank = (centered @ vectors[:, -number]).argsort().argsort()
        candidates.append(Candidate(rank * num_subsets // len(rank), f'pca {number}'))
    return candidates


class ClusterSearch:
    """k-means into many clusters, then a search over which subset each cluster belongs to.

    Uses the first eight blocks. A search first evaluates a random sample of their images, then,
    from the results, all of their images. An image of another block belongs to the cluster with
    the nearest mean. The searches do not depend on each other, so that processes can share them.

    Args:
        objective: The objective.
        seed: Seed; each search has draws of its own.
        options: Options of the search. Defaults to None: those of
            :class:`~ipirm_mm.partition.cluster_search.ClusterSearchOptions`.
    """

    def __init__(
        self, objective: BlockedObjective, seed: int, options: ClusterSearchOptions | None = None
    ) -> None:
        self.objective = objective
        self.options = options or ClusterSearchOptions()
        self._generator = torch.Generator().manual_seed(seed)
        count = len(self.options.clusters_per_subset)
        self._seeds = torch.randint(2**62, (count,), generator=self._generator).tolist()

    def tasks(self) -> list[Task]:
        """The searches.

        Returns:
            Tasks that return their best different partitions, best first, each with its objective
            on the blocks as its history.
        """
        return [partial(self._search, number) for number in range(len(self._seeds))]

    @cached_property
    def _part(self) -> BlockedObjective:
        """The blocks that are searched."""
        return self.objective.first_blocks(self.options.num_blocks)

    @cached_property
    def _similarities(self) -> list[Any]:
        """Similarities of each of these blocks in each draw.

        Not kept by the objective, and without what is of no use to the cluster objective.
        """
        return [
            self._part.similarity(block, draw, columns=False)
            for block in self._part.blocks
            for draw in range(len(self._part.z1))
        ]

    @cached_property
    def _sample(self) -> Tensor:
        """Images of these blocks that are searched first."""
        count = min(self.options.sample_size, len(self._part.blocks[0]))
        return self._part.random_sample(count, self._generator)

    @cached_property
    def _sample_objective(self) -> BlockedObjective:
        return self._part.select([self._sample])

    def _search(self, number: int, report: Progress) -> list[Candidate]:
        """One k-means and one search."""
        options, part, sample = self.options, self._part, self._sample
        objective_options = self.objective.options
        num_subsets = objective_options.num_subsets
        generator = torch.Generator().manual_seed(self._seeds[number])
        # On average, at least ten images of the sample per cluster.
        wanted = options.clusters_per_subset[number] * num_subsets
        count = max(num_subsets, min(wanted, len(sample) // 10))
        cluster = kmeans(part.mean, count, generator)
        settings = (count, num_subsets, objective_options.irm_weight, objective_options.balance)
        block_images = [block for block in part.blocks for _ in part.z1]  # one entry per draw
        on_sample = ClusterObjective(
            self._sample_objective.similarities(0)[:1], [cluster[sample]], *settings
        )
        on_blocks = ClusterObjective(
            self._similarities, [cluster[block] for block in block_images], *settings
        )
        budget = options.evaluations_per_image * len(sample)
        assignments = search_clusters(
            on_sample, generator, self._sample_objective.min_size, budget, options=options
        )
        if len(sample) < len(part.mean):
            report(0.6, f'clusters: {count} clusters')
            starts = _distinct_clusters(assignments, cluster, options.max_results)
            budget = budget * len(sample) // len(part.mean)
            assignments = search_clusters(
                on_blocks, generator, part.min_size, budget, starts, options
            )
        best = _distinct_clusters(assignments, cluster, options.max_results)
        values = on_blocks(torch.stack(best)).tolist()
        whole = self.objective
        # The images of `part`, where it is not the whole objective.
        known = None if part is whole else whole.order[: len(part.mean)]
        partitions = expand_to_images(
            best, cluster, whole.mean, num_subsets, whole.min_size, known
        )
        report(1.0, f'clusters: {count} clusters, {len(assignments)} results')
        return [Candidate(p, 'clusters', [v]) for p, v in zip(partitions, values)]

    def best(self, found: Sequence[Candidate]) -> list[Candidate]:
        """The best different partitions of all searches, best first, 8 at most."""
        found = sorted(found, key=lambda candidate: -candidate.history[-1])
        places = distinct_partitions([c.assignment for c in found], self.options.max_results)
        return [Candidate(found[place].assignment, 'clusters') for place in places]


def cluster_search_subsets(
    objective: BlockedObjective,
    generator: torch.Generator,
    report: Progress,
    options: ClusterSearchOptions | None = None,
) -> list[Candidate]:
    """All searches of :class:`ClusterSearch`, one by one.

    Args:
        objective: The objective.
        generator: Random generator; only its initial seed is used.
        report: Called with the fraction done and a text.
        options: As for :class:`ClusterSearch`. Defaults to None.

    Returns:
        The best different partitions of all searches, best first, 8 at most.
    """
    search = ClusterSearch(objective, generator.initial_seed(), options)
    return search.best([found for part in one_by_one(search.tasks(), report) for found in part])


def _distinct_clusters(
    assignments: Sequence[Tensor], cluster: Tensor, max_count: int
) -> list[Tensor]:
    """The cluster assignments whose partitions of the images are different."""
    partitions = [assignment[cluster] for assignment in assignments]
    return [assignments[place] for place in distinct_partitions(partitions, max_count)]


def distinct_partitions(assignments: Sequence[Tensor], max_count: int) -> list[int]:
    """Select partitions that differ from all earlier ones.

    Two partitions count as the same if their normalized mutual information is above 0.9.

    Args:
        assignments: Subset of each image, ``(N,)`` each, best first.
        max_count: Maximum number of partitions to select.

    Returns:
        Indices of the selected partitions, ascending.
    """
    selected: list[int] = []
    for number, assignment in enumerate(assignments):
        nmi = (normalized_mutual_information(assignment, assignments[i]) for i in selected)
        if len(selected) < max_count and not any(float(value) > _SAME_NMI for value in nmi):
            selected.append(number)
    return selected


def factor_subsets(factor: Tensor | None, num_images: int, num_subsets: int) -> Tensor:
    """The partition by a known factor of the images.

    Args:
        factor: Factor of each image, ``(N,)`` integers.
        num_images: Number of images *N*.
        num_subsets: Number of subsets *K*.

    Returns:
        The factor modulo K, ``(N,)`` long.

    Raises:
        UserError: If ``factor`` is None or its shape is not ``(N,)``.
    """
    if factor is None:
        raise UserError(
            "PartitionSolver.strategy='factor' needs the factor of each image: have the data "
            'pipeline set it (TintByFactor) and pack it, PackInputs(meta_keys='
            "('sample_idx', 'factor'))"
        )
    if factor.shape != (num_images,):
        raise UserError(
            f'factor must be one integer for each of the {num_images} images, but its shape is '
            f'{tuple(factor.shape)}'
        )
    return factor.long() % num_subsets


STARTS: dict[str, Start] = {
    'authors': optimize_soft_partition,
    'kmeans': kmeans_subsets,
    'clusters': cluster_search_subsets,
    'pca': principal_component_subsets,
    'random': random_subsets,
}
