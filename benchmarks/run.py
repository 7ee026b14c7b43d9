"""All benchmarks of speed, one after another. `make bench` runs this.

    python benchmarks/run.py [--only views tta] [--runs 5]

Measures what the hardware can do, runs the benchmarks with their default sizes, and prints a table
of each: medians, ratios with their spread, and the limits of the hardware. Takes about eight
minutes on two cores. Writes to work_dirs/bench

- bench.json, all times and the figures of the tables;
- bench.md, the tables;
- bench.png, ratios and the fraction of the limit that is reached.

benchmarks/solver.py is not among them: it measures how good partitions are, and takes longer.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import decoding
import distillation
import hardware
import steps
import torch
import training
import tta
import views
from hardware import Limits
from mmengine.device import get_device
from plot import draw
from timing import (
    NOTES,
    Comparison,
    Machine,
    add_limits,
    figures,
    positive,
    progress_bar,
    share,
    table_of,
)

import ipirm_mm
from ipirm_mm.utils import atomic_write, check_writable
from ipirm_mm.visualization import format_markdown, format_table

# Each benchmark, and about how long it takes in relation to the others, for the time left.
BENCHMARKS = {
    'views': (views, 1),
    'decoding': (decoding, 0.3),
    'training': (training, 3),
    'distillation': (distillation, 2),
    'tta': (tta, 7),
    'steps': (steps, 9),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--only',
        nargs='+',
        choices=list(BENCHMARKS),
        default=list(BENCHMARKS),
        metavar='NAME',
        help=f'benchmarks to run, of {", ".join(BENCHMARKS)} (default: all)',
    )
    parser.add_argument(
        '--runs', type=positive, default=5, help='runs of each benchmark (default: 5)'
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/bench'),
        help='folder that everything is written to (default: work_dirs/bench)',
    )
    return parser.parse_args()


def settings() -> dict[str, str]:
    """What the figures depend on beside the code."""
    return {
        'command': 'make bench' if len(sys.argv) == 1 else shlex.join(['python', *sys.argv]),
        'machine': f'{platform.machine()}, {os.cpu_count()} cores, {get_device()}',
        'versions': f'ipirm_mm {ipirm_mm.__version__}, torch {torch.__version__}',
    }


def record_of(comparison: Comparison, limits: dict[Machine, Limits]) -> dict[str, Any]:
    """A table for the JSON file: its figures, all times, and the counted work."""
    rows = []
    for row, values in zip(comparison.rows, figures(comparison, limits)):
        work = row.work._asdict() if row.work else None
        values.update(threads=row.threads, device=row.device, work=work)
        rows.append(dict(**values, times=dict(reference=row.reference, ours=row.ours)))
    headings = dict(reference=comparison.reference, ours=comparison.ours, ratio=comparison.ratio)
    return dict(title=comparison.title, headings=headings, rows=rows)


def write(
    folder: Path, comparisons: Sequence[Comparison], limits: dict[Machine, Limits]
) -> list[Path]:
    """Write the files of the results.

    Args:
        folder: Where to; made if it is missing.
        comparisons: The results.
        limits: What the hardware can do.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f'bench.{suffix}' for suffix in ('json', 'md', 'png')]
    machines = [
        dict(device=device, threads=threads, **found._asdict())
        for (device, threads), found in limits.items()
    ]
    tables = [record_of(comparison, limits) for comparison in comparisons]
    record = dict(settings=settings(), hardware_per_second=machines, tables=tables)
    page = ['# Benchmarks\n\n']
    page += [f'- {name}: {value}\n' for name, value in settings().items()]
    rows = [hardware.limit_row(*machine, found) for machine, found in limits.items()]
    page.append(f'\n{format_markdown(rows, hardware.COLUMNS)}')
    for comparison in comparisons:
        table = table_of(comparison, limits)
        page.append(f'\n{format_markdown(table.rows, table.columns)}')
    page += ['\n', *(f'- {note}\n' for note in NOTES)]
    atomic_write(paths[0], json.dumps(record, indent=1))
    atomic_write(paths[1], ''.join(page))
    draw(paths[2], comparisons, limits)
    return paths


def main() -> None:
    args = parse_args()
    check_writable(args.work_dir, folder=True)
    comparisons: list[Comparison] = []
    limits: dict[Machine, Limits] = {}
    chosen = {name: BENCHMARKS[name] for name in BENCHMARKS if name in args.only}
    with progress_bar('benchmarks') as progress:
        parts = share(progress, [cost for _, cost in chosen.values()])
        for (name, (benchmark, _)), part in zip(chosen.items(), parts):
            found = benchmark.measure(runs=args.runs, progress=part)
            add_limits(limits, found)
            for comparison in found:
                table = table_of(comparison, limits)
                print(f'\n{name}\n{format_table(table.rows, table.columns)}', flush=True)
            comparisons += found
    print()
    for note in NOTES:
        print(textwrap.fill(note, 96, initial_indent='- ', subsequent_indent='  '))
    paths = write(args.work_dir, comparisons, limits)
    print(f'\nWritten: {", ".join(map(str, paths))}')


if __name__ == '__main__':
    main()
