"""What the benchmarks share: timing in turns, rows of results, their tables and progress."""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import hardware
from hardware import Limits, Work
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ipirm_mm.visualization import Table, format_table

# Told what fraction is done.
Report = Callable[[float], None]
# Device and number of threads.
Machine = tuple[str, int]
# Seconds that a step is repeated for in each run of by_itself.
STRETCH = 0.1
NOTES = (
    'ratio: of the medians, and in parentheses the lowest and highest ratio of a single run, in '
    'which both sides are timed in turns.',
    'products: the operations of its matrix products and convolutions at the measured rate of '
    'float32 products. memory: the bytes that its operations read and write at the measured '
    'bandwidth, as if no data stayed in the caches.',
    'reached: the larger of these two limits in percent of the time. It can be more than 100: '
    'data that do stay in the caches move less, and some convolutions need fewer operations than '
    'are counted.',
)


class Row(NamedTuple):
    """One comparison of two computations.

    Attributes:
        name: What is compared.
        reference: Milliseconds of each run of what it is compared with.
        ours: Milliseconds of each run, in turns with those of ``reference``.
        threads: Number of threads on a processor.
        device: Where it was computed.
        work: What ``ours`` asks of the hardware. None if most of it is not computed by torch.
    """

    name: str
    reference: Sequence[float]
    ours: Sequence[float]
    threads: int
    device: str = 'cpu'
    work: Work | None = None


class Comparison(NamedTuple):
    """A table of results.

    Attributes:
        title: Heading of the names.
        reference: Heading of the times of what is compared with.
        ours: Heading of the other times.
        rows: The results.
        is_cost: Whether ratios are ours to reference: the lower, the better. Otherwise they are
            reference to ours: the higher, the better.
    """

    title: str
    reference: str
    ours: str
    rows: list[Row]
    is_cost: bool = False

    @property
    def ratio(self) -> str:
        """Heading of the ratios."""
        pair = (self.ours, self.reference) if self.is_cost else (self.reference, self.ours)
        return ' / '.join(pair)


@contextmanager
def without_collection() -> Iterator[None]:
    """Put Python's garbage collection off, as ``timeit`` does.

    It takes 0.2 s in a process that has imported MMPretrain, in whichever run it comes.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@without_collection()
def turns(
    steps: Mapping[str, Callable[[], object]], runs: int, progress: Report | None = None
) -> dict[str, list[float]]:
    """Time steps in turns, so that a noisy minute hits all of them.

    Args:
        steps: The steps by name; each waits for its device itself.
        runs: Number of runs. One more before them warms up.
        progress: Told what fraction is done, between runs. Defaults to None.

    Returns:
        Milliseconds of each run by name.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for run in range(runs + 1):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            if run:  # the first warms up
                times[name].append(1e3 * (time.perf_counter() - begin))
        if progress:
            progress((run + 1) / (runs + 1))
    return times


@without_collection()
def by_itself(
    steps: Mapping[str, Callable[[], object]], runs: int, progress: Report | None = None
) -> dict[str, list[float]]:
    """Time steps that nothing else comes between: each is repeated for a while in each run.

    Args:
        steps: The steps by name; each waits for its device itself.
        runs: Number of runs.
        progress: Told what fraction is done, between runs. Defaults to None.

    Returns:
        Mean milliseconds in each run by name. The first repetition, which fills the caches, is
        left out.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for run in range(runs):
        for name, step in steps.items():
            step()
            begin = now = time.perf_counter()
            repeated = 0
            while now - begin < STRETCH:
                step()
                repeated += 1
                now = time.perf_counter()
            times[name].append(1e3 * (now - begin) / repeated)
        if progress:
            progress((run + 1) / runs)
    return times


def share(progress: Report | None, costs: Sequence[float]) -> list[Report]:
    """Divide a progress between tasks that follow one another.

    Args:
        progress: Told what fraction of all tasks is done. None if nobody asks.
        costs: How long each task takes, in any unit.

    Returns:
        For each task what to tell the fraction of it that is done.
    """

    def part(before: float, cost: float) -> Report:
        def report(fraction: float) -> None:
            if progress:
                progress((before + fraction * cost) / sum(costs))

        return report

    return [part(sum(costs[:number]), cost) for number, cost in enumerate(costs)]


@contextmanager
def progress_bar(name: str) -> Iterator[Report]:
    """Show a bar with the time left on a terminal, drawn between runs and never during one.

    Args:
        name: Name of the task.

    Yields:
        What to tell the fraction that is done.
    """
    with Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn('left'),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,
        # The pace of a single part says little about the others.
        speed_estimate_period=3600,
        disable=not sys.stderr.isatty(),
        # Tables are printed above the bar, or to the file that gets them.
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task(name, total=1.0)
        yield lambda fraction: bar.update(task, completed=fraction, refresh=True)


def positive(text: str) -> int:
    """Read a number of an option that has to be at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'must be at least 1, but is {value}')
    return value


