"""Merge the probabilities of several views or models (report Section 4.2, Tables 1 and 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._common import at_least_float32

# Policies that need a weight for each member.
WEIGHTED_POLICIES = ('weighted', 'weighted_tsharpen')
POLICIES = ('mean', 'gmean', 'tsharpen', *WEIGHTED_POLICIES)


def merge_scores(
    scores: Tensor, policy: str = 'mean', weights: Tensor | Sequence[float] | None = None
) -> Tensor:
    r"""Merge the probabilities of *A* views or models (report: "merging policy").

    .. math::
        \text{mean: } \tfrac{1}{A} \sum_j p_j \quad
        \text{gmean: } \exp\big(\tfrac{1}{A} \sum_j \log p_j\big) \quad
        \text{tsharpen: } \tfrac{1}{A} \sum_j p_j^{1/2}

        \text{weighted: } \sum_j w_j p_j \big/ \sum_j w_j \quad
        \text{weighted\_tsharpen: } \sum_j w_j p_j^{1/2} \big/ \sum_j w_j

    The last is one reading of the report's "t-sharpening and weighted ensemble was used as our
    ensemble policy"; its Table 2 has the two as separate rows.

    Rows are then scaled to sum to 1, which does not change the order of the classes. The geometric
    mean is computed with logarithms. There a probability of zero counts as the smallest positive
    number of the dtype, so that one member cannot make a row of zeros.

    Args:
        scores: Probabilities, ``(A, N, C)``.
        policy: ``'mean'``, ``'gmean'``, ``'tsharpen'``, ``'weighted'`` or
            ``'weighted_tsharpen'``. Defaults to ``'mean'``.
        weights: Weight of each member, ``(A,)``, not negative, for the last two policies only.
            Defaults to None.

    Returns:
        ``(N, C)``, rows sum to 1; at least float32.

    Raises:
        ValueError: If the policy is unknown, shapes do not match, or weights are missing,
            negative, all zero, or given for another policy.
    """
    if scores.ndim != 3 or not len(scores):
        raise ValueError(f'scores must be (A, N, C) with A >= 1, but is {tuple(scores.shape)}')
    if policy not in POLICIES:
        raise ValueError(f'policy must be one of {POLICIES}, but is {policy!r}')
    if (weights is not None) != (policy in WEIGHTED_POLICIES):
        raise ValueError(
            f'policy {policy!r} needs weights'
            if weights is None
            else f'weights go with a policy of {WEIGHTED_POLICIES}, not with {policy!r}'
        )
    scores = at_least_float32(scores)
    if policy == 'gmean':
        # In the softmax of the mean logarithm the largest class is at exp(0): no underflow.
        return scores.clamp_min(torch.finfo(scores.dtype).tiny).log().mean(0).softmax(1)
    if policy in ('tsharpen', 'weighted_tsharpen'):
        scores = scores.sqrt()  # away from zero: no underflow, and no logarithm of zero
    if weights is not None:
        share = torch.as_tensor(weights, dtype=scores.dtype, device=scores.device)
        if share.shape != scores.shape[:1] or bool((share < 0).any()) or not bool(share.sum() > 0):
            raise ValueError(
                f'weights must be {len(scores)} numbers, none negative and not all zero, but are '
                f'{share.tolist()}'
            )
        merged = torch.einsum('a,anc->nc', share / share.sum(), scores)
    else:
        merged = scores.sum(0)
    return merged / merged.sum(1, keepdim=True)


def merge_label_scores(
    scores: Tensor, policy: str = 'mean', weights: Tensor | Sequence[float] | None = None
) -> Tensor:
    """Merge the scores of several labels per image: each label is a distribution of yes and no.

    The scores of the labels of an image do not compete, so their sum means nothing. Each label is
    merged on its own by :func:`merge_scores`, over its probability and the rest to 1: equal
    members give their own score, and scores of 0.5 stay on the side of 0.5 on which they are.

    Args:
        scores: Probability of each label, ``(A, N, C)``.
        policy: As for :func:`merge_scores`. Defaults to ``'mean'``.
        weights: As for :func:`merge_scores`. Defaults to None.

    Returns:
        ``(N, C)``, each between 0 and 1; at least float32.

    Raises:
        ValueError: As :func:`merge_scores`.
    """
    if scores.ndim != 3 or not len(scores):
        raise ValueError(f'scores must be (A, N, C) with A >= 1, but is {tuple(scores.shape)}')
    merged = merge_scores(yes_and_no(scores), policy, weights)
    return merged[:, 0].view(scores.shape[1:])


def yes_and_no(scores: Tensor) -> Tensor:
    """Each label of each image as a classification into yes and no.

    Args:
        scores: Probability of each label, ``(A, N, C)``.

    Returns:
        ``(A, N * C, 2)``; at least float32.
    """
    scores = at_least_float32(scores)
    return torch.stack([scores, 1 - scores], -1).flatten(1, 2)


def select_labels(score: Tensor, thr: float | None = 0.5, topk: int | None = None) -> Tensor:
    """Labels of an image by the rule of MMPretrain's ``MultiLabelClsHead``.

    Args:
        score: Score of each label, ``(C,)``.
        thr: Labels with at least this score are predicted. Defaults to 0.5.
        topk: Number of labels that are predicted if ``thr`` is None. Defaults to None: one.

    Returns:
        Indices of the labels, long.
    """
    if thr is not None:
        return torch.where(score >= thr)[0]
    return score.topk(topk or 1).indices
