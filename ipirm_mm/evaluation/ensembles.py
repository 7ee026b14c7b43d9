"""Ensembles: the weights of their members, and how much the members disagree."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from ipirm_mm.functional import yes_and_no
from ipirm_mm.functional.scores import WEIGHTED_POLICIES


def fit_weights(
    scores: Tensor, labels: Tensor, max_iterations: int = 200, policy: str = 'weighted'
) -> Tensor:
    r"""Weights of an ensemble that minimize the log-loss of its merged scores.

    .. math::
        \min_w -\tfrac{1}{N} \sum_i \log \frac{\sum_j w_j \, s_j(y_i | x_i)}
        {\sum_c \sum_j w_j \, s_j(c | x_i)}, \quad w_j \geq 0, \; \sum_j w_j = 1

    with :math:`s = p` for ``'weighted'``, where the denominator is 1, and :math:`s = p^{1/2}` for
    ``'weighted_tsharpen'``. The first problem is convex in *w*; the second need not be. Both are
    solved by L-BFGS on the logits of *w*, starting from equal weights, so that the result does
    not depend on a seed. The report has weighted ensembles and does not say how it chose the
    weights.

    With several labels per image each label is a classification into yes and no, and the log-loss
    is the mean over all labels of all images.

    Args:
        scores: Probabilities of the *A* members, ``(A, N, C)``.
        labels: Classes, ``(N,)`` long, or the labels of each image, ``(N, C)`` bool.
        max_iterations: Maximum number of L-BFGS iterations. Defaults to 200.
        policy: Policy that the weights are for, ``'weighted'`` or ``'weighted_tsharpen'``, see
            :func:`~ipirm_mm.functional.merge_scores`. Defaults to ``'weighted'``.

    Returns:
        ``(A,)`` float64, not negative, with sum 1.

    Raises:
        ValueError: If the policy has no weights.
    """
    if policy not in WEIGHTED_POLICIES:
        raise ValueError(f'policy must be one of {WEIGHTED_POLICIES}, but is {policy!r}')
    if labels.ndim == 2:
        scores, labels = yes_and_no(scores.double()), (~labels).long().flatten()
    members, images = scores.shape[:2]
    scores = scores.double()
    total = None  # of the scores of an image, where it is not 1
    if policy == 'weighted_tsharpen':
        scores = scores.sqrt()
        total = scores.sum(2)
    own = scores[:, torch.arange(images, device=scores.device), labels]
    # Where every member gives the class probability zero, the loss stays finite this way, and is
    # the same for all weights.
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
        weights = logits.softmax(0)
        loss = -(weights @ own).log().mean()
        if total is not None:
            loss = loss + (weights @ total).log().mean()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return logits.detach().softmax(0)


def disagreement(predicted: Tensor) -> float:
    """Fraction of the images on which two members predict different classes, mean over pairs.

    Args:
        predicted: Probabilities of the members, ``(A, N, C)`` float, of which the highest counts;
            or their predicted labels, ``(A, N, C)`` bool.

    Returns:
        0 to 1; 0 for one member.
    """
    if predicted.is_floating_point():
        predicted = predicted.argmax(2, keepdim=True)
    pairs = list(combinations(range(len(predicted)), 2))
    if not pairs:
        return 0.0
    differ = [(predicted[i] != predicted[j]).any(1).double().mean() for i, j in pairs]
    return sum(map(float, differ)) / len(pairs)
