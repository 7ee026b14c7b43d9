"""Check 6: a few real training steps, their memory, and the hours that the training will take."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import MMLogger

from ipirm_mm.engine import ExactResumeHook, PartitionUpdateHook
from ipirm_mm.engine.memory import StepCounter, image_size, largest_batch

from .building import Setup
from .estimates import say_time
from .findings import Findings, in_units
from .space import planned

# Steps before those that are timed: workers start, kernels are chosen.
WARM_UP = 2


class _Enough(Exception):
    """Ends a training of which enough has been seen."""


class StepTimer(Hook):
    """Times the first steps of a training, and ends it.

    Args:
        steps: Number of steps to time.
    """

    priority = 'HIGHEST'

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.times: list[float] = []

    def before_train(self, runner: Any) -> None:
        """Let no time-consuming hook run, and train with a partition if there will be any."""
        model = runner.model
        for hook in runner.hooks:
            if isinstance(hook, PartitionUpdateHook):
                if hook.count():
                    subsets = model.partitions.num_subsets
                    images = model.partitions.num_images
                    any_partition = torch.arange(images) % subsets
                    model.partitions.add(any_partition.to(model.partitions.found))
                hook.due = []

    def before_train_epoch(self, runner: Any) -> None:
        """Note the time of the beginning."""
        self.times = [time.perf_counter()]

    def after_train_iter(self, runner: Any, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        """Note the time.

        Args:
            runner: The runner.
            batch_idx: Not used.
            *args: Not used.
            **kwargs: Not used.
        """
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())
        if len(self.times) == 1 + WARM_UP + self.steps:
            raise _Enough

    def after_train_epoch(self, runner: Any) -> None:
        """End with the first epoch, before what is done after it."""
        raise _Enough

    def seconds(self) -> float | None:
        """Median of the seconds per step after the first ones; None if there are none."""
        waits = [after - before for before, after in zip(self.times, self.times[1:])]
        later = waits[WARM_UP:] or waits[-1:]
        return median(later) if later else None


class _Warnings(logging.Handler):
    """Makes warnings of the training's log findings."""

    def __init__(self, findings: Findings) -> None:
        super().__init__(logging.WARNING)
        self.findings = findings

    def emit(self, record: logging.LogRecord) -> None:
        self.findings.add('warning', 'dry run', ' '.join(record.getMessage().split()))


@contextmanager
def _as_findings(findings: Findings) -> Iterator[None]:
    """Let the log of MMEngine be silent, but make its warnings findings."""
    handler = _Warnings(findings)
    loggers = list(MMLogger._instance_dict.values())
    kept = [logger.handlers for logger in loggers]
    for logger in loggers:
        logger.handlers = [handler]
    try:
        yield
    finally:
        for logger, handlers in zip(loggers, kept):
            logger.handlers = handlers


def check_training(setup: Setup, findings: Findings, steps: int) -> None:
    """Train for a few steps in the folder that is removed, and estimate memory and hours.

    Args:
        setup: What was built.
        findings: Gets the findings.
        steps: Number of steps to time.
    """
    if not setup.trains:
        findings.add('ok', 'dry run', 'none: the config has no training')
        return
    if not setup.can_train:
        findings.add('warning', 'dry run', 'none: the errors above come first')
        return
    runner = setup.runner
    partitions = 0
    with findings.check('dry run'):
        partitions = sum(planned(hook, setup) for hook in setup.partition_hooks)
    timer = StepTimer(steps)
    with findings.check('dry run'):
        if not _fits(setup, findings):
            return
        runner._hooks = [hook for hook in runner.hooks if not isinstance(hook, CheckpointHook)]
        runner.register_hook(timer)
        runner.cfg.param_scheduler = None  # its faults are findings of their own
        _reset_peak()
        try:
            with _as_findings(findings), suppress(_Enough):
                runner.train()
        except torch.cuda.OutOfMemoryError as error:
            findings.add(
                'error',
                'dry run',
                f'the memory of the GPU is too small for train_dataloader.batch_size='
                f'{runner.train_dataloader.batch_size} ({str(error).split(". ")[0]}): set it to '
                'a smaller one by --cfg-options, or see docs/memory.md',
            )
            return
        finally:
            for hook in runner.hooks:
                if isinstance(hook, ExactResumeHook):
                    hook.after_train(runner)  # gives signals back
        if setup.left_random:
            left = ', '.join(setup.left_random)
            findings.add('warning', 'dry run', f'it has random weights in the place of: {left}')
        _say_memory(setup, findings)
    seconds = timer.seconds()
    if seconds is None:
        return
    with findings.check('time'):
        say_time(setup, findings, seconds, partitions)


