"""Extend a partition of clusters, or of some images, to all images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .balance import grow_small_subsets
from .kmeans import cluster_means


def expand_to_images(
    cluster_assignments: Sequence[Tensor],
    cluster: Tensor,
    features: Tensor,
    num_subsets: int,
    min_size: int = 0,
    images: Tensor | None = None,
) -> list[Tensor]:
    """Partitions of all images from partitions of their clusters.

    An image whose cluster is not known belongs to the cluster with the nearest mean. Subsets below
    ``min_size`` take the images that are nearest to their clusters, relative to the distance to
    the clusters that they leave. A subset without clusters takes the images that are farthest from
    theirs.

    Args:
        cluster_assignments: Subset of each cluster, ``(C,)`` long each.
        cluster: Cluster of each image in ``images``; no cluster is empty.
        features: Features of all images, ``(N, D)``.
        num_subsets: Number of subsets *K*.
        min_size: Minimum number of images per subset. Defaults to 0.
        images: Indices of the images whose cluster is known, in the order of ``cluster``. Defaults
            to None: all images, in order.

    Returns:
        Subset of each image, ``(N,)`` long, for each of ``cluster_assignments``.
    """
    known = features if images is None else features[images]
    means = cluster_means(known, cluster, len(cluster_assignments[0]))
    distance = torch.cdist(features, means)
    if images is not None:
        cluster = distance.argmin(1)
    partitions = []
    for assignment in cluster_assignments:
        scores = distance.new_zeros(len(distance), num_subsets)
        for subset in assignment.unique().tolist():
            scores[:, subset] = -distance[:, assignment == subset].amin(1)
        # A subset can be large enough among the images with a known cluster, and too small among
        # all images.
        partitions.append(grow_small_subsets(assignment[cluster], scores, min_size, min_size))
    return partitions


def extend_by_linear_fit(
    assignment: Tensor,
    images: Tensor,
    features: Tensor,
    num_subsets: int,
    min_size: int = 0,
) -> Tensor:
    """Extend a partition of some images to all images by a linear fit to their features.

    Ridge regression of the one-hot subsets, then the argmax. All images get their subset from the
    fit, also those in ``images``: the fit smooths out what is peculiar to these images, so that
    the objective of the result holds for other images too.

    Args:
        assignment: Subset of each image in ``images``, long.
        images: Indices of these images.
        features: Features of all images, ``(N, D)``.
        num_subsets: Number of subsets *K*.
        min_size: Minimum number of images per subset, at least 1. Defaults to 0.

    Returns:
        Subset of each image, ``(N,)`` long.
    """
    ones = features.new_ones(len(features), 1)
    inputs = torch.cat((features, ones), 1).double()
    known = inputs[images]
    target = F.one_hot(assignment, num_subsets).double()
    ridge = 1e-3 * len(images) / inputs.shape[1]
    gram = known.T @ known + ridge * torch.eye(known.shape[1]).to(known)
    scores = inputs @ torch.linalg.solve(gram, known.T @ target)
    min_size = max(min_size, 1)
    return grow_small_subsets(scores.argmax(1), scores, min_size, min_size)
