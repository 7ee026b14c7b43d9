"""Search over partitions that keep clusters of images whole.

A semantic usually consists of a few clusters out of many, and moves of single images rarely reach
it from another partition. A cluster enters the objective as one column of sums, so that thousands
of cluster assignments (which subset each cluster belongs to) take as long as a few evaluations of
the objective on images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ipirm_mm.functional.mixup_partition import MixedBlock
from ipirm_mm.functional.partition import SimilarityBlock, balance_term


@dataclass(frozen=True)
class ClusterSearchOptions:
    """Options of the start ``'clusters'``; no user option sets them."""

    # Clusters per subset, one k-means and one search each: a semantic can consist of whole
    # clusters of one k-means and not of the next.
    clusters_per_subset: tuple[int, ...] = (10, 15, 20, 30, 7, 5)
    # Clusters per subset of the k-means with which the best partitions are refined, in turn, and
    # the number of these partitions. They gain more in the same time than further searches.
    refined_clusters_per_subset: tuple[int, ...] = (15, 30, 15, 30)
    num_refined: int = 2
    # Number of blocks that the search uses. Very different partitions can be within 0.0002 of each
    # other in one block, and 0.008 apart on all images.
    num_blocks: int = 8
    # Maximum number of images, at most one block, in the sample that is searched first.
    sample_size: int = 2048
    # Cluster assignments that the search of the sample evaluates, per image of the sample. The
    # search of the blocks evaluates fewer, so that it takes as long.
    evaluations_per_image: int = 30
    # Maximum number of different partitions that are compared on all images.
    max_results: int = 8
    # Cluster assignments that one step of the search evaluates, at most.
    max_neighbors: int = 256
    # Patience: the search ends after this many ascents in a row without a new best one.
    patience: int = 30
    # Every this many restarts, all clusters get a random subset; otherwise a fifth of them.
    random_restart_interval: int = 4


class ClusterObjective:
    """The objective of hard partitions that keep clusters whole (report Eq. 3).

    Averaged over blocks of images; the balance term counts all their images together. Exact for
    ``penalty='scalar'``. For the vector dummy, the penalty leaves out the entries of the dummy
    that belong to negatives; their part of the penalty is of the order of one over the number of
    images. With MixUp there is one dummy per key, so that all of its penalty is, and is left out.

    Args:
        blocks: Similarities of the images of each block.
        clusters: Cluster of each image of each block, ``(B,)`` long each.
        num_clusters: Number of clusters *C*; some may have no image in any block.
        num_subsets: Number of subsets *K*.
        irm_weight: Weight of the penalty.
        balance: Balance term: ``'relaxed'``, ``'strict'`` or ``'none'``.
    """

    def __init__(
        self,
        blocks: Sequence[SimilarityBlock | MixedBlock],
        clusters: Sequence[Tensor],
        num_clusters: int,
        num_subsets: int,
        irm_weight: float,
        balance: str,
    ) -> None:
        self.num_subsets = num_subsets
        self.irm_weight = irm_weight
        self.balance = balance
        self.blocks = [
            _MixedBlockSums(block, cluster, num_clusters)
            if isinstance(block, MixedBlock)
            else _BlockSums(block, cluster, num_clusters)
            for block, cluster in zip(blocks, clusters)
        ]
        self.size = torch.stack([block.size for block in self.blocks]).sum(0)  # (C,)

    def sizes(self, assignments: Tensor) -> Tensor:
        """Number of images of each subset.

        Args:
            assignments: Subset of each cluster, ``(A, C)`` long.

        Returns:
            ``(A, K)``.
        """
        return _sum_by_subset(self.size.expand_as(assignments), assignments, self.num_subsets)

    def __call__(self, assignments: Tensor) -> Tensor:
        """Objective of each of A cluster assignments.

        Args:
            assignments: Subset of each cluster, ``(A, C)`` long.

        Returns:
            ``(A,)``.
        """
        images = self.size.sum()
        shares = self.sizes(assignments) / images
        value = balance_term(shares, self.balance)
        for block in self.blocks:
            loss, penalty = block.risks(assignments, self.num_subsets)
            risk = loss.mean(1) + self.irm_weight * penalty.mean(1)
            value = value + block.size.sum() / images * risk
        return value


class _BlockSums:
    """Similarities of one block, summed over the negatives of each cluster.

    Args:
        block: Similarities of B images.
        cluster: Cluster of each image, ``(B,)`` long.
        num_clusters: Number of clusters *C*; some may have no image in the block.
    """

    def __init__(self, block: SimilarityBlock, cluster: Tensor, num_clusters: int) -> None:
        member = F.one_hot(cluster, num_clusters).to(block.exp.dtype)  # (B, C)
        self.size = member.sum(0)  # (C,)
        anchors = cluster.repeat(2).argsort(stable=True)
        counts = (2 * self.size).long().tolist()

        def by_cluster(values: Tensor) -> tuple[Tensor, ...]:
            """Split the rows by the cluster of the anchor."""
            return values[anchors].split(counts)

        self.exp = by_cluster(block.exp @ member)  # (anchors, C) each
        self.exp_positive = by_cluster(block.exp_positive[:, None])
        # The terms of the loss that do not depend on the assignment, summed over anchors.
        constant = by_cluster(block.shift - block.positive / block.temperature)
        self.constant = torch.stack([part.sum() for part in constant])  # (C,)
        self.same_temperature = block.irm_temperature == block.temperature
        self.irm_exp = self.exp if self.same_temperature else by_cluster(block.irm_exp @ member)
        self.irm_exp_positive = by_cluster(block.irm_exp_positive[:, None])
        positive = block.positive / block.irm_temperature
        self.positive = torch.stack([part.sum() for part in by_cluster(positive)])  # (C,)
        # The term of the positive in the mean logit.
        self.weighted_positive = by_cluster((positive * block.irm_exp_positive)[:, None])
        self.weighted = None if block.weighted is None else by_cluster(block.weighted @ member)

    def risks(self, assignments: Tensor, num_subsets: int) -> tuple[Tensor, Tensor]:
        """Loss and penalty of each subset, ``(A, K)`` each, of assignments ``(A, C)``."""
        sizes = _sum_by_subset(self.size.expand_as(assignments), assignments, num_subsets)
        # Weight of each negative of an anchor, (A, C): the weights sum to the batch size minus 1.
        scale = (self.size.sum() - 1) / (sizes.gather(1, assignments) - 1).clamp(min=1)
        scale = scale.T.contiguous()  # (C, A)
        subset = assignments.T.to(scale).contiguous()
        weight = torch.empty_like(scale)
        losses, gradients = [], []
        for number, own_subset in enumerate(subset):
            # Weight of the images of each cluster: 0 in another subset than the anchors. Made as
            # numbers, since a comparison that gives booleans takes several times as long.
            torch.eq(subset, own_subset, out=weight).mul_(scale[number])
            denominator = torch.addmm(self.exp_positive[number], self.exp[number], weight)
            irm_denominator = denominator  # (anchors, A)
            if not self.same_temperature:
                irm_denominator = torch.addmm(
                    self.irm_exp_positive[number], self.irm_exp[number], weight
                )
            mean_logit = self.weighted_positive[number]
            if self.weighted is not None:
                mean_logit = torch.addmm(mean_logit, self.weighted[number], weight)
            gradients.append((mean_logit / irm_denominator).sum(0))
            losses.append(denominator.log_().sum(0))

        def mean(sums: list[Tensor], constant: Tensor) -> Tensor:
            """Mean over the anchors of each subset, (A, K); 0 without negatives."""
            total = _sum_by_subset(torch.stack(sums, 1) + constant, assignments, num_subsets)
            return torch.where(sizes >= 2, total / (2 * sizes).clamp(min=1), 0.0)

        return mean(losses, self.constant), mean(gradients, -self.positive).square()


class _MixedBlockSums:
    """Similarities of one block of mixed queries, summed over the negatives of each cluster.

    Args:
        block: Similarities of B queries with B keys.
        cluster: Cluster of each image, ``(B,)`` long.
        num_clusters: Number of clusters *C*; some may have no image in the block.
    """

    def __init__(self, block: MixedBlock, cluster: Tensor, num_clusters: int) -> None:
        member = F.one_hot(cluster, num_clusters).to(block.exp.dtype)  # (B, C)
        self.size = member.sum(0)  # (C,)
        order = cluster.argsort(stable=True)
        counts = self.size.long().tolist()

        def by_cluster(values: Tensor) -> tuple[Tensor, ...]:
            """Split the rows by the cluster of the query's image."""
            return values[order].split(counts)

        self.partner = by_cluster(cluster[block.partners])  # (queries,) each
        self.other_partner = by_cluster(~block.own_partner[:, None])  # (queries, 1) each
        self.exp = by_cluster(block.exp @ member)  # (queries, C) each
        self.exp_target = by_cluster(block.exp_target[:, None])
        self.constant = by_cluster((block.shift - block.target)[:, None])
        self.pairs_only = block.query_weight == 'pair'
        self.scalar = block.penalty == 'scalar' and block.weighted is not None
        if self.scalar:
            assert block.weighted is not None
            self.weighted = by_cluster(block.weighted @ member)
            self.irm_exp = by_cluster(block.irm_exp @ member)
            self.irm_exp_target = by_cluster(block.irm_exp_targets.sum(1, keepdim=True))
            products = block.irm_logits * block.irm_exp_targets
            self.weighted_target = by_cluster(products.sum(1, keepdim=True))
            self.irm_target = by_cluster((block.labels * block.irm_logits).sum(1, keepdim=True))

    def risks(self, assignments: Tensor, num_subsets: int) -> tuple[Tensor, Tensor]:
        """Loss and penalty of each subset, ``(A, K)`` each, of assignments ``(A, C)``."""
        sizes = _sum_by_subset(self.size.expand_as(assignments), assignments, num_subsets)
        own_size = sizes.gather(1, assignments)  # (A, C)
        numbers, losses, gradients = [], [], []  # sums over the queries of a cluster, (A,) each
        for number, exp in enumerate(self.exp):
            subset = assignments[:, number]
            member = (subset == assignments.T).to(exp.dtype)  # (C, A)
            # Whether the partner is in the subset: then it is one negative less. (queries, A)
            together = assignments.T[self.partner[number]] == subset
            other = self.other_partner[number]
            negatives = own_size[:, number] - 1 - (together & other).to(exp.dtype)
            scale = (self.size.sum() - 1 - other.to(exp.dtype)) / negatives.clamp(min=1)

            def query_sum(values: Tensor, together: Tensor = together) -> Tensor:
                return (values * together if self.pairs_only else values).sum(0)

            numbers.append(query_sum(torch.ones_like(scale)))
            denominator = self.exp_target[number] + exp @ member * scale
            losses.append(query_sum(denominator.log() + self.constant[number]))
            if self.scalar:
                others = self.irm_exp[number] @ member * scale
                denominator = self.irm_exp_target[number] + others
                mean_logit = self.weighted_target[number] + self.weighted[number] @ member * scale
                gradients.append(query_sum(mean_logit / denominator - self.irm_target[number]))

        def total(parts: list[Tensor]) -> Tensor:
            return _sum_by_subset(torch.stack(parts, 1), assignments, num_subsets)

        queries = total(numbers).clamp(min=1)
        loss = torch.where(sizes >= 2, total(losses) / queries, 0.0)
        if not self.scalar:
            return loss, torch.zeros_like(loss)
        return loss, torch.where(sizes >= 2, total(gradients) / queries, 0.0).square()


