"""Filters that stand for all that do not follow augmentations: Figure 2 (b) of the report."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.partition.kmeans import cluster_means, kmeans


class ChosenFilters(NamedTuple):
    """Filters nearest to the centers of clusters, the largest cluster first.

    Attributes:
        filters: Number of each filter, ``(K,)`` long.
        sizes: Number of filters in the cluster of each, ``(K,)`` long.
        clustered: Number of filters that were clustered.
    """

    filters: Tensor
    sizes: Tensor
    clustered: int


def choose_filters(
    activations: Tensor, candidates: Tensor, num_clusters: int = 4, seed: int = 0
) -> ChosenFilters:
    """Cluster filters by k-means, and take the filter nearest to each center.

    The report says no more than that. Here a filter is the vector of its mean activations in N
    images, standardized: filters are together if the same images excite them, however strongly.
    Filters with the same activation in all images are left out.

    Args:
        activations: Mean activation of each filter in each image, ``(N, D)``.
        candidates: Numbers of the filters to cluster, long: those unrelated to augmentations.
        num_clusters: Number of clusters *K*. Defaults to 4, as in the report.
        seed: Seed of the starts of k-means. Defaults to 0.

    Returns:
        The filters.

    Raises:
        UserError: If fewer filters than clusters are active.
    """
    candidates = candidates.to(activations.device).sort().values
    rows = activations.double()[:, candidates].T
    spread = rows.std(1)
    alive = spread > 1e-6 * rows.abs().amax(1)
    if int(alive.sum()) < num_clusters:
        raise UserError(
            f'{int(alive.sum())} of the {len(candidates)} filters unrelated to augmentations are '
            f'active at all, too few for {num_clusters} clusters: name another layer, or ask for '
            'fewer clusters'
        )
    candidates = candidates[alive]
    rows = (rows[alive] - rows[alive].mean(1, keepdim=True)) / spread[alive][:, None]
    generator = torch.Generator().manual_seed(seed)
    cluster = kmeans(rows, num_clusters, generator, num_starts=10)
    distance = torch.cdist(rows, cluster_means(rows, cluster, num_clusters))
    sizes = torch.bincount(cluster, minlength=num_clusters)
    order = sizes.argsort(descending=True, stable=True)
    nearest = []
    for number in order.tolist():
        members = (cluster == number).nonzero().flatten()
        nearest.append(members[distance[members, number].argmin()])
    return ChosenFilters(candidates[torch.stack(nearest)], sizes[order], len(candidates))
