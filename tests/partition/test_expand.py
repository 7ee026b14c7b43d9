"""Partitions of some images, or of clusters, extended to all images."""

from __future__ import annotations

import torch

from ipirm_mm.partition.expand import expand_to_images, extend_by_linear_fit


def two_groups(images=40):
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(images) % 2
    centers = torch.tensor([[3.0, 0, 0], [0, 3, 0]])
    return centers[group] + 0.2 * torch.randn(images, 3, generator=generator), group


def test_known_clusters_give_the_subset_of_each_image():
    features, _ = two_groups()
    cluster = torch.arange(40) % 5
    assignments = [torch.tensor([0, 1, 1, 0, 2]), torch.tensor([2, 1, 0, 0, 0])]
    found = expand_to_images(assignments, cluster, features, 3)
    for partition, assignment in zip(found, assignments):
        assert torch.equal(partition, assignment[cluster])


def test_unknown_images_belong_to_the_nearest_cluster():
    features, group = two_groups()
    images = torch.tensor([6, 3, 0, 7, 9])
    (found,) = expand_to_images(
        [torch.tensor([1, 0])], group[images], features, 2, min_size=4, images=images
    )
    assert torch.equal(found, 1 - group)


def test_small_subset_takes_the_nearest_images():
    # Three clusters on a line; the middle one alone is too small.
    features = torch.tensor([[0.0], [0.1], [0.2], [0.9], [2], [2.1]])
    cluster = torch.tensor([0, 0, 0, 1, 2, 2])
    (found,) = expand_to_images([torch.tensor([0, 1, 0])], cluster, features, 2, min_size=2)
    assert found.tolist() == [0, 0, 1, 1, 0, 0]


def test_subset_without_clusters_takes_the_farthest_images():
    features = torch.tensor([[0.0], [0.1], [0.9], [2], [2.1], [2.6]])
    cluster = torch.tensor([0, 0, 0, 1, 1, 1])
    (found,) = expand_to_images([torch.tensor([0, 1])], cluster, features, 3, min_size=1)
    assert found.tolist() == [0, 0, 2, 1, 1, 1]


def test_linear_fit_extends_to_all_images():
    features, group = two_groups()
    images = torch.tensor([6, 3, 0, 7, 9, 2])
    assert torch.equal(extend_by_linear_fit(group[images], images, features, 2), group)


def test_linear_fit_leaves_no_subset_empty():
    features, group = two_groups()
    images = torch.arange(10)
    found = extend_by_linear_fit(group[images], images, features, 4)
    assert torch.bincount(found, minlength=4).min() >= 1
    found = extend_by_linear_fit(group[images], images, features, 4, min_size=6)
    assert torch.bincount(found, minlength=4).min() >= 6
