"""k-means on clusters that are known."""

from __future__ import annotations

import pytest
import torch

from ipirm_mm.functional import normalized_mutual_information
from ipirm_mm.partition import kmeans as module
from ipirm_mm.partition.kmeans import cluster_means, kmeans


def test_finds_clusters_and_leaves_none_empty():
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(200) % 8
    centers = 4 * torch.eye(8)
    points = centers[truth] + 0.1 * torch.randn(200, 8, generator=generator)
    found = kmeans(points, 8, generator)
    assert normalized_mutual_information(found, truth).item() == pytest.approx(1)
    same = torch.ones(6, 3)
    assert torch.bincount(kmeans(same, 4, generator), minlength=4).min() >= 1


def inertia(points, cluster):
    return float((points - cluster_means(points, cluster, 20)[cluster]).square().sum())


def test_centers_of_a_sample_are_as_good(monkeypatch):
    """Without clusters to find, where the fit depends most on the rows."""
    points = torch.randn(6000, 8, generator=torch.Generator().manual_seed(0))
    full = [
        inertia(points, kmeans(points, 20, torch.Generator().manual_seed(s))) for s in range(3)
    ]
    monkeypatch.setattr(module, '_FITTED_ROWS', 2000)
    monkeypatch.setattr(module, '_FITTED_ROWS_PER_CLUSTER', 10)
    monkeypatch.setattr(module, '_CHUNK_ROWS', 999)
    fitted = []
    plus_plus = module._plus_plus
    monkeypatch.setattr(
        module,
        '_plus_plus',
        lambda rows, *rest: fitted.append(len(rows)) or plus_plus(rows, *rest),
    )
    for seed in range(3):
        found = kmeans(points, 20, torch.Generator().manual_seed(seed))
        assert torch.bincount(found, minlength=20).min() >= 1 and len(found) == 6000
        assert inertia(points, found) < 1.03 * min(full)
        nearest = torch.cdist(points, cluster_means(points, found, 20)).argmin(1)
        assert (nearest == found).float().mean() > 0.9
    assert fitted == [2000] * 9  # three starts each


def test_cluster_means():
    features = torch.tensor([[1.0, 0], [3, 2], [5, 5]])
    means = cluster_means(features, torch.tensor([1, 1, 0]), 2)
    assert means.tolist() == [[5, 5], [2, 1]]
