"""Data workers: the signals of a scheduler, and batches that cannot be sent."""

from __future__ import annotations

import errno
import functools
import os
import signal
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.queues import Queue
from typing import Any

from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader

from ipirm_mm.errors import UserError


def mend_workers(loader: DataLoader) -> None:
    """Let the data workers of ``loader`` start by :func:`start_worker`.

    Args:
        loader: Changed in place.
    """
    given = loader.worker_init_fn
    if loader.num_workers and getattr(given, 'func', None) is not start_worker:
        loader.worker_init_fn = functools.partial(start_worker, given)


def start_worker(given: Callable[[int], None] | None, worker_id: int) -> None:
    """Do what the loader asks for, and mend two faults in this worker.

    Fault: schedulers send SIGTERM to all processes of a job, and PyTorch's data workers end at it.
    The loader then raises an error in the process that is about to save a checkpoint. The worker
    heeds only the loader's SIGTERM.

    Fault: where a worker cannot send a batch, on a full disk or without shared memory, Python
    prints the error in the worker and drops the batch. The training waits for it for ever. The
    error is sent instead.

    Args:
        given: ``worker_init_fn`` of the loader.
        worker_id: Number of the worker.
    """
    if given is not None:
        given(worker_id)
    Queue._on_queue_feeder_error = _send_error  # type: ignore[attr-defined]
    if hasattr(signal, 'sigwaitinfo'):  # not on macOS
        # Threads that start later inherit this; the thread below takes the signal out.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told, daemon=True).start()


def _end_when_told() -> None:
    # The process of the loader ends its workers by this signal when it leaves.
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def _send_error(queue: Any, error: Exception, item: tuple[int, Any]) -> None:
    """Send an error in place of the batch ``item``, so that the loader raises it."""
    try:
        raise _explained(error) from error
    except Exception:
        queue.put((item[0], ExceptionWrapper(where='in a data worker')))


def _explained(error: Exception) -> Exception:
    """The error of sending a batch, with its remedy."""
    if getattr(error, 'errno', None) == errno.EMFILE or 'Too many open files' in str(error):
        return UserError(
            f'a data worker cannot send a batch ({error}): raise the limit of open files '
            '(ulimit -n), or set fewer num_workers in the data loaders'
        )
    if 'shared memory' in str(error):
        return error  # `explain` has the sentence
    if isinstance(error, OSError):
        return UserError(
            f'a data worker cannot send a batch ({error}): it needs the temporary folder '
            f'{tempfile.gettempdir()}; free space there, or name another by the environment '
            'variable TMPDIR'
        )
    return UserError(
        f'a data worker cannot send a batch ({type(error).__name__}: {error}): leave out of the '
        'samples what cannot be pickled (PackInputs.meta_keys), or set num_workers=0 in the data '
        'loaders'
    )
