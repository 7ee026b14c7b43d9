"""Stop a training whose numbers are not finite, before they reach a checkpoint."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.options import check_one_of, check_whole
from ipirm_mm.utils.finite import find_non_finite

from ..averaging import unwrap
from ..batches import BAD_PIXELS, describe_batch
from ..waiting import PATIENCE

ACTIONS = ('stop', 'skip')
# Logged values that are checked: MMEngine adds up those with "loss" in their names, and our heads
# log the parts of theirs under the other names.
CHECKED = ('loss', 'risk', 'penalty')
# What of a checkpoint must be finite.
SAVED = ('state_dict', 'ema_state_dict', 'optimizer')


class _Step(NamedTuple):
    """A step whose flags are not read yet.

    Attributes:
        number: Its number, counted from 1.
        samples: The data samples of its batch.
        names: What the flags are for.
        flags: Which of them are not finite, ``(number of names,)`` bool.
        event: Tells when the flags have arrived from the GPU; None if nothing tells it.
    """

    number: int
    samples: Any
    names: list[str]
    flags: Tensor
    event: Any

    def arrived(self) -> bool:
        """Whether the flags can be read without waiting."""
        return self.flags.device.type == 'cpu' if self.event is None else self.event.query()

    def bad(self) -> list[str]:
        """Names of what is not finite; waits for the device."""
        if self.event is not None:
            self.event.synchronize()
        return [name for name, flag in zip(self.names, self.flags.tolist()) if flag]


@HOOKS.register_module()
class NonFiniteGuardHook(Hook):
    """Stops a training when a loss, a penalty or a gradient is not finite (NaN or infinite).

    The message has the iteration, the images of its batch, and the last checkpoint. It works with
    every model of MMPretrain. ``configs/_base_/default_runtime.py`` has it among its
    ``default_hooks``, and ``tools/train.py`` adds it where a config lacks it.

    On an accelerator no step waits for it: flags are computed there, copied beside the work, and
    read when they have arrived, at the latest after ``interval`` steps. Before a checkpoint is
    written and at the end of each epoch, all flags are read, and the weights themselves are
    checked; a checkpoint that would have such a value is not written.

    With mixed precision, steps that the scaler of the gradients leaves out, because they exceed
    half precision, are no error; a loss that is not finite is.

    Args:
        action: ``'stop'``, or ``'skip'``: a step whose gradients are not finite is left out (the
            weights, the optimizer and the running statistics stay as they were), with a warning;
            ``skipped_steps`` in the log counts them. Then the device is waited for in each step.
            Defaults to ``'stop'``.
        max_skips: Number of steps in a row that may be left out; one more stops the training.
            Defaults to 10.
        interval: Maximum number of steps after which the flags of a step are read. Defaults to 50.

    Raises:
        UserError: If an option is out of range; in training, if a number is not finite.
    """

    # Before EMAHook (NORMAL) averages the weights and CheckpointHook (VERY_LOW) saves them.
    priority = 'ABOVE_NORMAL'

    def __init__(self, action: str = 'stop', max_skips: int = 10, interval: int = 50) -> None:
        check_one_of('NonFiniteGuardHook.action', action, ACTIONS)
        for name, value in (('max_skips', max_skips), ('interval', interval)):
            check_whole(f'NonFiniteGuardHook.{name}', value)
        self.action = action
        self.max_skips = max_skips
        self.interval = interval
        self.skipped = 0
        self._in_a_row = 0
        self._pending: deque[_Step] = deque()
        self._gradient: Tensor | None = None  # flag of this step
        self._stepped = False
        self._left_out = False
        self._buffers: list[tuple[Tensor, Tensor]] = []
        self._handles: list[Any] = []
        self._infinite: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        """Look at the gradients from now on, before each step of the optimizers.

        Args:
            runner: The runner, about to train.
        """
        # What is built infinite, such as the mask of an attention, may stay so.
        self._infinite = {
            name
            for name, buffer in unwrap(runner.model).named_buffers()
            if find_non_finite(buffer, name)
        }
        for wrapper in _wrappers(runner.optim_wrapper):
            optimizer = getattr(wrapper, 'optimizer', None)
            if not isinstance(optimizer, torch.optim.Optimizer):
                continue
            self._handles.append(optimizer.register_step_pre_hook(self._look_at_gradients))
            if self.action == 'skip' and not hasattr(wrapper, 'loss_scaler'):
                wrapper.step = self._unless_bad(wrapper.step, optimizer)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None
    ) -> None:
        """Forget the step before, and keep what a step that is left out must not change.

        Args:
            runner: The runner.
            batch_idx: Not used.
            data_batch: Not used.
        """
        self._gradient, self._stepped, self._left_out = None, False, False
        if self.action == 'skip':
            self._buffers = [
                (buffer, buffer.detach().clone())
                for buffer in unwrap(runner.model).buffers()
                if buffer.is_floating_point()
            ]

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Flag what is not finite in a step, and read the flags that have arrived.

        Args:
            runner: The runner.
            batch_idx: Not used.
            data_batch: The batch, whose images a message names.
            outputs: Losses and values for the log.
        """
        values = {
            name: value.detach().float().reshape(())
            for name, value in (outputs or {}).items()
            if isinstance(value, Tensor)
            and value.is_floating_point()
            and value.numel() == 1
            and any(word in name for word in CHECKED)
        }
        names, flags = list(values), []
        if values:
            flags.append(~torch.isfinite(torch.stack(list(values.values()))))
        if self._gradient is not None:
            names.append('the gradient')
            device = flags[0].device if flags else self._gradient.device
            flags.append(self._gradient.to(device).reshape(1))
        if flags:
            samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
            self._pending.append(_step(runner.iter + 1, samples, names, torch.cat(flags)))
        if self.action == 'skip':
            self._skip_or_stop(runner, data_batch)
        while self._pending and (self._pending[0].arrived() or len(self._pending) > self.interval):
            self._read(runner, data_batch)

    def after_train_epoch(self, runner: Runner) -> None:
        """Read all flags and check the weights, before the epoch is validated or saved.

        Args:
            runner: The runner.
        """
        self._read_all(runner)
        self._check_saved(runner, dict(state_dict=unwrap(runner.model).state_dict()))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse to write a checkpoint that has a value that is not finite.

        Args:
            runner: The runner.
            checkpoint: What is about to be written.
        """
        self._read_all(runner)
        self._check_saved(runner, checkpoint)

    def after_train(self, runner: Runner) -> None:
        """Read the flags that are left, and let the optimizers alone.

        Args:
            runner: The runner.
        """
        self._read_all(runner)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _look_at_gradients(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._stepped = True
        if self._gradient is None:
            self._gradient = gradient_flag(optimizer)
        else:
            flag = gradient_flag(optimizer)
            if flag is not None:
                self._gradient = self._gradient | flag.to(self._gradient.device)

    def _unless_bad(self, step: Callable[..., None], optimizer: Any) -> Callable[..., None]:
        def guarded(**kwargs: Any) -> None:
            flag = gradient_flag(optimizer)
            if flag is not None and bool(flag):
                self._gradient, self._left_out = flag, True
            else:
                step(**kwargs)

        return guarded

    def _skip_or_stop(self, runner: Runner, batch: Any) -> None:
        """Undo what a step has changed whose gradients are not finite, and count it."""
        if not self._pending:
            return
        bad = self._pending[-1].bad()
        # The scaler of mixed precision leaves out the step of a loss that is not finite by itself.
        if not bad or not (self._left_out or not self._stepped):
            self._in_a_row = 0
            return
        step = self._pending.pop()
        self._in_a_row += 1
        self.skipped += 1
        if self._in_a_row > self.max_skips:
            raise UserError(
                f'{self._sentence(runner, step, bad, batch)} (this is the step after '
                f'NonFiniteGuardHook.max_skips={self.max_skips} that were left out in a row)'
            )
        with torch.no_grad():
            for buffer, before in self._buffers:
                buffer.copy_(before)
        runner.message_hub.update_scalar('train/skipped_steps', self.skipped)
        runner.logger.warning(
            f'Iteration {step.number} is left out, the {self.skipped}. of this run: '
            f'{", ".join(bad)} not finite; {describe_batch(step.samples, batch)}'
        )

    def _read(self, runner: Runner, batch: Any = None) -> None:
        step = self._pending.popleft()
        bad = step.bad()
        if bad:
            current = batch if step.number == runner.iter + 1 else None
            raise UserError(self._sentence(runner, step, bad, current))

    def _read_all(self, runner: Runner) -> None:
        while self._pending:
            self._read(runner)

    def _sentence(self, runner: Runner, step: _Step, bad: list[str], batch: Any) -> str:
        where, images = '', describe_batch(step.samples, batch)
        if get_world_size() > 1:
            where = f' on rank {get_rank()}'
            if not images.endswith(BAD_PIXELS):
                # Gradients are averaged: all ranks stop, and the one at fault shall be the first.
                time.sleep(PATIENCE)
                images += ', and those of other ranks'
        return (
            f'training is stopped in iteration {step.number}{where}, because '
            f'{", ".join(bad)} {"are" if len(bad) > 1 else "is"} not finite: '
            f'{images}; {last_checkpoint(runner)}. Remove damaged '
            'images, or lower the learning rate, or clip the gradients'
        )

    def _check_saved(self, runner: Runner, checkpoint: dict) -> None:
        for part in SAVED:
            saved = checkpoint.get(part) or {}
            kept = {key: saved[key] for key in saved if not self._is_infinite(key)}
            found = find_non_finite(kept, part)
            if found is not None:
                raise UserError(
                    f'training is stopped after iteration {runner.iter + 1}, and no checkpoint is '
                    f'written, because {found} has values that are not finite: '
                    f'{last_checkpoint(runner)}. Lower the learning rate, or clip the gradients'
                )

    def _is_infinite(self, key: Any) -> bool:
        return str(key).removeprefix('module.') in self._infinite


def gradient_flag(optimizer: Any) -> Tensor | None:
    """Whether a gradient of an optimizer is not finite, without waiting for the device.

    Args:
        optimizer: The optimizer.

    Returns:
        A scalar, bool; None if there are no gradients.
    """
    gradients = [
        parameter.grad.coalesce().values() if parameter.grad.is_sparse else parameter.grad
        for group in optimizer.param_groups
        for parameter in group['params']
        if parameter.grad is not None and parameter.grad.numel()
    ]
    if not gradients:
        return None
    # Largest magnitudes: unlike a sum of squares, these do not overflow.
    largest = torch._foreach_norm(gradients, float('inf'))
    device = largest[0].device
    return ~torch.isfinite(torch.stack([value.to(device).float() for value in largest])).all()


def last_checkpoint(runner: Runner) -> str:
    """Say which checkpoint a training has written last.

    Args:
        runner: The runner.
    """
    names = [runner.message_hub.runtime_info.get('last_ckpt')]
    record = Path(runner.work_dir) / 'last_checkpoint'
    if record.is_file():
        names.append(record.read_text().strip())
    found = next((name for name in names if name and os.path.isfile(name)), None)
    return f'the last checkpoint is {found}' if found else 'no checkpoint was written before'


def _step(number: int, samples: Any, names: list[str], flags: Tensor) -> _Step:
    event = None
    if flags.is_cuda:
        flags = flags.to('cpu', non_blocking=True)  # into pinned memory
        event = torch.cuda.Event()
        event.record()
    return _Step(number, samples, names, flags, event)


def _wrappers(optim_wrapper: Any) -> Iterator[Any]:
    if isinstance(optim_wrapper, OptimWrapperDict):
        yield from optim_wrapper.values()
    else:
        yield optim_wrapper
