"""Reproduce the report: its tables, from the challenge's data to the submission.

    python tools/reproduce.py table3 --dry-run                   # print the commands
    python tools/reproduce.py table3                             # run them, on 8 GPUs
    python tools/reproduce.py all --scale rehearsal --gpus 1     # everything, with tiny networks

Runs what is missing, skips what is done, and continues a training that was cut off: after a
failure, run the same command again. Then it prints the table, beside the report's accuracies.

  full       the report's configs. Accuracies are of the validation split; those of the test split,
             which the report has, come from the challenge's server, for submission.csv.
  laptop     the tables of projects/laptop: the same comparisons on Fashion-MNIST, over several
             seeds, with controls.
  rehearsal  the same commands with tiny networks, small images and one or two epochs. It shows in
             minutes that data, disk and installation are in order. Its accuracies mean nothing.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ipirm_mm import cli
from ipirm_mm.datasets.vipriors import SPLITS, subfolders
from ipirm_mm.errors import UserError
from ipirm_mm.reproduction import (
    CARD_TFLOPS,
    CARDS,
    TARGETS,
    Chain,
    RehearsalConfigs,
    Row,
    Step,
    add_target,
    check_target,
    read_models,
    table_of,
    training_hours,
)
from ipirm_mm.resources import find_by_basename
from ipirm_mm.utils import atomic_write
from ipirm_mm.visualization import format_markdown, format_table

ROOT = Path(__file__).resolve().parents[1]
REHEARSAL = Path('work_dirs/rehearsal')
# At a laptop's scale: the script of each target, and the table that it writes. These scripts use
# finished runs again by themselves.
LAPTOP = dict(
    table1=('table2.py', 'work_dirs/table4/table2.md'),
    table2=('table2.py', 'work_dirs/table4/table2.md'),
    table3=('table3.py', 'work_dirs/table3/table3.md'),
    table4=('table4.py', 'work_dirs/table4/table4.md'),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'targets',
        nargs='+',
        metavar='TARGET',
        help=f'{", ".join(TARGETS)}, all of these, or the name of a config, such as kl_r50',
    )
    parser.add_argument(
        '--scale',
        choices=['full', 'laptop', 'rehearsal'],
        default='full',
        help='see above (default: full)',
    )
    parser.add_argument(
        '--gpus',
        type=int,
        default=8,
        help='processes per command (default: 8, for which the configs are; with 1, no launcher)',
    )
    parser.add_argument(
        '--card',
        type=int,
        choices=CARDS,
        help='memory of a card in GB: adds what a training needs to fit (default: nothing)',
    )
    parser.add_argument(
        '--hours',
        action='store_true',
        help='with --dry-run: estimate the hours of each training by its operations',
    )
    parser.add_argument(
        '--tflops',
        type=float,
        default=CARD_TFLOPS,
        help='operations per second of one card, for --hours (default: %(default)s, half of what '
        'the data sheet of a V100 gives in 32 bits)',
    )
    parser.add_argument(
        '--dry-run', action='store_true', help='print the commands, and what is done already'
    )
    parser.add_argument(
        '--data', default='data/vipriors', help='folder of the data (default: data/vipriors)'
    )
    parser.add_argument(
        '--imagenet', help='folder of ImageNet, from which --data is made if it is not there'
    )
    parser.add_argument('--lists', help="folder of the challenge's lists, with --imagenet")
    args = parser.parse_args()
    if args.gpus < 1:
        parser.error(f'--gpus must be at least 1, but is {args.gpus}')
    if (args.imagenet is None) != (args.lists is None):
        parser.error('--imagenet and --lists go together')
    if args.hours and not args.dry_run:
        parser.error('--hours needs --dry-run')
    return args


def make_chain(args: argparse.Namespace) -> Chain:
    """Make the chain of the scale that was asked for, without steps."""
    in_checkout = Path.cwd() == ROOT
    tools = 'tools' if in_checkout else str(ROOT / 'tools')
    data = Path(args.data)
    models = read_models()

    def settings(name: str) -> Sequence[str]:
        return models[name].settings[args.card] if args.card and name in models else ()

    if args.imagenet is not None:
        make = ['python', f'{tools}/dataset_converters/vipriors.py', args.imagenet, args.data]
        make += ['--lists', args.lists]
        data_step = Step('make the data', tuple(make), data)
        if not data.exists() and args.scale == 'rehearsal' and not args.dry_run:
            run(data_step, 'first')  # the number of classes must be known
    elif not args.dry_run and not all((data / split).is_dir() for split in SPLITS):
        raise UserError(
            f'{data} has no folders {", ".join(SPLITS)}: name the folder of the data by --data, '
            'or have it made by --imagenet and --lists (see docs/data.md)'
        )
    else:
        data_step = None
    if args.scale == 'full':
        if data != Path('data/vipriors'):
            raise UserError(
                f'the configs read data/vipriors, but --data is {data}: link it, ln -s '
                f'{data.resolve()} data/vipriors'
            )
        scope = 'configs/' if in_checkout else 'ipirm_mm::'

        def find(name: str) -> str:
            return f'{scope}{find_by_basename(name + ".py")}'

        return Chain(find, args.gpus, settings, data_step, tools=tools)
    classes = len(list(subfolders(data / 'train'))) if data.is_dir() else 1000
    configs = RehearsalConfigs(REHEARSAL, classes, str(data))
    return Chain(configs, args.gpus, None, data_step, REHEARSAL, tools)


def run(step: Step, number: str) -> None:
    """Run a step.

    Raises:
        UserError: If it fails, or does not write its file.
    """
    words = step.words()
    print(f'\n[{number}] {step.title}\n$ {shlex.join(words)}', flush=True)
    step.makes.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    status = start(words)
    if status or not step.makes.exists():
        why = f'ended with status {status}' if status else f'did not write {step.makes}'
        raise UserError(
            f'"{step.title}" {why}: mend what it says above, and run the same command again, '
            f'which goes on here: {shlex.join(words)}'
        )
    print(f'[{number}] done in {(time.monotonic() - began) / 60:.1f} min', flush=True)


def start(words: Sequence[str]) -> int:
    """Run a command to its end, by this Python; give its status."""
    words = [sys.executable if word == 'python' else word for word in words]
    return subprocess.run(words, env={**os.environ, 'PYTHON': sys.executable}).returncode


def show(steps: Sequence[Step], args: argparse.Namespace) -> None:
    """Print the commands, which of them have nothing to do, and how long they take."""
    total = 0.0
    for number, step in enumerate(steps, 1):
        state = '  (done)' if step.done else '  (goes on)' if step.begun else ''
        if args.hours and step.config is not None:
            hours = training_hours(cli.load_config(step.config), args.gpus, args.tflops)
            total += hours
            state += f'  about {hours:.1f} h'
        print(f'# {number}. {step.title}{state}\n{shlex.join(step.words())}', flush=True)
    if args.hours:
        print(f'# trainings: about {total:.0f} h on {args.gpus} cards of {args.tflops} TFLOPS')


def print_table(target: str, rows: Sequence[Row], folder: Path, scale: str) -> None:
    """Print a table, and write it as Markdown."""
    cells, columns = table_of(rows, 'here' if scale == 'full' else scale)
    path = folder / f'{target}.md'
    print(f'\n{target}, accuracy in percent\n\n{format_table(cells, columns)}')
    atomic_write(path, format_markdown(cells, columns))
    print(f'wrote {path}')


def laptop_steps(targets: Sequence[str]) -> list[Step]:
    """Commands of targets at a laptop's scale, each once.

    Raises:
        UserError: If a target has none, or there is no checkout.
    """
    unknown = [target for target in targets if target not in LAPTOP]
    if unknown:
        raise UserError(
            f"{', '.join(unknown)} cannot be reproduced at a laptop's scale: {', '.join(LAPTOP)} "
            'can'
        )
    folder = ROOT / 'projects/laptop'
    if not folder.is_dir():
        raise UserError('--scale laptop needs projects/laptop, which only a checkout has')
    if Path.cwd() == ROOT:
        folder = folder.relative_to(ROOT)
    found = dict.fromkeys(LAPTOP[target] for target in targets)
    return [Step(script, ('python', str(folder / script)), Path(makes)) for script, makes in found]


def main() -> None:
    args = parse_args()
    every = LAPTOP if args.scale == 'laptop' else TARGETS
    targets = list(every if 'all' in args.targets else dict.fromkeys(args.targets))
    for target in targets:
        check_target(target)
    if args.scale == 'laptop':
        steps = laptop_steps(targets)
        if args.dry_run:
            show(steps, args)
        for number, step in enumerate([] if args.dry_run else steps, 1):
            run(step, f'{number}/{len(steps)}')
        return
    chain = make_chain(args)
    tables = {target: add_target(chain, target) for target in targets}
    steps = list(chain.steps.values())
    if args.dry_run:
        show(steps, args)
        return
    missing = [step for step in steps if not step.done]
    print(f'{len(steps)} steps, {len(steps) - len(missing)} of them done')
    for number, step in enumerate(steps, 1):
        if not step.done:
            run(step, f'{number}/{len(steps)}')
    for target, rows in tables.items():
        if rows:
            print_table(target, rows, chain.work_dirs, args.scale)


if __name__ == '__main__':
    cli.run(main)
