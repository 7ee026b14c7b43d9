"""k-means on features."""

from __future__ import annotations

import torch
from torch import Tensor

# Rows that the centers are fitted to: at most so many, or so many per cluster if that is more. The
# inertia changes by less than from one start to another.
_FITTED_ROWS = 50_000
_FITTED_ROWS_PER_CLUSTER = 1000
# Rows whose distances are computed at once.
_CHUNK_ROWS = 2**15


def kmeans(
    features: Tensor,
    num_clusters: int,
    generator: torch.Generator,
    num_starts: int = 3,
    max_iterations: int = 50,
) -> Tensor:
    """Lloyd's algorithm from k-means++ starts; the start with the lowest inertia wins.

    With more rows than 50,000 and than 1,000 per cluster, centers are fitted to a random sample of
    that many. Implemented here so that features stay on their device and scikit-learn is not
    needed.

    Args:
        features: ``(N, D)``.
        num_clusters: Number of clusters *K*, at most N.
        generator: Random generator of the starts, on the CPU.
        num_starts: Number of starts. Defaults to 3.
        max_iterations: Maximum number of iterations per start. Defaults to 50.

    Returns:
        Cluster of each row, ``(N,)`` long; no cluster is empty.
    """
    fitted = max(_FITTED_ROWS, _FITTED_ROWS_PER_CLUSTER * num_clusters)
    if len(features) > fitted:
        chosen = torch.randperm(len(features), generator=generator)[:fitted].sort().values
        sample = features[chosen.to(features.device)]
        of_sample = kmeans(sample, num_clusters, generator, num_starts, max_iterations)
        nearest, found = _nearest(features, cluster_means(sample, of_sample, num_clusters))
        return _fill_empty(found, nearest, num_clusters)
    best: tuple[float, Tensor] | None = None
    for _ in range(num_starts):
        centers = _plus_plus(features, num_clusters, generator)
        cluster = None
        for _ in range(max_iterations):
            nearest, new = _nearest(features, centers)
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


def _nearest(features: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of each row to the nearest center, and its number, ``(N,)`` each."""
    found = [torch.cdist(rows, centers).min(1) for rows in features.split(_CHUNK_ROWS)]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


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
