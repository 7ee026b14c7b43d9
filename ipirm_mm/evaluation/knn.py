"""Weighted k-nearest-neighbour classification."""

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

    Follows the authors' evaluation (k = 200 and the training temperature, on backbone features).

    Args:
        train_features: ``(N, D)``; need not be of unit norm.
        train_labels: ``(N,)`` long.
        test_features: ``(M, D)``.
        k: Number of neighbours, at most the number of training images. Defaults to 200.
        temperature: Temperature of the votes. Defaults to 0.5.
        num_classes: Number of classes *C*. Defaults to None, the highest training label plus one.
        block_size: Test images at once. Defaults to 1024.
        exclude_self: Whether test image *i* is training image *i* and has no vote on itself
            (leave-one-out). Defaults to False.

    Returns:
        Scores, ``(M, C)``; the prediction is their argmax.
    """
    train = F.normalize(train_features, dim=1)
    test = F.normalize(test_features, dim=1)
    if num_classes is None:
        num_classes = int(train_labels.max()) + 1
    k = min(k, len(train) - int(exclude_self))
    if k < 1:
        raise ValueError('k-NN needs at least one training image besides the one to classify')
    scores = []
    for start, block in zip(range(0, len(test), block_size), test.split(block_size)):
        similarity = block @ train.T
        if exclude_self:
            own = torch.arange(start, start + len(block), device=block.device)
            similarity.scatter_(1, own[:, None], -torch.inf)
        nearest, index = similarity.topk(k, dim=1)
        votes = similarity.new_zeros(len(block), num_classes)
        # Shifted by the nearest, which leaves the ratios of the votes as they are.
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
    """Accuracy of :func:`knn_predict`, in percent."""
    votes = knn_predict(train_features, train_labels, test_features, k, temperature)
    return 100 * float((votes.argmax(1) == test_labels).double().mean())
