"""Local moves: improve a hard partition by moving images between subsets."""

from __future__ import annotations

import torch
from torch import Tensor

from .balance import grow_small_subsets, keeps_min_size
from .objective import BlockedObjective

# Share of the images with a positive gain that the first step moves.
_FIRST_FRACTION = 0.2
# The search ends when a step would move a smaller share of all images.
_LAST_FRACTION = 0.0002


def enforce_min_size(objective: BlockedObjective, assignment: Tensor) -> Tensor:
    """Grow subsets that are too small until the relaxed balance term is near zero.

    The images that move are those for which the gradient of the objective falls least.

    Args:
        objective: The objective.
        assignment: Partition, ``(N,)`` long.

    Returns:
        The partition itself if each subset has ``objective.min_size`` images; otherwise one whose
        small subsets have the share ``1 / (K + 1)``.
    """
    num_subsets = objective.options.num_subsets
    sizes = torch.bincount(assignment, minlength=num_subsets)
    if int(sizes.min()) >= objective.min_size:
        return assignment
    _, gradient = objective.value_and_gradient(assignment)
    target_size = -(-len(assignment) // (num_subsets + 1))
    return grow_small_subsets(assignment, gradient, objective.min_size, target_size)


def local_moves(objective: BlockedObjective, assignment: Tensor) -> tuple[Tensor, list[float]]:
    """Move images as long as the objective rises.

    At a hard partition, the gradient with respect to the weights estimates how much each image
    gains in another subset. The 20 % of the positive gains that are largest move at once if the
    objective rises and no subset becomes too small; otherwise half as many. The search ends when a
    step would move fewer than 0.02 % of the images.

    Args:
        objective: The objective.
        assignment: Partition to start from, ``(N,)`` long.

    Returns:
        The partition, ``(N,)`` long, and the objective at the start and after each step.
    """
    num_subsets, min_size = objective.options.num_subsets, objective.min_size
    value, gradient = objective.value_and_gradient(assignment)
    history = [value]
    fraction = _FIRST_FRACTION
    while True:
        gain, target = (gradient - gradient.gather(1, assignment[:, None])).max(1)
        gaining = (gain > 0).nonzero().flatten()
        count = int(fraction * len(gaining))
        if count < max(1, _LAST_FRACTION * len(assignment)):
            return assignment, history
        movers = gaining[gain[gaining].topk(count).indices]
        moved = assignment.clone()
        moved[movers] = target[movers]
        if keeps_min_size(moved, assignment, num_subsets, min_size):
            new_value, new_gradient = objective.value_and_gradient(moved)
            if new_value > value:
                assignment, value, gradient = moved, new_value, new_gradient
                history.append(value)
                continue
        fraction /= 2
