"""Count the memory that training a config takes, without a GPU, data or checkpoints.

    python tools/analysis/memory.py CONFIG [CONFIG ...] [--cards 16 32 80]
    python tools/analysis/memory.py CONFIG --as-set [--amp] [--cfg-options key=value ...]

The first prints four rows per config: 32 bits, mixed precision, and both of them with recomputed
activations of the backbone's stages. The second prints one row, for the settings of the command.
All numbers are of one process of a distributed training, in GB of 10^9 bytes:

  weights   parameters, their gradients (and the copy of them for the communication between
            processes), state of the optimizer, teachers
  kept      activations that the forward pass keeps for the backward pass
  step      the most at one time of both passes, weights included
  16 GB     whether the step fits, and the number of images per process up to which it does

Not counted: the CUDA context, workspaces of kernels (cuDNN, cuBLAS), fragmentation of the
allocator, and what hooks do between the epochs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ipirm_mm import cli
from ipirm_mm.datasets.transforms import member_config
from ipirm_mm.engine.memory import StepCounter, StepMemory, image_size, largest_batch
from ipirm_mm.errors import UserError
from ipirm_mm.visualization import format_markdown, format_table

GB = 10**9


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config of a training')
    parser.add_argument(
        '--as-set',
        action='store_true',
        help='count only the settings of the config, of --amp and of --cfg-options',
    )
    parser.add_argument(
        '--amp', action='store_true', help='with --as-set: use automatic mixed precision'
    )
    parser.add_argument(
        '--cards',
        type=int,
        nargs='+',
        default=[16, 32, 80],
        metavar='GB',
        help='memory of the cards (default: 16 32 80)',
    )
    parser.add_argument(
        '--size',
        type=int,
        metavar='PIXELS',
        help='side of the images (default: that of the train pipeline)',
    )
    parser.add_argument('--markdown', action='store_true', help='print the table as Markdown')
    cli.add_cfg_options(parser)
    args = parser.parse_intermixed_args()  # options may stand between files
    if args.amp and not args.as_set:
        parser.error('--amp needs --as-set: without it, the table has rows with and without')
    if min(args.cards) < 1 or (args.size is not None and args.size < 1):
        parser.error('--cards and --size must be positive')
    return args


def find_size(config: Any, given: int | None) -> Any:
    size = given or image_size(config)
    if size is None:
        raise UserError(
            f'the train pipeline of {config.filename} does not say how large its images are: give '
            '--size PIXELS'
        )
    return size


def training_rows(config: Any, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the rows of a config that trains."""
    size, batch = find_size(config, args.size), config.train_dataloader.get('batch_size')
    if not isinstance(batch, int) or batch < 1:
        raise UserError(
            f'train_dataloader.batch_size must be a positive number, but is {batch}: give it by '
            '--cfg-options train_dataloader.batch_size=N'
        )
    counter = StepCounter(config)
    names = list(config.get('activation_checkpointing') or ())
    amp = args.amp or config.optim_wrapper.get('type') == 'AmpOptimWrapper'
    if args.as_set:
        settings = [(amp, names)]
    else:
        stages = names or counter.stage_names()
        settings = [(half, recomputed) for recomputed in ([], stages) for half in (False, True)]
    for half, recomputed in settings:
        counter.recompute(recomputed)  # rows without come first, and it cannot be undone
        yield row(config, args.cards, batch, half, recomputed, counter, size)


def row(
    config: Any,
    cards: list[int],
    batch: int,
    half: bool,
    recomputed: list[str],
    counter: StepCounter,
    size: Any,
) -> dict[str, Any]:
    """Count one setting of a config."""

    @cache
    def count(images: int) -> StepMemory:
        return counter.count(images, size, half)

    settings = 'AMP' if half else 'fp32'
    found = count(batch)
    fits = {}
    for card in cards:
        limit = card * GB
        most = largest_batch(lambda images: count(images).total, limit, max(4, batch))
        fits[f'fits_{card}'] = f'{"yes" if found.total <= limit else "no"} ({most:,})'
    return dict(
        config=Path(config.filename).stem,
        settings=settings + (', checkpointing' if recomputed else ''),
        batch=batch,
        weights=f'{found.fixed / GB:.2f}',
        kept=f'{found.kept / GB:.2f}',
        step=f'{found.total / GB:.2f}',
        **fits,
    )


def ensemble_row(config: Any, cards: list[int]) -> dict[str, Any]:
    """Count an ensemble: all members are in memory, and predict one after the other."""
    batch, weights, peak = config.test_dataloader.batch_size, 0, 0
    for member in config.model.members:
        own = member_config(member)
        found = StepCounter(own).count_prediction(batch, image_size(own))
        weights, peak = weights + found.weights, max(peak, found.peak)
    total = weights + peak
    return dict(
        config=Path(config.filename).stem,
        settings='fp32, prediction',
        batch=batch,
        weights=f'{weights / GB:.2f}',
        kept='0.00',
        step=f'{total / GB:.2f}',
        **{f'fits_{card}': 'yes' if total <= card * GB else 'no' for card in cards},
    )


def main() -> None:
    args = parse_args()
    rows: list[dict[str, Any]] = []
    for path in args.configs:
        config = cli.load_config(path, args.cfg_options)
        if config.get('model') and config.model.get('members'):
            rows.append(ensemble_row(config, args.cards))
            continue
        missing = [name for name in ('model', *cli.TRAINING) if config.get(name) is None]
        if missing:
            raise UserError(
                f'{path} has no {", ".join(missing)}, so that there is no training to count: give '
                'a config that trains, or an ensemble'
            )
        rows.extend(training_rows(config, args))
    columns = [
        ('config', 'config'),
        ('settings', 'settings'),
        ('batch', 'images'),
        ('weights', 'weights'),
        ('kept', 'kept'),
        ('step', 'step'),
        *((f'fits_{card}', f'{card} GB') for card in args.cards),
    ]
    print((format_markdown if args.markdown else format_table)(rows, columns))


if __name__ == '__main__':
    cli.run(main)
