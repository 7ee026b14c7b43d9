"""Stop at a signal, and resume as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import threading
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import distributed

from ipirm_mm.utils import atomic_write
from ipirm_mm.utils.seeding import seed_words

from ..checkpoint_files import LAST
from ..passes import counts_iterations
from ..positions import can_stop_within_epoch, note_position

SIGNALS = tuple(getattr(signal, name) for name in ('SIGTERM', 'SIGUSR1') if hasattr(signal, name))
# In the message hub: the checkpoint that a signal caused, removed when the next one is complete.
STOPPED = 'stopped_checkpoint'


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Save a checkpoint at SIGTERM and SIGUSR1, and let random draws of steps repeat.

    The signals are those by which schedulers announce that they end a job. The run saves a
    checkpoint after the step that it is in, ``iter_N.pth``, and leaves with status 128 and the
    number of the signal added, as a shell reports it (143 for SIGTERM). ``--resume`` goes on with
    the next batch of the epoch. In distributed training a signal to any rank stops all of them,
    one step later: ranks agree by a number that gloo sends while the next step runs, so that no
    step waits for it.

    Before each step the global random generators are seeded by the seed of the run, the
    iteration and the rank. So dropout and other draws of a step do not depend on what the process
    has drawn before, such as an evaluation, and repeat after a resume.

    .. code-block:: python

        default_hooks = dict(exact_resume=dict(type='ExactResumeHook'))
    """

    # After the hooks that a step belongs to, and after CheckpointHook.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._signal = 0
        self._batch_idx = 0
        self._before: dict[int, Any] = {}
        self._group: Any = None
        self._sent: tuple[Any, torch.Tensor] | None = None

    def before_train(self, runner: Runner) -> None:
        """Wait for signals from here on."""
        self._signal = 0
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._note_signal)
        if get_world_size() > 1:
            self._group = distributed.new_group(backend='gloo')

    def _note_signal(self, number: int, frame: Any) -> None:
        self._signal = number

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed what the data loader and unseeded transforms in this process draw."""
        _seed_generators(runner, 0)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None
    ) -> None:
        """Seed the draws of the step.

        Args:
            runner: The runner.
            batch_idx: Number of the batch in the epoch.
            data_batch: Not used.
        """
        self._batch_idx = batch_idx
        _seed_generators(runner, 1)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Save and leave if a signal has come.

        Args:
            runner: The runner.
            batch_idx: Number of the batch in the epoch.
            data_batch: Not used.
            outputs: Not used.
        """
        number = self._agreed_signal()
        steps = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        # Gradients that wait for their step are not in a checkpoint.
        complete = (runner.iter + 1) % steps == 0
        known = counts_iterations(runner) or can_stop_within_epoch(runner.train_loop)
        if number and complete and known:
            self._stop(runner, number)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note the position in the epoch."""
        note_position(runner, checkpoint['meta'], self._batch_idx)

    def after_train_epoch(self, runner: Runner) -> None:
        """Remove the checkpoint of an earlier signal when this run has saved one."""
        hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
        if any(hook.last_ckpt is not None for hook in hooks):
            _remove_stopped(runner)

    def after_train(self, runner: Runner) -> None:
        """Leave signals to whom they were left before."""
        self._agreed_signal(last=True)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _agreed_signal(self, last: bool = False) -> int:
        """A signal that any rank had got one step ago; 0 if none."""
        if self._group is None:
            return self._signal
        agreed = 0
        if self._sent is not None:
            work, number = self._sent
            work.wait()
            agreed = int(number)  # on the processor: the device goes on
        self._sent = None
        if not last and not agreed:
            number = torch.tensor([self._signal])
            operation = distributed.ReduceOp.MAX
            work = distributed.all_reduce(number, operation, self._group, async_op=True)
            self._sent = work, number
        return agreed

    def _stop(self, runner: Runner, number: int) -> None:
        path = _save(runner)
        if self._group is not None:
            distributed.barrier(self._group)  # a launcher kills the ranks after the first to end
        runner.logger.warning(
            f'{signal.Signals(number).name}: saved {path} after iteration {runner.iter + 1}; '
            'go on with --resume'
        )
        self.after_train(runner)
        raise SystemExit(128 + number)


def _save(runner: Runner) -> str:
    """Save a checkpoint after the current step; returns its path."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    hook = hooks[0] if hooks else None
    if hook is not None and counts_iterations(runner) and not hook.by_epoch:
        name = hook.filename_tmpl.format(runner.iter + 1)
        if hook.last_ckpt is None or os.path.basename(hook.last_ckpt) != name:
            hook._save_checkpoint(runner)
        return str(hook.last_ckpt)
    folder = str(hook.out_dir) if hook is not None else runner.work_dir
    name = f'iter_{runner.iter + 1}.pth'
    path = os.path.join(folder, name)
    _remember, earlier = runner.message_hub.update_info, _stopped(runner)
    _remember(STOPPED, path)
    runner.save_checkpoint(
        folder,
        name,
        getattr(hook, 'file_client_args', None),
        by_epoch=False,
        backend_args=getattr(hook, 'backend_args', None),
    )
    if is_main_process():
        atomic_write(os.path.join(runner.work_dir, LAST), path)
        if earlier and earlier != path and os.path.isfile(earlier):
            os.remove(earlier)
    return path


def _stopped(runner: Runner) -> str | None:
    return runner.message_hub.runtime_info.get(STOPPED)


def _remove_stopped(runner: Runner) -> None:
    path = _stopped(runner)
    if path and is_main_process() and os.path.isfile(path):
        os.remove(path)
    runner.message_hub.runtime_info.pop(STOPPED, None)


def _seed_generators(runner: Runner, use: int) -> None:
    words = seed_words(runner.seed, runner.iter, get_rank(), use)
    random.seed(int(words[0]))
    np.random.seed(words[1:3])
    torch.manual_seed(int(words[3]))
