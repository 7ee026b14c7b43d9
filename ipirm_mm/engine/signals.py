"""Signals that a scheduler sends to all processes of a job, data workers included."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from mmengine.dataset import worker_init_fn
from mmengine.runner import runner as runner_module


def keep_workers_at_sigterm() -> None:
    """Let data workers outlive the SIGTERM at which the run saves a checkpoint.

    Fault: schedulers send SIGTERM to all processes of a job. PyTorch's data workers end at it, and
    the loader then raises an error in the process that is about to save.
    """
    runner_module.default_worker_init_fn = init_worker


def init_worker(*args: Any, **kwargs: Any) -> None:
    """Do what MMEngine's ``worker_init_fn`` does, and heed only the loader's SIGTERM.

    Args:
        *args: Those of ``worker_init_fn``.
        **kwargs: Those of ``worker_init_fn``.
    """
    worker_init_fn(*args, **kwargs)
    if hasattr(signal, 'sigwaitinfo'):  # not on macOS
        # Threads that start later inherit this; the thread below takes the signal out.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told, daemon=True).start()


def _end_when_told() -> None:
    # The process of the loader ends its workers by this signal when it leaves.
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