def _sum_by_subset(values: Tensor, assignments: Tensor, num_subsets: int) -> Tensor:
    """Sum of ``(A, C)`` values over the clusters of each subset, ``(A, K)``."""
    sums = values.new_zeros(len(assignments), num_subsets)
    return sums.scatter_add(1, assignments, values)


def search_clusters(
    objective: ClusterObjective,
    generator: torch.Generator,
    min_size: int = 0,
    budget: int = 10_000,
    starts: Sequence[Tensor] = (),
    options: ClusterSearchOptions | None = None,
) -> list[Tensor]:
    """Steepest ascent over moves of one cluster and exchanges of two, with restarts.

    The first ascents begin at ``starts``. Each later one begins at the best cluster assignment
    with a fifth of its clusters in random subsets; every fourth of them begins at a random one.
    The search ends after 30 ascents in a row without a new best one, or when the budget is spent.

    Args:
        objective: The objective.
        generator: Random generator, on the CPU.
        min_size: Minimum number of images per subset; a subset that has fewer must not lose
            images. Defaults to 0.
        budget: Number of cluster assignments to evaluate. Defaults to 10,000.
        starts: Cluster assignments to begin with, ``(C,)`` long each. Defaults to none, which
            means one random assignment.
        options: Options of the search. Defaults to None: those of :class:`ClusterSearchOptions`.

    Returns:
        The different cluster assignments in which ascents ended, ``(C,)`` long each, best first.
    """
    options = options or ClusterSearchOptions()
    waiting = list(starts) or [_random_assignment(objective, generator)]
    assignment = waiting.pop(0)
    found: list[tuple[float, Tensor]] = []
    failures, restarts = 0, 0
    while budget > 0 and failures < options.patience:
        value, assignment, budget = _ascend(
            objective, assignment, generator, min_size, budget, options.max_neighbors
        )
        failures += 1
        if not any(torch.equal(assignment, other) for _, other in found):
            if not found or value > found[0][0]:
                failures = 0
            found.append((value, assignment))
            found.sort(key=lambda result: -result[0])
        if waiting:
            assignment = waiting.pop(0)
            continue
        restarts += 1
        if restarts % options.random_restart_interval == 0:
            assignment = _random_assignment(objective, generator)
        else:
            assignment = _perturb(objective, found[0][1], generator, min_size)
    return [assignment for _, assignment in found]


