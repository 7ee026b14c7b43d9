"""Runs Python scripts in forks of one process that has imported PyTorch and MMPretrain already.

A script needs some seconds to import them, and the tests start many scripts. Each fork has the
state of a new process after these imports: nothing of pytest, of a test or of an earlier script is
in it, and it ends like any other interpreter. `ipirm_mm` is not imported here, so that each script
still imports it for itself.

`tests/helpers.py` starts this file with the number of a socket. A message on the socket is JSON
(`argv`, `env`, `cwd`, `timeout` in seconds) and carries three file descriptors: standard output,
standard error, and where the exit status is written to as a decimal number. The server ends when
the other end of the socket is closed.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import socket
import sys

SIZE = 1 << 20  # bytes of the largest message


def preload() -> None:
    """Import what takes time, and see that a fork of this process is safe."""
    import cv2  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import mmengine.runner  # noqa: F401
    import mmengine.visualization  # noqa: F401
    import mmpretrain.apis  # noqa: F401
    import mmpretrain.datasets  # noqa: F401
    import mmpretrain.engine  # noqa: F401
    import mmpretrain.evaluation  # noqa: F401
    import mmpretrain.models  # noqa: F401
    import mmpretrain.visualization  # noqa: F401
    import torch.distributed
    import torch.utils.tensorboard  # noqa: F401

    # A thread would not be there in a fork, and whatever lock it holds would be held for ever.
    assert len(os.listdir('/proc/self/task')) == 1, 'an import has started a thread'


def supervise(request: dict, descriptors: list[int]) -> dict:
    """Fork again, and report how the fork ends; returns the request in that fork alone."""
    stdout, stderr, status = descriptors
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        for descriptor in descriptors:
            os.close(descriptor)
        return request
    signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
    signal.alarm(request['timeout'])
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(status, str(code).encode())
    os._exit(0)


def serve(connection: socket.socket) -> dict | None:
    """Fork for each request; returns a request in the fork that has to run it."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that watch
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, SIZE, 3)
        if not message:
            return None
        if os.fork() == 0:
            connection.close()
            return supervise(json.loads(message), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def become(request: dict) -> None:
    """Run the script of a request as if the interpreter had been started with it."""
    import numpy as np
    import torch

    # As in a new process; otherwise all forks would draw the same numbers.
    np.random.seed()
    torch.default_generator.seed()
    os.environ.clear()
    os.environ.update(request['env'])
    os.chdir(request['cwd'])
    sys.argv = request['argv']
    given = [path for path in os.environ.get('PYTHONPATH', '').split(os.pathsep) if path]
    sys.path[:1] = [os.path.dirname(os.path.abspath(sys.argv[0])), *given]
    runpy.run_path(sys.argv[0], run_name='__main__')


if __name__ == '__main__':
    preload()
    gc.collect()
    gc.freeze()  # what is there already is not looked at, and so not copied, in the forks
    received = serve(socket.socket(fileno=int(sys.argv[1])))
    if received is not None:
        become(received)
