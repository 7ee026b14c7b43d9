"""`tools/reproduce.py`, whose Python commands run in forks of this process, which has imported all.

A new process per step would take some seconds each to import PyTorch and MMPretrain.
"""

import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / 'tools'), str(ROOT)]

import reproduce  # noqa: E402


def start(words):
    """Run a command in a fork."""
    assert words[0] == 'python', words
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        sys.argv = [str(word) for word in words[1:]]
        sys.path[0] = str(Path(words[1]).parent)
        status = 1
        try:
            runpy.run_path(words[1], run_name='__main__')
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(bool(error.code))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


reproduce.start = start
reproduce.cli.run(reproduce.main)
