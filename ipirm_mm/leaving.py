"""How a tool ends when it fails: its message last, and no other process left waiting."""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import time
import traceback

from mmengine.dist import get_rank

from .engine.waiting import PATIENCE
from .explain import find_user_error

# What gloo, PyTorch's store and NCCL say if the process at the other end has ended.
_OTHER_ENDED = re.compile(
    r'Connection (?:closed|reset) by peer|Connection was likely closed|'
    r'(?<=gloo).*(?:Read error|Broken pipe|Socket closed)|remote process exited|ncclRemoteError'
)


def leave_with(error: BaseException) -> None:
    """Say why a tool fails, and exit with status 1.

    A mistake of the user is one sentence; ``IPIRM_TRACEBACK=1`` adds the traceback. A rank that
    fails because another one has ended says only that. PyTorch's launcher repeats the message of
    the rank that failed first at the end of its report.

    Args:
        error: What the tool has raised, and is being handled.
    """
    sentence = find_user_error(error)
    whole = os.environ.get('IPIRM_TRACEBACK') == '1'
    lost = None if sentence is not None or whole else _why_lost(error)
    if lost:
        line = f'rank {get_rank()} stops, because another process of the run has ended ({lost})'
        print(line, file=sys.stderr, flush=True)
        time.sleep(PATIENCE)
    elif sentence is None or whole:
        text = traceback.format_exc()
        print(text, end='', file=sys.stderr)
        _tell_launcher(text)
    else:
        print(f'error: {sentence}', file=sys.stderr)
        _tell_launcher(f'error: {sentence}')
    sys.stdout.flush()
    sys.stderr.flush()
    if _is_distributed():
        os._exit(1)  # a rank that waits for other ranks in its exit handlers would never end
    sys.exit(1)


def end_distributed() -> None:
    """Destroy the process group, which MMEngine's runner leaves to the exit of the interpreter.

    There, a thread of the group that is still running aborts the process ("terminate called
    without an active exception"), and the launcher reports a finished training as failed.
    """
    if _is_distributed():
        from torch import distributed

        distributed.barrier()  # no rank leaves while another still communicates
        gc.collect()  # reference cycles of the runner, in which DDP holds the group
        distributed.destroy_process_group()


def _is_distributed() -> bool:
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized()


def _why_lost(error: BaseException | None) -> str | None:
    """What a library says of another process that has ended; None if it is something else."""
    while error is not None and _is_distributed():
        found = _OTHER_ENDED.search(str(error)) if isinstance(error, RuntimeError) else None
        if found:
            return found.group().rpartition('] ')[2]
        error = error.__cause__ or error.__context__
    return None


def _tell_launcher(text: str) -> None:
    """Write a message where PyTorch's launcher looks for that of a rank that has failed."""
    path = os.environ.get('TORCHELASTIC_ERROR_FILE')
    if path:
        more = dict(py_callstack=text, timestamp=str(int(time.time())))
        with open(path, 'w', encoding='utf-8') as file:
            json.dump(dict(message=dict(message=text, extraInfo=more)), file)
