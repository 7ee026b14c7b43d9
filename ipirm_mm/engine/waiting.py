"""Let all ranks wait for the first one, in short collectives."""

from __future__ import annotations

import time

import torch
from mmengine.dist import broadcast

# Seconds after which the first rank tells the others that it still works. A collective fails
# after the timeout of the process group, which is ten minutes with NCCL; and if another rank has
# died, this is how the first one learns of it.
_INTERVAL = 5.0
# Seconds that a rank stays which fails because of another one. Launchers report the rank that they
# find dead first, and PyTorch's looks ten times per second.
PATIENCE = 1.0
_WORKING, _DONE, _FAILED = 0, 1, 2


class FirstRankWork:
    """Work of the first rank, for which the others wait however long it takes.

    The first rank calls :meth:`keep_waiting` now and then, and :meth:`end` at the end; the others
    call :meth:`wait`. Without other ranks, nothing is sent.

    Args:
        device: Device of the tensors that are sent.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._told = time.monotonic()

    def keep_waiting(self) -> None:
        """Tell the others that the work goes on, if they were not told for 5 seconds."""
        if time.monotonic() - self._told >= _INTERVAL:
            self._tell(_WORKING)

    def end(self, failed: bool = False) -> None:
        """Tell the others that the work has ended.

        Args:
            failed: Whether it failed. Defaults to False.
        """
        self._tell(_FAILED if failed else _DONE)

    def wait(self) -> bool:
        """Wait for the end; returns whether the work failed."""
        while True:
            state = self._tell(_WORKING)
            if state != _WORKING:
                return state == _FAILED

    def _tell(self, state: int) -> int:
        """Broadcast the state of the first rank; returns it."""
        self._told = time.monotonic()
        told = torch.tensor(state, device=self.device)
        broadcast(told)
        return int(told)