def _ascend(
    objective: ClusterObjective,
    assignment: Tensor,
    generator: torch.Generator,
    min_size: int,
    budget: int,
    max_neighbors: int,
) -> tuple[float, Tensor, int]:
    """Move to the best neighbor until none is better; value, assignment and remaining budget."""
    value = float(objective(assignment[None]))
    while budget > 0:
        candidates = _neighbors(assignment, objective.num_subsets, generator, max_neighbors)
        # One more, so that the search ends even where there is no candidate.
        budget -= len(candidates) + 1
        candidates = candidates[_keep_min_size(objective, candidates, assignment, min_size)]
        if not len(candidates):
            break
        values = objective(candidates)
        best = int(values.argmax())
        if float(values[best]) <= value:
            break
        assignment, value = candidates[best], float(values[best])
    return value, assignment, budget


def _perturb(
    objective: ClusterObjective, best: Tensor, generator: torch.Generator, min_size: int
) -> Tensor:
    """Put a fifth of the clusters into random subsets; ``best`` itself if 20 attempts fail."""
    clusters = len(best)
    for _ in range(20):
        assignment = best.clone()
        chosen = torch.randperm(clusters, generator=generator)[: max(2, clusters // 5)]
        subsets = torch.randint(objective.num_subsets, chosen.shape, generator=generator)
        assignment[chosen.to(best.device)] = subsets.to(best.device)
        if bool(_keep_min_size(objective, assignment[None], best, min_size)):
            return assignment
    return best


def _random_assignment(objective: ClusterObjective, generator: torch.Generator) -> Tensor:
    """A random cluster assignment whose subsets have about the same number of images, ``(C,)``."""
    size = objective.size
    order = torch.randperm(len(size), generator=generator).to(size.device)
    assignment = torch.empty_like(order)
    before = size[order].cumsum(0) - size[order]
    assignment[order] = (before * objective.num_subsets / size.sum()).long()
    # A cluster without images that is last in the order would get the subset K.
    return assignment.clamp_(max=objective.num_subsets - 1)


def _keep_min_size(
    objective: ClusterObjective, candidates: Tensor, assignment: Tensor, min_size: int
) -> Tensor:
    """Which candidates ``(A, C)`` have no subset below both its limit and its size so far."""
    limit = objective.sizes(assignment[None]).clamp(max=max(min_size, 1))
    return (objective.sizes(candidates) >= limit).all(1)


def _neighbors(
    assignment: Tensor, num_subsets: int, generator: torch.Generator, max_count: int
) -> Tensor:
    """Cluster assignments that move one cluster or exchange two, ``(A, C)``.

    A random choice of them, if there are more than ``max_count``.
    """
    clusters, device = len(assignment), assignment.device
    cluster = torch.arange(clusters, device=device).repeat_interleave(num_subsets)
    target = torch.arange(num_subsets, device=device).repeat(clusters)
    differs = assignment[cluster] != target
    cluster, target = cluster[differs], target[differs]
    first, second = torch.triu_indices(clusters, clusters, 1, device=device)
    differs = assignment[first] != assignment[second]
    first, second = first[differs], second[differs]
    total = len(cluster) + len(first)
    chosen = torch.randperm(total, generator=generator)[:max_count].sort().values.to(device)
    moves = chosen[chosen < len(cluster)]
    exchanges = chosen[len(moves) :] - len(cluster)
    candidates = assignment.repeat(len(chosen), 1)
    row = torch.arange(len(chosen), device=device)
    candidates[row[: len(moves)], cluster[moves]] = target[moves]
    row = row[len(moves) :]
    candidates[row, first[exchanges]] = assignment[second[exchanges]]
    candidates[row, second[exchanges]] = assignment[first[exchanges]]
    return candidates
