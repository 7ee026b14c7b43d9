"""Check 6: a few real training steps, their memory, and the hours that the training will take."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.device import get_device
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import MMLogger
from mmengine.runner import BaseLoop

from ipirm_mm.engine import ExactResumeHook, KNNHook
from ipirm_mm.engine.memory import StepCounter, image_size

from .building import Setup
from .findings import Findings, counted, in_units
from .space import planned

# Steps before those that are timed: workers start, kernels are chosen.
WARM_UP = 2
# Images of the problem on which Step 2 is timed; its cost on more is extrapolated.
TRIED = 512


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
            if hasattr(hook, 'due') and hook.due:
                if hook.count():
                    subsets = model.partitions.num_subsets
                    images = model.partitions.num_images
                    any_partition = torch.arange(images) % subsets
                    model.partitions.add(any_partition.to(model.partitions.found))
                hook.due = []

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
        if len(self.times) == self.steps + WARM_UP:
            raise _Enough

    def after_train_epoch(self, runner: Any) -> None:
        """End with the first epoch, before what is done after it."""
        raise _Enough

    def seconds(self) -> float | None:
        """Median of the seconds per step after the first ones; None if there are none."""
        waits = [after - before for before, after in zip(self.times, self.times[1:])]
        later = waits[WARM_UP - 1 :] or waits
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
        _reset_peak()
        began = time.perf_counter()
        try:
            with _as_findings(findings), suppress(_Enough):
                runner.train()
        except torch.cuda.OutOfMemoryError as error:
            findings.add(
                'error',
                'dry run',
                f'the memory of the GPU is too small for train_dataloader.batch_size='
                f'{runner.train_dataloader.batch_size} ({str(error).split(". ")[0]}): see '
                'docs/memory.md, or set a smaller batch',
            )
            return
        finally:
            for hook in runner.hooks:
                if isinstance(hook, ExactResumeHook):
                    hook.after_train(runner)  # gives signals back
        if not timer.times:
            return
        if len(timer.times) == 1:
            timer.times.insert(0, began)
        if setup.left_random:
            left = ', '.join(setup.left_random)
            findings.add('warning', 'dry run', f'it has random weights in the place of: {left}')
        _say_memory(setup, findings)
    seconds = timer.seconds()
    if seconds is None:
        return
    with findings.check('time'):
        _say_time(setup, findings, seconds, partitions)


def _fits(setup: Setup, findings: Findings) -> bool:
    """Whether the step fits the memory, counted before it is tried; True if it is not known."""
    cfg = setup.cfg
    with suppress(Exception):  # of any type: not every model can be counted
        size, batch = image_size(cfg), setup.runner.train_dataloader.batch_size
        if size is None or batch is None:
            return True
        half = cfg.optim_wrapper.get('type') == 'AmpOptimWrapper'
        need = StepCounter(cfg).count(batch, size, half).total
        free = free_memory()
        if free is not None and need > free:
            findings.add(
                'error',
                'dry run',
                f'a step with train_dataloader.batch_size={batch} takes {in_units(need)}, but '
                f'only {in_units(free)} of memory are free: see docs/memory.md, or set a smaller '
                'batch; no step is tried',
            )
            return False
    return True


def free_memory() -> int | None:
    """Bytes of memory that are free on the device of the training; None if not known."""
    if get_device() == 'cuda':
        return torch.cuda.mem_get_info()[0]
    with suppress(OSError, StopIteration, ValueError):
        lines = Path('/proc/meminfo').read_text().splitlines()
        line = next(line for line in lines if line.startswith('MemAvailable'))
        return 1024 * int(line.split()[1])
    return None


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


def _say_time(setup: Setup, findings: Findings, seconds: float, partitions: int) -> None:
    """Estimate the hours of the training from the seconds of a step."""
    loader = setup.loaders['train_dataloader']
    steps = setup.num_steps()
    images = len(loader.dataset)
    passes = images / ((loader.batch_size or 1) * setup.gpus)
    parts: dict[str, float] = {}
    if steps is not None:
        parts['steps'] = steps[0] * seconds
    if partitions:
        hook = setup.partition_hooks[0]
        # Features need no backward pass: a step is an upper bound of a batch.
        features = hook.num_augmentations * passes * seconds
        parts[counted(partitions, 'partition')] = partitions * (features + solve_seconds(setup))
    for number, each, name in _evaluations(setup, findings, seconds):
        parts[name] = parts.get(name, 0.0) + number * each
    total = sum(parts.values())
    shares = ', '.join(f'{name} {duration(value)}' for name, value in parts.items())
    findings.add(
        'ok',
        'time',
        f'{seconds:.3f} s per step on {setup.gpus} process(es) as here; about {duration(total)} '
        f'in all ({shares})',
    )


def _evaluations(
    setup: Setup, findings: Findings, seconds: float
) -> Iterator[tuple[int, float, str]]:
    """Number and seconds of the evaluations during the training, and their name."""
    runner, end = setup.runner, setup.cfg.train_cfg
    steps = setup.num_steps()
    if steps is None:
        return
    for hook in runner.hooks:
        if isinstance(hook, KNNHook):
            epochs = end.get('max_epochs')
            length = epochs if epochs and hook.by_epoch is not False else steps[0]
            batches = sum(
                len(setup.loaders[name]) for name in setup.loaders if name.startswith('KNNHook')
            )
            each = batches * seconds / setup.gpus
            yield math.ceil(length / hook.interval), each, 'k-NN'
    loop = runner._val_loop
    if isinstance(loop, BaseLoop) and setup.loaders.get('val_dataloader') is not None:
        length = end.get('max_epochs') or steps[0]
        batches = len(setup.loaders['val_dataloader']) / setup.gpus
        number = math.ceil(length / (end.get('val_interval') or 1))
        each = None
        with findings.check('validation'):
            each = _validation_seconds(setup)
        if each is not None:
            yield number, batches * each, 'validation'


def _validation_seconds(setup: Setup) -> float:
    """Seconds of a batch of the validation, which is tried once."""
    runner = setup.runner
    loop = runner.val_loop
    runner.model.eval()
    batch = next(iter(loop.dataloader))
    with torch.no_grad():
        began = time.perf_counter()
        outputs = runner.model.val_step(batch)
        loop.evaluator.process(data_samples=outputs, data_batch=batch)
        return time.perf_counter() - began


def solve_seconds(setup: Setup) -> float:
    """Seconds of Step 2 on all images, extrapolated from few of random features.

    Within a block its cost grows with the square of the images, and with the number of blocks.
    That of ``'kmeans'`` and the controls grows with the images.

    Args:
        setup: What was built, after a training has begun.
    """
    hook, model = setup.partition_hooks[0], setup.model
    solver, images = hook.solver, model.partitions.num_images
    tried = min(images, TRIED, solver.block_size)
    neck = setup.cfg.model.get('neck') or {}
    width = neck.get('out_channels') or 128
    generator = torch.Generator().manual_seed(0)
    views = F.normalize(torch.randn(2, tried, width, generator=generator), dim=2)
    device = next(model.parameters()).device
    factor = torch.arange(tried) % solver.num_subsets
    began = time.perf_counter()
    solver.solve(*views.to(device), factor=factor)
    seconds = time.perf_counter() - began
    if solver.strategy in ('kmeans', 'random', 'factor'):
        return seconds * images / tried
    block = min(images, solver.block_size)
    return seconds * (block / tried) ** 2 * (images / block)


def duration(seconds: float) -> str:
    """Say a duration in seconds, minutes or hours.

    Args:
        seconds: The seconds.
    """
    if seconds < 120:
        return f'{seconds:.0f} s'
    if seconds < 7200:
        return f'{seconds / 60:.0f} min'
    return f'{seconds / 3600:.1f} h'
