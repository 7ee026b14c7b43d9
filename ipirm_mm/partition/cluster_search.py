"""Search over which subset each of many clusters belongs to.

A semantic is a few clusters against the others, which moves of single images do not reach from
elsewhere. What the objective needs of a whole cluster is one column of sums, so that thousands of
ways to deal clusters to subsets are looked at in the time of a few evaluations of the objective.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ipirm_mm.functional.partition import SimilarityBlock, balance_term

# How many restarts without anything better end the search, and every which one deals all anew.
_RESTARTS_IN_VAIN, _ANEW = 30, 4


class ClusterObjective:
    """The objective of hard partitions that keep clusters whole (report Eq. 3).

    The mean over some blocks, and the balance of all their images. Exact for
    ``penalty='scalar'``. For the vector dummy the terms of the negatives' columns are left out,
    whose share of the penalty is of the order of one over the number of images.

    Args:
        blocks: Similarities of each block's images.
        clusters: Cluster of each image of each block, ``(B,)`` long.
        num_clusters: Number of clusters *C*; some may have no image in any block.
        num_subsets: Number of subsets *K*.
        irm_weight: Weight of the penalty.
        balance: Term of the objective for balance.
    """

    def __init__(
        self,
        blocks: Sequence[SimilarityBlock],
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
            _BlockSums(block, cluster, num_clusters) for block, cluster in zip(blocks, clusters)
        ]
        self.size = torch.stack([block.size for block in self.blocks]).sum(0)  # (C,)

    def sizes(self, deals: Tensor) -> Tensor:
        """Images of each subset, ``(D, K)``, of deals ``(D, C)``."""
        return _by_subset(self.size.expand_as(deals), deals, self.num_subsets)

    def __call__(self, deals: Tensor) -> Tensor:
        """Objective of deals.

        Args:
            deals: Subset of each cluster, ``(D, C)`` long.

        Returns:
            ``(D,)``.
        """
        images = self.size.sum()
        shares = self.sizes(deals) / images
        value = torch.vmap(balance_term, (0, None))(shares, self.balance)
        for block in self.blocks:
            loss, penalty = block.risks(deals, self.num_subsets)
            risk = loss.mean(1) + self.irm_weight * penalty.mean(1)
            value = value + block.size.sum() / images * risk
        return value


class _BlockSums:
    """Sums of one block over the clusters of the negatives, by the cluster of the anchor.

    Args:
        block: Similarities of B images.
        cluster: Cluster of each image, ``(B,)`` long.
        num_clusters: Number of clusters *C*; some may have no image here.
    """

    def __init__(self, block: SimilarityBlock, cluster: Tensor, num_clusters: int) -> None:
        member = F.one_hot(cluster, num_clusters).to(block.exp.dtype)  # (B, C)
        self.size = member.sum(0)  # (C,)
        anchors = cluster.repeat(2).argsort(stable=True)
        parts = (2 * self.size).long().tolist()

        def by_cluster(values: Tensor) -> tuple[Tensor, ...]:
            return values[anchors].split(parts)

        self.exp = by_cluster(block.exp @ member)  # (anchors, C) each
        self.exp_positive = by_cluster(block.exp_positive[:, None])
        # Summed over anchors, what does not depend on the deal.
        constant = by_cluster(block.shift - block.positive / block.temperature)
        self.constant = torch.stack([part.sum() for part in constant])  # (C,)
        self.same_temperature = block.irm_temperature == block.temperature
        self.irm_exp = self.exp if self.same_temperature else by_cluster(block.irm_exp @ member)
        self.irm_exp_positive = by_cluster(block.irm_exp_positive[:, None])
        self.positive = by_cluster((block.positive / block.irm_temperature)[:, None])
        self.weighted = None if block.weighted is None else by_cluster(block.weighted @ member)

    def risks(self, deals: Tensor, subsets: int) -> tuple[Tensor, Tensor]:
        """Loss and penalty of each subset, ``(D, K)`` each, of deals ``(D, C)``."""
        sizes = _by_subset(self.size.expand_as(deals), deals, subsets)
        # Weights of the negatives, normalised to sum to their number: (D, C), of each anchor.
        scale = (self.size.sum() - 1) / (sizes.gather(1, deals) - 1).clamp(min=1)
        losses, gradients = [], []
        for number, exp in enumerate(self.exp):
            # Clusters of the same subset, (C, D), each with the weight of its images.
            own = (deals[:, number] == deals.T).to(exp.dtype) * scale[:, number]
            denominator = torch.addmm(self.exp_positive[number], exp, own)  # (anchors, D)
            losses.append(denominator.log().sum(0))
            if not self.same_temperature:
                denominator = torch.addmm(self.irm_exp_positive[number], self.irm_exp[number], own)
            positive = self.positive[number]
            mean_logit = positive * self.irm_exp_positive[number]  # of the positive's column
            if self.weighted is not None:
                mean_logit = torch.addmm(mean_logit, self.weighted[number], own)
            gradients.append((mean_logit / denominator).sum(0) - positive.sum())

        def mean(parts: list[Tensor]) -> Tensor:
            """Mean over the anchors of each subset, (D, K); 0 without negatives."""
            total = _by_subset(torch.stack(parts, 1), deals, subsets)
            return torch.where(sizes >= 2, total / (2 * sizes).clamp(min=1), 0.0)

        loss = mean([part + constant for part, constant in zip(losses, self.constant)])
        return loss, mean(gradients).square()


def _by_subset(values: Tensor, deals: Tensor, subsets: int) -> Tensor:
    """Sum ``(D, C)`` over the clusters of each subset, ``(D, K)``."""
    return values.new_zeros(len(deals), subsets).scatter_add(1, deals, values)


def search_clusters(
    objective: ClusterObjective,
    generator: torch.Generator,
    least: int = 0,
    budget: int = 10_000,
    starts: Sequence[Tensor] = (),
) -> list[Tensor]:
    """Steepest ascent over moves of one cluster and exchanges of two, with restarts.

    When no move helps, and each of ``starts`` had its turn, a fifth of the best deal is dealt
    anew, and every fourth time all clusters, until 30 times nothing better comes of it.

    Args:
        objective: The objective.
        generator: Source of the deals, on the processor.
        least: Least size of a subset. Defaults to 0.
        budget: Number of deals looked at. Defaults to 10,000.
        starts: Deals to begin with, ``(C,)`` each. Defaults to none, a random one.

    Returns:
        The different deals in which ascents ended, ``(C,)`` each, best first.
    """
    subsets = objective.num_subsets
    waiting = list(starts) or [_even_deal(objective, generator)]
    deal = waiting.pop(0)
    clusters, device = len(deal), deal.device
    found: list[tuple[float, Tensor]] = []
    left, in_vain, restarts = budget, 0, 0
    while left > 0 and in_vain < _RESTARTS_IN_VAIN:
        value = float(objective(deal[None]))
        while left > 0:
            deals = _neighbours(deal, subsets, generator, 256)
            left -= len(deals) + 1  # so that it ends where nothing is allowed
            deals = deals[_allowed(objective, deals, deal, least)]
            if not len(deals):
                break
            values = objective(deals)
            best = int(values.argmax())
            if float(values[best]) <= value:
                break
            deal, value = deals[best], float(values[best])
        in_vain += 1
        if not any(torch.equal(deal, other) for _, other in found):
            if not found or value > found[0][0]:
                in_vain = 0
            found.append((value, deal))
            found.sort(key=lambda result: -result[0])
        if waiting:
            deal = waiting.pop(0)
            continue
        restarts += 1
        if restarts % _ANEW == 0:
            deal = _even_deal(objective, generator)
            continue
        for _ in range(20):
            deal = found[0][1].clone()
            chosen = torch.randperm(clusters, generator=generator)[: max(2, clusters // 5)]
            anew = torch.randint(subsets, chosen.shape, generator=generator)
            deal[chosen.to(device)] = anew.to(device)
            if bool(_allowed(objective, deal[None], found[0][1], least)):
                break
        else:
            deal = found[0][1]
    return [deal for _, deal in found]


def _even_deal(objective: ClusterObjective, generator: torch.Generator) -> Tensor:
    """A random deal in which subsets have about the same size, ``(C,)``."""
    size = objective.size
    order = torch.randperm(len(size), generator=generator).to(size.device)
    deal = torch.empty_like(order)
    before = size[order].cumsum(0) - size[order]
    deal[order] = (before * objective.num_subsets / size.sum()).long()
    # All images come before a cluster without any that is last in the order.
    return deal.clamp_(max=objective.num_subsets - 1)


def _allowed(objective: ClusterObjective, deals: Tensor, deal: Tensor, least: int) -> Tensor:
    """Which deals have no subset that is too small, or smaller than it was, ``(D,)``."""
    floor = objective.sizes(deal[None]).clamp(max=max(least, 1))
    return (objective.sizes(deals) >= floor).all(1)


def _neighbours(deal: Tensor, subsets: int, generator: torch.Generator, most: int) -> Tensor:
    """Deals that differ in one cluster, or in two that change places, ``(D, C)``."""
    clusters = len(deal)
    cluster = torch.arange(clusters, device=deal.device).repeat_interleave(subsets)
    target = torch.arange(subsets, device=deal.device).repeat(clusters)
    differs = deal[cluster] != target
    cluster, target = cluster[differs], target[differs]
    first, second = torch.triu_indices(clusters, clusters, 1, device=deal.device)
    differs = deal[first] != deal[second]
    first, second = first[differs], second[differs]
    total = len(cluster) + len(first)
    chosen = torch.randperm(total, generator=generator)[:most].sort().values.to(deal.device)
    moves = chosen[chosen < len(cluster)]
    exchanges = chosen[len(moves) :] - len(cluster)
    deals = deal.repeat(len(chosen), 1)
    row = torch.arange(len(chosen), device=deal.device)
    deals[row[: len(moves)], cluster[moves]] = target[moves]
    row = row[len(moves) :]
    deals[row, first[exchanges]] = deal[second[exchanges]]
    deals[row, second[exchanges]] = deal[first[exchanges]]
    return deals