def _fits(setup: Setup, findings: Findings) -> bool:
    """Whether the step fits the memory, counted before it is tried; True if it is not known."""
    cfg = setup.cfg
    with suppress(Exception):  # of any type: not every model can be counted
        size, batch = image_size(cfg), setup.runner.train_dataloader.batch_size
        if size is None or batch is None:
            return True
        half = cfg.optim_wrapper.get('type') == 'AmpOptimWrapper'
        counter = StepCounter(cfg)

        def count(images: int) -> int:
            return counter.count(images, size, half).total

        need, free = count(batch), free_memory()
        if free is not None and need > free:
            most = largest_batch(count, free, max(4, batch))
            while most > 1 and count(most) > free:  # losses may grow with its square
                most //= 2
            findings.add(
                'error',
                'dry run',
                f'a step with train_dataloader.batch_size={batch} takes {in_units(need)}, but '
                f'only {in_units(free)} of memory are free, and no step is tried: set '
                f'train_dataloader.batch_size={max(1, most)} by '
                '--cfg-options, or see docs/memory.md',
            )
            return False
    return True


def free_memory() -> int | None:
    """Bytes of memory that are free on the device of the training; None if not known."""
    if get_device() == 'cuda':
        return torch.cuda.mem_get_info()[0]
    limits = []
    with suppress(OSError, StopIteration, ValueError):
        lines = Path('/proc/meminfo').read_text().splitlines()
        line = next(line for line in lines if line.startswith('MemAvailable'))
        limits.append(1024 * int(line.split()[1]))
    with suppress(OSError, ValueError):  # of a container; "max" without a limit
        most, used = (Path(f'/sys/fs/cgroup/memory.{n}').read_text() for n in ('max', 'current'))
        limits.append(int(most) - int(used))
    return min(limits, default=None)


def _reset_peak() -> None:
    if get_device() == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):  # not on every system; then the peak is that of the whole process
        Path('/proc/self/clear_refs').write_text('5')


def peak_memory() -> int | None:
    """Most bytes that this process has taken at one time, on the device of the training."""
    if get_device() == 'cuda':
        return torch.cuda.max_memory_reserved()
    with suppress(OSError, StopIteration, ValueError):
        lines = Path('/proc/self/status').read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith('VmHWM')).split()[1])
    with suppress(ImportError):
        import resource

        unit = 1 if os.uname().sysname == 'Darwin' else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def _say_memory(setup: Setup, findings: Findings) -> None:
    peak, free = peak_memory(), free_memory()
    if peak is None:
        return
    if get_device() == 'cuda':
        total = torch.cuda.mem_get_info()[1]
        text = f'peak memory {in_units(peak)} of {in_units(total)} of the GPU, per process'
        findings.add('ok', 'dry run', text)
        return
    text = f'peak memory {in_units(peak)} (of the whole process, in main memory)'
    if free is not None and peak * (setup.gpus - 1) > free:
        findings.add(
            'error',
            'dry run',
            f'{text}; for {setup.gpus} processes only {in_units(free)} are free: give fewer '
            'processes, or a smaller train_dataloader.batch_size',
        )
    else:
        findings.add('ok', 'dry run', text)
