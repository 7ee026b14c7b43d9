"""Hooks for tests: a run that gets a signal at a given step, or fails in it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS

from ipirm_mm.errors import UserError


@HOOKS.register_module()
class SignalAt(Hook):
    """Send a signal to this process, and to its children, in a step.

    Args:
        iteration: Number of the step, from 0 on.
        name: Name of the signal.
        rank: Which process gets it.
    """

    def __init__(self, iteration: int, name: str = 'SIGTERM', rank: int = 0) -> None:
        self.iteration = iteration
        self.number = getattr(signal, name)
        self.rank = rank

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Send it."""
        if runner.iter != self.iteration or get_rank() != self.rank:
            return
        # From elsewhere, as a scheduler does: workers heed their own parent.
        pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
        subprocess.run(['kill', f'-{int(self.number)}', *map(str, pids)], check=True)


@HOOKS.register_module()
class FailAt(Hook):
    """Let one process fail in a step, and touch ``failed`` in the work folder.

    Args:
        iteration: Number of the step, from 0 on.
        how: ``'kill'`` (SIGKILL), ``'sentence'`` (a mistake of the user), ``'error'`` (any other),
            or ``'nan'`` (pixels that are not finite).
        rank: Which process fails.
    """

    def __init__(self, iteration: int, how: str, rank: int = 1) -> None:
        self.iteration = iteration
        self.how = how
        self.rank = rank

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Fail."""
        if runner.iter != self.iteration or get_rank() != self.rank:
            return
        (Path(runner.work_dir) / 'failed').touch()
        if self.how == 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == 'nan':
            data_batch['inputs'] = data_batch['inputs'] * float('nan')
            return
        raise (UserError if self.how == 'sentence' else ValueError)('this rank has a fault')
