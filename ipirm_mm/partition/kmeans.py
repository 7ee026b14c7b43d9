"""k-means on features."""

from __future__ import annotations

import torch
from torch import Tensor


def kmeans(
    features: Tensor,
    num_clusters: int,
    generator: torch.Generator,
    num_starts: int = 3,
    max_iterations: int = 50,
) -> Tensor:
    """Lloyd's algorithm from k-means++ starts; the start with the lowest inertia wins.

    Implemented here so that features stay on their device and scikit-learn is not needed.

    Args:
        features: ``(N, D)``.
        num_clusters: Number of clusters *K*, at most N.
        generator: Random generator of the starts, on the CPU.
        num_starts: Number of starts. Defaults to 3.
        max_iterations: Maximum number of iterations per start. Defaults to 50.

    Returns:
        Cluster of each row, ``(N,)`` long; no cluster is empty.
    """
    best: tuple[float, Tensor] | None = None
    for _ in range(num_starts):
        centers = _plus_plus(features, num_clusters, generator)
        cluster = None
        for _ in range(max_iterations):
            distance = torch.cdist(features, centers)
            nearest, new = distance.min(1)
            new = _fill_empty(new, nearest, num_clusters)
            if cluster is not None and torch.equal(new, cluster):
                break
            cluster = new
            centers = cluster_means(features, cluster, num_clusters)
        assert cluster is not None
        inertia = float((features - centers[cluster]).square().sum())
        if best is None or inertia < best[0]:
            best = inertia, cluster
    assert best is not None
    return best[1]


def cluster_means(features: Tensor, cluster: Tensor, num_clusters: int) -> Tensor:
    """Mean of the rows of each cluster.

    Args:
        features: ``(N, D)``.
        cluster: Cluster of each row, ``(N,)`` long; no cluster is empty.
        num_clusters: Number of clusters *K*.

    Returns:
        ``(K, D)``.
    """
    size = torch.bincount(cluster, minlength=num_clusters).to(features.dtype)
    total = features.new_zeros(num_clusters, features.shape[1])
    return total.index_add(0, cluster, features) / size[:, None]


def _plus_plus(features: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """Centers drawn with probability proportional to the squared distance to earlier ones."""
    first = torch.randint(len(features), (1,), generator=generator).to(features.device)
    chosen = [first]
    distance = (features - features[first]).square().sum(1)
    for _ in range(num_clusters - 1):
        cumulative = distance.double().cumsum(0).cpu()
        point = torch.rand(1, generator=generator, dtype=torch.float64) * cumulative[-1]
        index = torch.searchsorted(cumulative, point).clamp(max=len(features) - 1)
        chosen.append(index.to(features.device))
        distance = torch.minimum(distance, (features - features[chosen[-1]]).square().sum(1))
    return features[torch.cat(chosen)].clone()


def _fill_empty(cluster: Tensor, distance: Tensor, num_clusters: int) -> Tensor:
    """Give each empty cluster the row that is farthest from its center."""
    size = torch.bincount(cluster, minlength=num_clusters)
    for empty in (size == 0).nonzero().flatten().tolist():
        movable = torch.where(size[cluster] > 1, distance, -torch.inf)
        row = int(movable.argmax())
        size[cluster[row]] -= 1
        size[empty] += 1
        cluster[row] = empty
        distance = distance.clone()
        distance[row] = 0
    return cluster
