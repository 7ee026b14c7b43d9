"""The start ``'clusters'``: search over clusters of several k-means."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from .candidates import Candidate, distinct_partitions
from .cluster_search import ClusterObjective, ClusterSearchOptions, search_clusters
from .expand import expand_to_images
from .kmeans import kmeans
from .objective import BlockedObjective
from .sharing import Progress, Task, one_by_one


class ClusterSearch:
    """k-means into many clusters, then a search over which subset each cluster belongs to.

    Uses the first eight blocks. A search first evaluates a random sample of their images, then,
    from the results, all of their images. The best partitions are then refined: by the clusters of
    further k-means, each divided where its images are in several subsets. An image of another
    block belongs to the cluster with the nearest mean. The searches do not depend on each other,
    nor do the refinements, so that processes can share them.

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
        self._num_searches = len(self.options.clusters_per_subset)
        count = self._num_searches + self.options.num_refined
        self._seeds = torch.randint(2**62, (count,), generator=self._generator).tolist()

    def tasks(self) -> list[Task]:
        """The searches.

        Returns:
            Tasks that return their best different partitions, best first, each with its objective
            on the blocks as its history.
        """
        return [partial(self._search, number) for number in range(self._num_searches)]

    def refinements(self, found: Sequence[Candidate]) -> list[Task]:
        """The refinements of the best partitions.

        Args:
            found: Partitions, best first; the first two of them are refined.

        Returns:
            Tasks that return what those of :meth:`tasks` do, one partition each.
        """
        seeds = self._seeds[self._num_searches :]
        return [partial(self._refine, *pair) for pair in zip(found, seeds)]

    def best(self, found: Sequence[Candidate]) -> list[Candidate]:
        """The best different partitions of all searches, best first, 8 at most."""
        found = sorted(found, key=lambda candidate: -candidate.history[-1])
        places = distinct_partitions([c.assignment for c in found], self.options.max_results)
        return [found[place] for place in places]

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
        count = self._num_clusters(options.clusters_per_subset[number])
        cluster = kmeans(part.mean, count, generator)
        on_sample = ClusterObjective(
            self._sample_objective.similarities(0)[:1],
            [cluster[sample]],
            count,
            num_subsets,
            objective_options.irm_weight,
            objective_options.balance,
        )
        on_blocks = self._on_blocks(cluster, count)
        assignments = search_clusters(
            on_sample, generator, self._sample_objective.min_size, self._budget, options=options
        )
        if len(sample) < len(part.mean):
            report(0.6, f'clusters: {count} clusters')
            starts = _distinct_clusters(assignments, cluster, options.max_results)
            budget = self._budget * len(sample) // len(part.mean)
            assignments = search_clusters(
                on_blocks, generator, part.min_size, budget, starts, options
            )
        best = _distinct_clusters(assignments, cluster, options.max_results)
        report(1.0, f'clusters: {count} clusters, {len(assignments)} results')
        return self._on_all_images(best, cluster, on_blocks)

    def _refine(self, candidate: Candidate, seed: int, report: Progress) -> list[Candidate]:
        """Search over the clusters of several k-means in turn, each from the last result."""
        options, part = self.options, self._part
        generator = torch.Generator().manual_seed(seed)
        known = self._known
        assignment = candidate.assignment if known is None else candidate.assignment[known]
        # Half of that of a search of the blocks.
        budget = self._budget * len(self._sample) // len(part.mean) // 2
        for done, per_subset in enumerate(options.refined_clusters_per_subset, 1):
            cluster = kmeans(part.mean, self._num_clusters(per_subset), generator, num_starts=1)
            cluster, start = self._divide(cluster, assignment)
            on_blocks = self._on_blocks(cluster, len(start))
            best, *_ = search_clusters(
                on_blocks, generator, part.min_size, budget, [start], options
            )
            assignment = best[cluster]
            report(done / len(options.refined_clusters_per_subset), 'clusters: refined')
        return self._on_all_images([best], cluster, on_blocks)

    def _divide(self, cluster: Tensor, assignment: Tensor) -> tuple[Tensor, Tensor]:
        """Divide clusters by a partition, so that a search can begin at the partition itself.

        Args:
            cluster: Cluster of each image.
            assignment: Subset of each image.

        Returns:
            Part of a cluster that each image is in, and the subset of each part. Of many parts,
            the smallest ones of each subset are one, since the search takes time for each.
        """
        num_subsets = self.objective.options.num_subsets
        part = cluster * num_subsets + assignment
        size = torch.bincount(part)
        most = self._num_clusters(len(size))
        if int((size > 0).sum()) > most:
            is_small = torch.ones_like(size, dtype=torch.bool)
            is_small[size.argsort(descending=True, stable=True)[:most]] = False
            rest = num_subsets * (int(cluster.max()) + 1) + assignment
            part = torch.where(is_small[part], rest, part)
        parts, part = part.unique(return_inverse=True)
        return part, parts % num_subsets

    def _num_clusters(self, per_subset: int) -> int:
        """Number of clusters: on average, at least ten images of the sample per cluster."""
        num_subsets = self.objective.options.num_subsets
        return max(num_subsets, min(per_subset * num_subsets, len(self._sample) // 10))

    @cached_property
    def _budget(self) -> int:
        """Cluster assignments that a search of the sample evaluates."""
        return self.options.evaluations_per_image * len(self._sample)

    def _on_blocks(self, cluster: Tensor, count: int) -> ClusterObjective:
        """The objective on the blocks."""
        options = self.objective.options
        block_images = [block for block in self._part.blocks for _ in self._part.z1]
        return ClusterObjective(
            self._similarities,
            [cluster[block] for block in block_images],
            count,
            options.num_subsets,
            options.irm_weight,
            options.balance,
        )

    @cached_property
    def _known(self) -> Tensor | None:
        """The images of the blocks that are searched; None where these are all blocks."""
        whole = self.objective
        return None if self._part is whole else whole.order[: len(self._part.mean)]

    def _on_all_images(
        self, assignments: list[Tensor], cluster: Tensor, on_blocks: ClusterObjective
    ) -> list[Candidate]:
        """Partitions of all images, with the objective on the blocks."""
        whole = self.objective
        partitions = expand_to_images(
            assignments,
            cluster,
            whole.mean,
            whole.options.num_subsets,
            whole.min_size,
            self._known,
        )
        values = on_blocks(torch.stack(assignments)).tolist()
        return [Candidate(p, 'clusters', [v]) for p, v in zip(partitions, values)]


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
    found = search.best(list(chain(*one_by_one(search.tasks(), report))))
    return search.best([*chain(*one_by_one(search.refinements(found))), *found])


def _distinct_clusters(
    assignments: Sequence[Tensor], cluster: Tensor, max_count: int
) -> list[Tensor]:
    """The cluster assignments whose partitions of the images are different."""
    partitions = [assignment[cluster] for assignment in assignments]
    return [assignments[place] for place in distinct_partitions(partitions, max_count)]
