"""Partitions on the way to the best one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ipirm_mm.functional.information import normalized_mutual_information

from .objective import BlockedObjective
from .sharing import Progress, Share, Task

# Two partitions count as the same above this normalized mutual information.
_SAME_NMI = 0.9


@dataclass
class Candidate:
    """A partition that a start found.

    Attributes:
        assignment: Subset of each image, ``(N,)`` long.
        name: Name of the start, with a number if it gives several kinds, e.g. ``'pca 1'``.
        history: Objective after each step. Defaults to an empty list: the start took no steps.
    """

    assignment: Tensor
    name: str
    history: list[float] = field(default_factory=list)


# Arguments: the objective, a random generator on the CPU, and a function that takes the fraction
# done and a text.
Start = Callable[[BlockedObjective, torch.Generator, Progress], list[Candidate]]


def distinct_partitions(assignments: Sequence[Tensor], max_count: int) -> list[int]:
    """Select partitions that differ from all earlier ones.

    Two partitions count as the same if their normalized mutual information is above 0.9.

    Args:
        assignments: Subset of each image, ``(N,)`` each, best first.
        max_count: Maximum number of partitions to select.

    Returns:
        Indices of the selected partitions, ascending.
    """
    selected: list[int] = []
    for number, assignment in enumerate(assignments):
        nmi = (normalized_mutual_information(assignment, assignments[i]) for i in selected)
        if len(selected) < max_count and not any(float(value) > _SAME_NMI for value in nmi):
            selected.append(number)
    return selected


def number_in_order(assignment: Tensor, num_subsets: int) -> Tensor:
    """Number the subsets in the order of their first images.

    The objective does not depend on the numbers. Which of two numberings of the same subsets a
    search finds can depend on rounding, and so on the number of processes.

    Args:
        assignment: Subset of each image, ``(N,)`` long.
        num_subsets: Number of subsets *K*.

    Returns:
        The same partition; subsets without images have the last numbers.
    """
    images = torch.arange(len(assignment), device=assignment.device)
    first = images.new_full((num_subsets,), len(images))
    first = first.scatter_reduce(0, assignment, images, 'amin')
    return first.argsort(stable=True).argsort()[assignment]


def share_out(
    tasks: Sequence[Task],
    device: torch.device,
    report: Progress,
    share: Share,
    costs: Sequence[float] | None = None,
) -> list[list[Candidate]]:
    """Do tasks that find partitions.

    Args:
        tasks: Tasks that return lists of candidates.
        device: Where the partitions shall be.
        report: Told the progress.
        share: Does the tasks.
        costs: What each takes, compared with the others. Defaults to None: the same.

    Returns:
        What each task found, in the order of the tasks.
    """
    packed = share([partial(_do_and_pack, task) for task in tasks], report, costs)
    return [[unpack(candidate, device) for candidate in found] for found in packed]


def pack(candidate: Candidate) -> Candidate:
    """A candidate as it goes from one process to others: a byte per image, on the CPU."""
    return Candidate(candidate.assignment.byte().cpu(), candidate.name, candidate.history)


def unpack(candidate: Candidate, device: torch.device) -> Candidate:
    """A packed candidate, on a device."""
    assignment = candidate.assignment.to(device).long()
    return Candidate(assignment, candidate.name, candidate.history)


def _do_and_pack(task: Task, report: Progress) -> list[Candidate]:
    """Do a task and pack its candidates."""
    return [pack(candidate) for candidate in task(report)]
