"""Runs in a folder: written as an ordinary config, started, and continued."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ipirm_mm import cli
from ipirm_mm.engine import add_training_hooks, logged_records
from ipirm_mm.errors import UserError
from ipirm_mm.utils import ProgressBar, atomic_write

CONFIG, AS_RUN = 'config.py', 'config_as_run.py'
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# What a runner and our tools read of a config; names that only helped to write it are left out.
_SECTIONS = (
    'default_scope',
    'custom_imports',
    'model',
    'data_preprocessor',
    *(f'{split}_{part}' for split in ('train', 'val', 'test') for part in ('dataloader', 'cfg')),
    'val_evaluator',
    'test_evaluator',
    'knn_bank',  # of tools/benchmark_ssl.py
    'optim_wrapper',
    'param_scheduler',
    'auto_scale_lr',
    'default_hooks',
    'custom_hooks',
    'env_cfg',
    'visualizer',
    'log_level',
    'load_from',
    'resume',
    'randomness',
    'work_dir',
)


def plain_config(cfg: Config) -> Config:
    """What a runner reads of a config, without the names that helped to write it."""
    return Config({name: cfg[name] for name in _SECTIONS if cfg.get(name) is not None})


def train_in(out: Path, cfg: Config, what: str, amp: bool, files: Sequence[str] = ()) -> None:
    """Train in a folder; go on if it holds this training, interrupted.

    The config is written to ``out/config.py``, so that MMEngine's tools can train and test it.

    Args:
        out: The folder.
        cfg: Config of the training.
        what: What is trained, for the progress bar.
        amp: Whether to train with automatic mixed precision.
        files: Names of the files that its hooks write when it ends. Defaults to none.

    Raises:
        UserError: If the folder holds a training with other settings, or the config cannot be
            trained.
    """
    path = out / CONFIG
    text = cfg.pretty_text
    if path.is_file():
        _refuse_other(path, text)
    elif out.is_dir() and any(out.glob('*.pth')):
        raise UserError(
            f'out={out} holds checkpoints, but not {CONFIG}, and so is of another training: '
            'choose another folder, or remove it'
        )
    # MMEngine writes what it runs, with what the machine changed, under the name given here.
    settings = Config.fromstring(text, '.py')._cfg_dict
    cfg = Config(settings, cfg_text=text, filename=str(out / AS_RUN))
    cfg.launcher, cfg.resume = 'none', any(out.glob('*.pth'))
    # Runners that were built within one second share logs and curves if they have one name.
    cfg.experiment_name = out.resolve().name
    cli.fit_to_machine(cfg, LOADERS)
    cli.prepare_training(cfg, amp=amp)
    atomic_write(path, text)
    last = out / f'epoch_{cfg.train_cfg.max_epochs}.pth'
    if last.is_file() and all((out / name).is_file() for name in files):
        print_log(f'{out} holds this training, finished: nothing is left to do', logger='current')
        return
    # A bar is shown on a terminal, and the lines of the log would tear it.
    runner = _build_quietly(cfg) if sys.stderr.isatty() else cli.build_runner(cfg)
    add_training_hooks(runner)
    if last.is_file():  # it was killed before it had written the rest
        runner.load_or_resume()
        runner.call_hook('after_train')
        return
    with _stop_after_the_step(), ProgressBar(what) as bar:
        if bar.shown:
            runner.register_hook(_ShowProgress(bar), priority='LOWEST')
        runner.train()


def last_accuracy(folder: Path) -> str:
    """The newest accuracy on the images held out that a training has logged, in percent.

    ``'-'`` if there is none: a training may have ended between its last checkpoint and the
    evaluation that follows.
    """
    found = [record.get('accuracy/top1') for record in logged_records(folder)]
    return next((f'{value:.1f}' for value in reversed(found) if value is not None), '-')


def _refuse_other(path: Path, text: str) -> None:
    """Refuse to train in a folder whose config differs."""
    try:
        before = Config.fromfile(path)
    except Exception as error:  # of any type: a config is a program
        raise UserError(f'{path} cannot be read ({error}): choose another folder') from error
    now = Config.fromstring(text, '.py')
    names = [name for name in _SECTIONS if before.get(name) != now.get(name)]
    if names:
        # The page repeats the settings; say first where they act.
        name = next((name for name in names if name != 'custom_hooks'), names[0])
        difference = _first_difference(before.get(name), now.get(name), name)
        raise UserError(
            f'{path} is of a training with other settings or images ({difference}): to go on '
            f'with that one use `python -m ipirm_mm train {path} --work-dir {path.parent} '
            f'--resume`; for a new one choose another out, or remove {path.parent}'
        )


def _first_difference(before: Any, now: Any, name: str) -> str:
    """The first setting in which two configs differ, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = list(dict.fromkeys([*before.keys(), *now.keys()]))
        for key in keys:
            if before.get(key) != now.get(key):
                return _first_difference(before.get(key), now.get(key), f'{name}.{key}')
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for place, pair in enumerate(zip(before, now)):
            if pair[0] != pair[1]:
                return _first_difference(*pair, name=f'{name}.{place}')
    shown = [
        str(value) if len(str(value)) <= 60 else f'{str(value)[:57]}...' for value in (before, now)
    ]
    return f'{name} was {shown[0]} and is now {shown[1]}'


class _ShowProgress(Hook):
    """Shows epochs, loss and k-NN accuracy on the terminal."""

    def __init__(self, bar: ProgressBar) -> None:
        self.bar = bar

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Move the bar."""
        hub = runner.message_hub.log_scalars
        shown = [f'epoch {runner.epoch + 1}/{runner.max_epochs}']
        if 'train/loss' in hub:
            shown.append(f'loss {float(hub["train/loss"].mean(20)):.4g}')
        if 'val/knn_monitor/top1' in hub:
            shown.append(f'k-NN {float(hub["val/knn_monitor/top1"].current()):.1f} %')
        if 'val/accuracy/top1' in hub:
            shown.append(f'accuracy {float(hub["val/accuracy/top1"].current()):.1f} %')
        self.bar((runner.iter + 1) / runner.max_iters, ', '.join(shown))


def _build_quietly(cfg: Config) -> Any:
    """Build a runner whose log goes to its file, and only its warnings to the terminal."""
    with contextlib.redirect_stdout(io.StringIO()):  # the handler of the terminal writes there
        runner = cli.build_runner(cfg)
    for handler in runner.logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(
            handler, logging.FileHandler
        ):
            handler.setStream(sys.stderr)
            handler.setLevel(logging.WARNING)
    return runner


@contextlib.contextmanager
def _stop_after_the_step() -> Iterator[None]:
    """Let Ctrl-C end the training as a scheduler does: after the step, with a checkpoint.

    A second one ends it at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()
    before: Callable[..., Any] | int | None = signal.getsignal(signal.SIGINT)

    def stop(number: int, frame: Any) -> None:
        if os.getpid() != process:
            return  # a data worker, which its process ends
        signal.signal(signal.SIGINT, before)
        print_log(
            'stopping after this step, with a checkpoint; the same command goes on. Ctrl-C again '
            'stops at once',
            logger='current',
            level=30,
        )
        os.kill(process, signal.SIGTERM)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
