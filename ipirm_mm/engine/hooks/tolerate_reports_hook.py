"""Let a training go on where a picture, a curve or a line of the log cannot be written."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

REPORTS = ('add_config', 'add_graph', 'add_image', 'add_scalar', 'add_scalars', 'close')


@HOOKS.register_module()
class TolerateReportsHook(Hook):
    """Turns an error of a log file, of TensorBoard or of a picture into one warning.

    Fault: a full disk or a folder that cannot be written to ends a training of MMEngine through
    its pictures and curves, although the checkpoints may be on another disk.

    ``configs/_base_/default_runtime.py`` has it among its ``default_hooks``, and
    ``tools/train.py`` adds it where a config lacks it. A checkpoint that cannot be written ends
    the training as before.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Wrap what writes reports.

        Args:
            runner: The runner.
        """
        for backend in runner.visualizer._vis_backends.values():
            warn = _once(runner.logger, type(backend).__name__)
            for name in REPORTS:
                method = getattr(backend, name, None)
                if method is not None and not hasattr(method, 'tolerant'):
                    setattr(backend, name, _tolerant(method, warn))
        for handler in runner.logger.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.handleError = _say_once(handler.baseFilename)  # type: ignore


def _tolerant(method: Callable[..., Any], warn: Callable[[Exception], None]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except Exception as error:  # of any type: the writers are other people's
            warn(error)
            return None

    call.tolerant = True  # type: ignore[attr-defined]
    return call


def _once(logger: Any, name: str) -> Callable[[Exception], None]:
    said: list[str] = []

    def warn(error: Exception) -> None:
        if not said:
            said.append(name)
            logger.warning(
                f'{name} cannot write its report ({type(error).__name__}: {error}): the training '
                'goes on without it, and further failures of it are not reported'
            )

    return warn


def _say_once(path: str) -> Callable[[Any], None]:
    """For a handler of the log, whose own way is a traceback for each line."""
    said: list[str] = []

    def handle(record: Any) -> None:
        if not said:
            said.append(path)
            error = sys.exc_info()[1]
            print(
                f'warning: {path} cannot be written ({error}): the training goes on without it',
                file=sys.stderr,
            )

    return handle
