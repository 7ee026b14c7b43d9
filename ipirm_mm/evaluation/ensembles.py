"""What an ensemble is worth: weights of its members, and how much they disagree."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor


def fit_weights(scores: Tensor, labels: Tensor, max_iterations: int = 200) -> Tensor:
    r"""Weights of an ensemble that minimise the log-loss of its mixture (report: "weighted").

    .. math::
        \min_w -\tfrac{1}{N} \sum_i \log \sum_j w_j \, p_j(y_i | x_i), \quad
        w_j \geq 0, \; \sum_j w_j = 1

    which is convex in *w*. Solved by L-BFGS on the logits of *w*, from equal weights, so that it
    depends on no seed. The report does not say how it chose its weights.

    Args:
        scores: Probabilities of the members, ``(A, N, C)``.
        labels: Classes, ``(N,)`` long.
        max_iterations: Most iterations of L-BFGS. Defaults to 200.

    Returns:
        ``(A,)`` float64, not negative, with sum 1.
    """
    members, images = scores.shape[:2]
    own = scores.double()[:, torch.arange(images, device=scores.device), labels]
    # A class that no member holds possible costs the same for all weights, and no infinity.
    own = own.clamp(min=torch.finfo(torch.float32).tiny)
    logits = own.new_zeros(members, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits],
        max_iter=max_iterations,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn='strong_wolfe',
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -(logits.softmax(0) @ own).log().mean()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return logits.detach().softmax(0)


def disagreement(scores: Tensor) -> float:
    """Share of the images on which two members predict different classes, mean over pairs.

    Args:
        scores: Probabilities of the members, ``(A, N, C)``.

    Returns:
        0 to 1; 0 for one member.
    """
    predicted = scores.argmax(2)
    pairs = list(combinations(range(len(predicted)), 2))
    if not pairs:
        return 0.0
    return sum(float((predicted[i] != predicted[j]).double().mean()) for i, j in pairs) / len(
        pairs
    )