def add_limits(limits: dict[Machine, Limits], comparisons: Sequence[Comparison]) -> None:
    """Measure what the hardware can do, with the devices and threads of some results.

    Args:
        limits: What is known; the rest is added.
        comparisons: The results.
    """
    machines = {(row.device, row.threads) for table in comparisons for row in table.rows}
    for machine in sorted(machines - limits.keys()):
        limits[machine] = hardware.measure(*machine)


def figures(comparison: Comparison, limits: Mapping[Machine, Limits]) -> list[dict[str, Any]]:
    """Medians, ratios and limits of each row.

    Args:
        comparison: The results.
        limits: What the hardware can do, see :func:`add_limits`.

    Returns:
        For each row its name, medians (``reference`` and ``ours``, ms), the ``ratio`` of the
        medians and the ``lowest`` and ``highest`` of the runs. If its work is known, also the
        times that ``products`` and ``memory`` alone would take (ms), and the fraction of the
        larger one that is ``reached``.
    """
    found = []
    for row in comparison.rows:
        medians = statistics.median(row.reference), statistics.median(row.ours)
        pairs = [medians, *zip(row.reference, row.ours)]
        ratio, *single = [b / a if comparison.is_cost else a / b for a, b in pairs]
        values: dict[str, Any] = dict(name=row.name, reference=medians[0], ours=medians[1])
        values.update(ratio=ratio, lowest=min(single), highest=max(single))
        if row.work:
            both = limits[row.device, row.threads].milliseconds(row.work)
            values.update(products=both[0], memory=both[1], reached=max(both) / medians[1])
        found.append(values)
    return found


def significant(value: float | None) -> str | None:
    """Write a number with three significant digits, or more before the point."""
    if not value:
        return value if value is None else '0'
    return f'{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}'


def table_of(comparison: Comparison, limits: Mapping[Machine, Limits]) -> Table:
    """Table of results: medians, ratios with their spread, and the limits of the hardware."""
    columns = [
        ('name', comparison.title),
        ('reference', f'{comparison.reference}, ms'),
        ('ours', f'{comparison.ours}, ms'),
        ('ratio', comparison.ratio),
        ('products', 'products, ms'),
        ('memory', 'memory, ms'),
        ('reached', 'reached'),
    ]
    rows = []
    for values in figures(comparison, limits):
        cells = {key: significant(values.get(key)) for key, _ in columns[1:]}
        spread = significant(values['lowest']), significant(values['highest'])
        cells['ratio'] = f'{cells["ratio"]} ({spread[0]} to {spread[1]})'
        if 'reached' in values:
            cells['reached'] = f'{100 * values["reached"]:.0f} %'
        rows.append(dict(name=values['name'], **cells))
    return Table(comparison.title, rows, columns, NOTES)


def run_alone(
    name: str, measure: Callable[..., list[Comparison]], args: argparse.Namespace
) -> None:
    """Run one benchmark and print its tables.

    Args:
        name: Name of the benchmark.
        measure: Its function.
        args: Keyword arguments of the function.
    """
    with progress_bar(name) as progress:
        comparisons = measure(**vars(args), progress=progress)
    limits: dict[Machine, Limits] = {}
    add_limits(limits, comparisons)
    for comparison in comparisons:
        table = table_of(comparison, limits)
        print(f'{format_table(table.rows, table.columns)}\n')
