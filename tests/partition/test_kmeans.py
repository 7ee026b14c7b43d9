"""k-means on clusters that are known."""

from __future__ import annotations

import pytest
import torch

from ipirm_mm.functional import normalized_mutual_information
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


def test_cluster_means():
    features = torch.tensor([[1.0, 0], [3, 2], [5, 5]])
    means = cluster_means(features, torch.tensor([1, 1, 0]), 2)
    assert means.tolist() == [[5, 5], [2, 1]]
