"""Weighted k-nearest-neighbor classification."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def knn_predict(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    k: int = 200,
    temperature: float = 0.5,
    num_classes: int | None = None,
    block_size: int = 1024,
    exclude_self: bool = False,
) -> Tensor:
    """Votes of the nearest training images, each weighted by ``exp(cosine / temperature)``.

    Follows the evaluation in the code of Wang et al. (IP-IRM): k = 200 and the temperature of the
    training, on backbone features.

    Args:
        train_features: ``(N, D)``; they are normalized to unit length here.
        train_labels: ``(N,)`` long.
        test_features: ``(M, D)``; normalized as well.
        k: Number of neighbors; reduced to the number of training images if that is smaller.
            Defaults to 200.
        temperature: Temperature of the votes. Defaults to 0.5.
        num_classes: Number of classes *C*. Defaults to None: the highest training label plus one.
        block_size: Number of test images per block, which bounds the memory. Defaults to 1024.
        exclude_self: Whether test image *i* is training image *i* and must not vote for itself
            (leave-one-out). Defaults to False.

    Returns:
        Scores, ``(M, C)``; the prediction is their argmax.

    Raises:
        ValueError: If no training image can vote.
    """
    train = F.normalize(train_features, dim=1)
    test = F.normalize(test_features, dim=1)
    if num_classes is None:
        num_classes = int(train_labels.max()) + 1
    k = min(k, len(train) - int(exclude_self))
    if k < 1:
        raise ValueError('k-NN needs at least one training image other than the image to classify')
    scores = []
    for start, block in zip(range(0, len(test), block_size), test.split(block_size)):
        similarity = block @ train.T
        if exclude_self:
            own = torch.arange(start, start + len(block), device=block.device)
            similarity.scatter_(1, own[:, None], -torch.inf)
        nearest, index = similarity.topk(k, dim=1)
        votes = similarity.new_zeros(len(block), num_classes)
        # Relative to the nearest, against overflow; the ratios of the votes stay the same.
        weight = ((nearest - nearest[:, :1]) / temperature).exp()
        scores.append(votes.scatter_add_(1, train_labels[index], weight))
    return torch.cat(scores)


def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    k: int = 200,
    temperature: float = 0.5,
) -> float:
    """Accuracy of :func:`knn_predict` in percent.

    Args:
        train_features: ``(N, D)``.
        train_labels: ``(N,)`` long.
        test_features: ``(M, D)``.
        test_labels: ``(M,)`` long.
        k: Number of neighbors. Defaults to 200.
        temperature: Temperature of the votes. Defaults to 0.5.

    Returns:
        0 to 100.
    """
    votes = knn_predict(train_features, train_labels, test_features, k, temperature)
    return 100 * float((votes.argmax(1) == test_labels).double().mean())
