"""For tests: a run that says through a pipe what it is doing, so that it can be killed there.

``PHASES`` of the environment names the pipe. A line has what begins, the number of steps that were
done before, and the time in seconds. The first line has the number of the process, which leads a
process group of its own.
"""

import functools
import os
import time
from contextlib import contextmanager

from mmengine.fileio import LocalBackend
from mmengine.runner import EpochBasedTrainLoop, Runner, ValLoop

from ipirm_mm.engine import KNNHook, checkpoint_files
from ipirm_mm.engine.hooks import partition_update_hook
from ipirm_mm.partition import PartitionSolver

PROCESS = os.getpid()
PIPE = os.open(os.environ['PHASES'], os.O_WRONLY)
os.setpgid(0, 0)
phases = ['start']
loops = []


def tell(name):
    """Say what begins; data workers inherit the pipe and say nothing."""
    if os.getpid() == PROCESS:
        done = loops[0]._iter if loops else -1
        os.write(PIPE, f'{name},{done},{time.monotonic()}\n'.encode())


@contextmanager
def phase(name):
    phases.append(name)
    tell(name)
    try:
        yield
    finally:
        phases.pop()
        tell(phases[-1])


def watch(owner, attribute, name):
    """Say when a function begins and ends."""
    original = getattr(owner, attribute)

    @functools.wraps(original)
    def watched(self, *args, **kwargs):
        if isinstance(self, EpochBasedTrainLoop) and not loops:
            loops.append(self)
        with phase(name):
            return original(self, *args, **kwargs)

    setattr(owner, attribute, watched)


tell(PROCESS)
tell('start')
watch(EpochBasedTrainLoop, 'run', 'between steps')
watch(EpochBasedTrainLoop, 'run_iter', 'step')
watch(ValLoop, 'run', 'validation')
watch(KNNHook, '_evaluate', 'k-NN')
watch(partition_update_hook, 'partition_features', 'features for a partition')
watch(PartitionSolver, 'solve', 'solver')
watch(partition_update_hook, 'report_partition', 'report of a partition')
watch(Runner, 'save_checkpoint', 'save: content')
watch(LocalBackend, 'put', 'save: file')
watch(checkpoint_files, 'atomic_write', 'save: last_checkpoint')
watch(os, 'fsync', 'flush to the disk')
watch(os, 'replace', 'rename')
watch(os, 'remove', 'removal of the checkpoint before')
