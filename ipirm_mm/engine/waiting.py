"""Work that the ranks share out, with waiting in short collectives."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_rank, get_world_size

from ipirm_mm.errors import UserError
from ipirm_mm.partition.sharing import Progress, Task, one_by_one

# Seconds after which the ranks tell each other that they still work. A collective fails after the
# timeout of the process group, which is ten minutes with NCCL; and if a rank has died, this is how
# the others learn of it.
_INTERVAL = 5.0
# Seconds that a rank stays which fails because of another one. Launchers report the rank that they
# find dead first, and PyTorch's looks ten times per second.
PATIENCE = 1.0


class SharedWork:
    """Shares tasks out over the ranks, however long they take.

    All ranks call it, with the same tasks, and all get all results. One that has finished waits
    for the others in collectives that end when the slowest next reports progress, 5 seconds after
    the last or later. Without other ranks, nothing is sent.

    Args:
        device: Device of the tensors that are sent.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._told = time.monotonic()

    def __call__(
        self, tasks: Sequence[Task], report: Progress, costs: Sequence[float] | None = None
    ) -> list[Any]:
        """Do the tasks.

        Args:
            tasks: The tasks, see :data:`ipirm_mm.partition.sharing.Task`.
            report: Told the progress of this rank.
            costs: What each takes, compared with the others. Defaults to None: the same.

        Returns:
            Results of all tasks, in order.

        Raises:
            UserError: If a task of any rank raises it. The other ranks say which.
        """
        costs = costs or [1.0] * len(tasks)
        of_rank = _distribute(costs, get_world_size())
        own = of_rank[get_rank()]
        try:
            results = one_by_one(
                [tasks[place] for place in own],
                partial(self._report, report),
                [costs[place] for place in own],
            )
        except _OtherRankFailed:
            raise
        except UserError:
            self._tell(working=False, failed=True)
            raise
        while self._tell(working=False):
            pass
        shared: list[Any] = [None] * len(tasks)
        for places, found in zip(of_rank, all_gather_object(results)):
            for place, result in zip(places, found):
                shared[place] = result
        return shared

    def _report(self, report: Progress, fraction: float, text: str) -> None:
        """Report progress, and tell the other ranks if they were not told for 5 seconds."""
        report(fraction, text)
        if time.monotonic() - self._told >= _INTERVAL:
            self._tell(working=True)

    def _tell(self, working: bool, failed: bool = False) -> bool:
        """Tell the other ranks; returns whether any rank still works."""
        self._told = time.monotonic()
        failed_rank = get_rank() if failed else -1
        state = torch.tensor([int(working), failed_rank], device=self.device)
        all_reduce(state, op='max')
        any_working, failed_rank = state.tolist()
        if failed_rank >= 0 and not failed:
            raise _OtherRankFailed(f'rank {failed_rank} found no partition; its message says why')
        return bool(any_working)


class _OtherRankFailed(UserError):
    """Another rank has failed, and all know."""


def _distribute(costs: Sequence[float], world: int) -> list[list[int]]:
    """Which tasks each rank does: the next most expensive one goes to the one with the least."""
    of_rank: list[list[int]] = [[] for _ in range(world)]
    for place in sorted(range(len(costs)), key=lambda place: -costs[place]):
        least = min(range(world), key=lambda rank: sum(costs[other] for other in of_rank[rank]))
        of_rank[least].append(place)
    return of_rank
