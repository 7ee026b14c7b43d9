"""Whether a long training keeps its size: memory, open files, threads and temporary files.

    python benchmarks/long_run.py [WORK_DIR] [--minutes 60] [--seconds 5] [--workers 2]

It trains Stage I on 320 embedded images (configs/quickstart/ipirm_simclr_report.py), with a
search for a partition, its report, k-NN and a checkpoint after every five steps; two checkpoints
and four partitions are kept. Every few seconds it reads what the system says of the process and
of its data workers. At the end it stops the run by SIGTERM.

It prints medians of ten parts of the time, and writes all samples to WORK_DIR/samples.jsonl and
their lines to WORK_DIR/long_run.png. The exit status is 1 if, from the second fifth of the time to
the last, the memory in use grew by more than 3 %, or anything else grew at all.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ipirm_mm import cli
from ipirm_mm.errors import UserError
from ipirm_mm.utils import ProgressBar
from ipirm_mm.visualization import format_table

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'configs/quickstart/ipirm_simclr_report.py'
OPTIONS = (
    'train_dataloader.dataset.indices=320',
    'train_dataloader.batch_size=64',
    'custom_hooks.0.interval=1',
    'custom_hooks.0.max_partitions_kept=4',
    'custom_hooks.1.interval=1',
    'default_hooks.checkpoint.interval=1',
    'train_cfg.max_epochs=1000000',
)
MEMORY = ('main', 'all')  # mebibytes of the process, and of it with its data workers
COUNTS = ('files', 'threads', 'processes', 'temporary', 'saved')
COLUMNS = (
    ('minutes', 'minutes'),
    ('solves', 'partitions'),
    ('main', 'memory, MiB'),
    ('all', 'with workers, MiB'),
    ('files', 'open files'),
    ('most', 'at most'),
    ('threads', 'threads'),
    ('processes', 'processes'),
    ('temporary', 'temporary files'),
    ('saved', 'checkpoints'),
)
GROWTH = 0.03  # fraction of the memory
PARTS = 10


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('work_dir', type=Path, nargs='?', help='default: a temporary folder')
    parser.add_argument('--minutes', type=float, default=60)
    parser.add_argument('--seconds', type=float, default=5, help='between samples')
    parser.add_argument('--workers', type=int, default=2, help='data workers of each loader')
    return parser.parse_args()


def family(pid: int) -> list[int]:
    """A process and its living descendants."""
    parents = {}
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            state, parent = stat.read_text().rpartition(')')[2].split()[:2]
        except OSError:  # has just ended
            continue
        if state != 'Z':
            parents[int(stat.parent.name)] = int(parent)
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def status(pid: int) -> dict[str, int]:
    """Numbers of ``/proc/PID/status``; sizes are in kibibytes. Empty if the process has ended."""
    try:
        lines = Path(f'/proc/{pid}/status').read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(':', 1) for line in lines if line.startswith(('VmRSS', 'Threads')))
    return {name: int(value.split()[0]) for name, value in pairs}


def sample(pid: int, work_dir: Path) -> dict[str, float]:
    """What the system says of a run now."""
    members = family(pid)
    states = [status(member) for member in members]
    return dict(
        main=states[0].get('VmRSS', 0) / 1024,
        all=sum(state.get('VmRSS', 0) for state in states) / 1024,
        files=len(os.listdir(f'/proc/{pid}/fd')),
        threads=states[0].get('Threads', 0),
        processes=len(members),
        temporary=sum(1 for _ in (work_dir / 'tmp').rglob('*')),
        saved=len([*work_dir.glob('run/*.pth*'), *work_dir.glob('run/*.part')]),
        solves=len(list(work_dir.glob('run/partitions/*.json'))),
    )


def watch(process: subprocess.Popen, args: argparse.Namespace) -> list[dict[str, float]]:
    """Sample a run until the time is over."""
    samples: list[dict[str, float]] = []
    began = time.monotonic()
    with ProgressBar('long run') as bar, open(args.work_dir / 'samples.jsonl', 'w') as file:
        while (passed := (time.monotonic() - began) / 60) < args.minutes:
            time.sleep(args.seconds)
            if process.poll() is not None:
                raise UserError(
                    f'the run ended with status {process.returncode}: see {args.work_dir}/run.log'
                )
            found = dict(sample(process.pid, args.work_dir), minutes=passed)
            if found['solves']:  # before, it starts
                samples.append(found)
                file.write(json.dumps(found) + '\n')
                file.flush()
            bar(min(1.0, passed / args.minutes), f'{found["solves"]} partitions')
    if len(samples) < PARTS:
        raise UserError(f'{len(samples)} samples are too few: raise --minutes')
    return samples


def part(samples: list[dict[str, float]]) -> dict[str, float]:
    """Medians of a part of the time, since a search has data workers and files of its own."""
    row = {key: statistics.median_low(one[key] for one in samples) for key in (*MEMORY, *COUNTS)}
    return {**samples[-1], **row, 'most': max(one['files'] for one in samples)}


def table(samples: list[dict[str, float]]) -> list[dict[str, float]]:
    """Ten parts of the time, one in a row."""
    bounds = [round(n * len(samples) / PARTS) for n in range(PARTS + 1)]
    return [part(samples[start:end]) for start, end in zip(bounds, bounds[1:])]


def draw(samples: list[dict[str, float]], path: Path) -> None:
    """Draw one line per number over the minutes."""
    keys = [key for key, _ in COLUMNS if key in (*MEMORY, *COUNTS)]
    figure = Figure(figsize=(7, 1.1 * len(keys)), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    for axes, key in zip(figure.subplots(len(keys), sharex=True), keys):
        axes.plot([one['minutes'] for one in samples], [one[key] for one in samples], lw=0.8)
        axes.set_ylim(bottom=0)
        axes.set_title(dict(COLUMNS)[key], fontsize=8, loc='left')
        axes.tick_params(labelsize=7)
    axes.set_xlabel('minutes', fontsize=8)
    figure.savefig(path)


def grown(samples: list[dict[str, float]]) -> list[str]:
    """What grew from the second fifth of the time to the last, as words."""
    fifth = len(samples) // 5
    early, late = part(samples[fifth : 2 * fifth]), part(samples[-fifth:])
    change = late['main'] - early['main']
    hours = (samples[-1]['minutes'] - samples[0]['minutes']) * 0.6 / 60  # between the middles
    print(
        f'memory: {early["main"]:.1f} MiB in the second fifth of the time, {late["main"]:.1f} MiB '
        f'in the last: {change:+.1f} MiB, {change / hours:+.1f} MiB per hour'
    )
    found = [key for key in COUNTS if late[key] > early[key]]
    return found + [key for key in MEMORY if late[key] > early[key] * (1 + GROWTH)]


def main() -> None:
    args = parse_args()
    args.work_dir = args.work_dir or Path(tempfile.mkdtemp(prefix='long_run_'))
    (args.work_dir / 'tmp').mkdir(parents=True, exist_ok=True)
    workers = (
        f'train_dataloader.num_workers={args.workers}',
        f'train_dataloader.persistent_workers={args.workers > 0}',
    )
    given = ('--no-validate', '--work-dir', args.work_dir / 'run', '--cfg-options')
    command = [sys.executable, ROOT / 'tools/train.py', CONFIG, *given, *OPTIONS, *workers]
    variables = dict(OMP_NUM_THREADS='1', TMPDIR=str(args.work_dir / 'tmp'))
    with open(args.work_dir / 'run.log', 'w') as log:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=ROOT,
            env={**os.environ, **variables},
            stdout=log,
            stderr=log,
        )
    try:
        samples = watch(process, args)
        process.send_signal(signal.SIGTERM)
        code = process.wait(120)
    finally:
        process.kill()
    print(format_table(table(samples), COLUMNS))
    print(f'{samples[-1]["solves"]:.0f} partitions in {samples[-1]["minutes"]:.1f} minutes')
    more = grown(samples)
    draw(samples, args.work_dir / 'long_run.png')
    print(f'SIGTERM: status {code}; grown: {", ".join(more) or "nothing"}')
    sys.exit(bool(more) or code != 143)


if __name__ == '__main__':
    cli.run(main)
