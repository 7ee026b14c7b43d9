"""Draw what the number of subsets, the weight and the warm-up are worth, from the runs of the lab.

    python projects/laptop/lab_figure.py --out docs/lab.png

Each panel changes one setting of the recipe and leaves the others. Points are means over seeds,
bars standard deviations. docs/lab.md has the commands that made the runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from lab import BITS, HEADINGS, METHODS, RESULTS, Record, all_settings, read, settings_of

from ipirm_mm import cli
from ipirm_mm.errors import UserError

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402

# The recipe of configs/quickstart/ipirm_simclr_sum.py, in the precision of docs/lab.md.
RECIPE: dict[str, Any] = dict(
    norm='BN', neck_norm='BN', crop=0.3, temperature=0.3, bf16=True, subsets=50,
    objective='report', weight=1,
)  # fmt: skip
# For each panel the setting, its heading, and the methods that it changes.
PANELS = (
    ('subsets', 'subsets K', ('ours', 'random')),
    ('weight', 'weight of the penalty, $\\lambda_1$', ('ours', 'penalty')),
    ('warmup', 'epochs of the warm-up, of 20', ('ours',)),
)
# References without the setting: horizontal lines.
LINES = ('factor', 'simclr')
COLORS = dict(zip((*METHODS.values(), *BITS), (f'C{i}' for i in range(10))))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True, help='picture to write')
    parser.add_argument('--file', type=Path, default=RESULTS, help='runs of lab.py')
    parser.add_argument('--split', default='full_test', help='images of the test')
    parser.add_argument('--seeds', type=int, nargs='+', default=[10, 11, 12])
    parser.add_argument('--metric', default='shifted', help='measure (default: shifted)')
    return parser.parse_args()


def curve(
    records: Iterable[Record], method: str, key: str, metric: str
) -> dict[float, list[float]]:
    """Values of a measure, one per seed, by the values of one setting of the recipe.

    Values that were not run with all seeds are left out.

    Args:
        records: Runs of one split.
        method: Which method's runs.
        key: The setting that may differ from the recipe.
        metric: Name of the measure.
    """
    found: dict[float, list[float]] = {}
    for record in records:
        settings = all_settings(record)
        if settings['method'] != method or metric not in record:
            continue
        value = settings.get(key, 0)
        if settings == settings_of(method, {**RECIPE, key: value}):
            found.setdefault(value, []).append(record[metric])
    # A mean over fewer seeds than the others would not compare with them.
    seeds = max(map(len, found.values()), default=0)
    return {value: found[value] for value in sorted(found) if len(found[value]) == seeds}


def draw(axes: Any, curves: dict[str, dict[float, list[float]]], xlabel: str) -> None:
    """Draw curves into a panel, the values of the setting at equal distances.

    Args:
        axes: The panel.
        curves: What :func:`curve` returns, by label.
        xlabel: What the setting is.
    """
    ticks = sorted({value for points in curves.values() for value in points})
    for label, points in curves.items():
        axes.errorbar(
            [ticks.index(value) for value in points],
            [np.mean(seeds) for seeds in points.values()],
            [np.std(seeds, ddof=1) if len(seeds) > 1 else 0 for seeds in points.values()],
            fmt='o-', capsize=3, label=label, color=COLORS[label],
        )  # fmt: skip
    axes.set_xticks(range(len(ticks)), [f'{tick:g}' for tick in ticks])
    axes.set_xlabel(xlabel)
    axes.grid(alpha=0.3)


def main() -> None:
    args = parse_args()
    records = [
        record
        for record in read(args.file)
        if record['split'] == args.split and record['seed'] in args.seeds
    ]

    def curve_of(method: str, key: str, metric: str = args.metric) -> dict[float, list[float]]:
        return curve(records, method, key, metric)

    if not curve_of('ours', 'subsets'):
        raise UserError(
            f'{args.file} has no run of the recipe for --split {args.split}, --seeds '
            f'{" ".join(map(str, args.seeds))} and --metric {args.metric}: docs/lab.md has the '
            'commands that make them'
        )
    figure, panels = plt.subplots(1, 4, figsize=(15, 3.6), layout='constrained')
    for axes, (key, xlabel, methods) in zip(panels, PANELS):
        draw(axes, {METHODS[method]: curve_of(method, key) for method in methods}, xlabel)
        for method in LINES:
            name = METHODS[method]
            # A setting that these methods do not have, so that there is one value.
            for seeds in curve_of(method, 'subsets').values():
                axes.axhline(np.mean(seeds), ls=':', color=COLORS[name], label=name)
        axes.legend(fontsize=7)
    panels[0].set_ylabel(f'{HEADINGS[args.metric]}, %')
    bits = {name: curve_of('ours', 'warmup', f'bits_{name}') for name in BITS}
    draw(panels[3], bits, 'epochs of the warm-up')
    panels[3].set_ylabel('bits that the partition holds')
    panels[3].legend(fontsize=7)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=110)
    print(args.out)


if __name__ == '__main__':
    cli.run(main)
