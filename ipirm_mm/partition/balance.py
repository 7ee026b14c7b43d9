"""Lower bounds on the sizes of subsets.

With ``balance='relaxed'`` the balance term of the objective (report Eq. 3) does not keep two
subsets near the ratio 2:1: the gain of a small, tight group of images against all other images can
exceed what the term subtracts. The solver therefore limits the sizes themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor


def min_subset_size(num_images: int, num_subsets: int, balance: str) -> int:
    """Size below which the solver does not reduce a subset.

    The relaxed balance term is zero down to a smallest share of ``1 / (K + 1)``
    (:func:`~ipirm_mm.functional.partition.entropy_bound`); the limit is three quarters of it.

    Args:
        num_images: Number of images *N*.
        num_subsets: Number of subsets *K*.
        balance: Balance term of the objective.

    Returns:
        Number of images; 0, no limit, unless ``balance`` is ``'relaxed'``.
    """
    return int(0.75 * num_images / (num_subsets + 1)) if balance == 'relaxed' else 0


def keeps_min_size(moved: Tensor, assignment: Tensor, num_subsets: int, min_size: int) -> bool:
    """Whether a move leaves each subset with ``min_size`` images, or no smaller than it was.

    Args:
        moved: Partition after the move, ``(N,)`` long.
        assignment: Partition before the move, ``(N,)`` long.
        num_subsets: Number of subsets *K*.
        min_size: Size from :func:`min_subset_size`.
    """
    if not min_size:
        return True
    before, after = (torch.bincount(a, minlength=num_subsets) for a in (assignment, moved))
    return bool((after >= before.clamp(max=min_size)).all())


def grow_small_subsets(
    assignment: Tensor, scores: Tensor, min_size: int, target_size: int
) -> Tensor:
    """Grow each subset below ``min_size`` to ``target_size``.

    Images come from the subset that is the largest at that moment; those whose score falls least
    (or rises most) move first. No subset that gives images falls below ``target_size``, so that
    with too few images a subset may stay small.

    Args:
        assignment: Partition, ``(N,)`` long.
        scores: Score of each image in each subset, ``(N, K)``.
        min_size: Size from which a subset is left as it is.
        target_size: Size that a smaller subset grows to.

    Returns:
        The new partition, ``(N,)`` long; ``assignment`` is not changed.
    """
    num_subsets = scores.shape[1]
    assignment = assignment.clone()
    sizes = torch.bincount(assignment, minlength=num_subsets)
    for small in (sizes < min_size).nonzero().flatten().tolist():
        while (need := target_size - int(sizes[small])) > 0:
            largest = int(sizes.argmax())
            donors = (assignment == largest).nonzero().flatten()
            gain = scores[donors, small] - scores[donors, largest]
            count = min(need, len(donors) - target_size)
            if count < 1:
                return assignment
            assignment[donors[gain.topk(count).indices]] = small
            sizes = torch.bincount(assignment, minlength=num_subsets)
    return assignment
