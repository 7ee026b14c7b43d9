"""Progress of long tasks: a bar on a terminal, a line every ten seconds in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from mmengine.dist import is_main_process
from mmengine.logging import print_log
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

_SECONDS_BETWEEN_LINES = 10.0


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


def _whole_time() -> Column:
    """A column that a narrow terminal does not cut off: the bar gets shorter instead."""
    return Column(min_width=len('0:00:00'), no_wrap=True)


class ProgressBar:
    """Progress of one task, shown by rank 0 only. A task within another one shows no second bar.

    .. code-block:: python

        with ProgressBar('features') as bar:
            bar(0.5, '32 of 64 batches')

    Args:
        description: Name of the task.
    """

    _any_shown = False

    def __init__(self, description: str) -> None:
        self.description = description
        self._rich: Progress | None = None

    @property
    def shown(self) -> bool:
        """Whether there is a bar on the terminal; else there are lines in the log."""
        return self._rich is not None

    def __enter__(self) -> ProgressBar:
        self._began = self._last = time.monotonic()
        if is_main_process() and sys.stderr.isatty() and not ProgressBar._any_shown:
            ProgressBar._any_shown = True
            self._rich = Progress(
                TextColumn('{task.description}'),
                BarColumn(),
                TimeElapsedColumn(table_column=_whole_time()),
                TextColumn('left'),
                TimeRemainingColumn(table_column=_whole_time()),
                TextColumn('{task.fields[text]}'),
                console=Console(stderr=True),
                transient=True,
            )
            self._rich.start()
            self._task = self._rich.add_task(self.description, total=1.0, text='')
        return self

    def __call__(self, fraction: float, text: str = '') -> None:
        """Show how much is done.

        Args:
            fraction: Fraction of the task that is done, 0 to 1.
            text: Details to show after it. Defaults to none.
        """
        if self._rich is not None:
            self._rich.update(self._task, completed=fraction, text=text)
        elif is_main_process() and time.monotonic() - self._last > _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            passed = self._last - self._began
            left = f', {passed / fraction - passed:.0f} s left' if fraction > 0 else ''
            print_log(
                f'{self.description}: {100 * fraction:.0f} % after {passed:.0f} s{left} {text}',
                logger='current',
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._rich is not None:
            self._rich.stop()
            self._rich = None
            ProgressBar._any_shown = False
