"""The rows of the report's Table 3 at a laptop's scale, over several seeds, with controls.

    apt-get install dataset-fashion-mnist
    python projects/laptop/table3.py

Trains each method on 10,000 tinted images of Fashion-MNIST without labels, and a supervised
network from scratch on 500 labeled images; then fits linear classifiers to the 500 labeled
images and tests on the original 10,000 test images. Writes to work_dirs/table3: the table
(table3.md), what our recipe gains over each other row (gains.md), and the accuracies of each seed
(table3.json). Finished runs are reused if nothing that they depend on has changed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from evaluation import (
    add_report,
    encoder_of,
    evaluate_encoder,
    gain_cells,
    load,
    mean_and_range,
    paired_p,
    save_table,
    tinted_features,
)
from mmengine.logging import MMLogger
from rich.console import Console
from runs import ENCODER, Run, map_processes, table_parser, train_all

from ipirm_mm import cli
from ipirm_mm.datasets.idx_format import DEBIAN_FOLDER, read_fashion_mnist
from ipirm_mm.utils import atomic_write

# For each method, name and config of its rows.
METHODS = {
    'simclr': (
        ('SimCLR', 'sum_simclr'),
        ('SimCLR, penalty alone', 'sum_penalty_only'),
        ('SimCLR, random partition', 'sum_random_partition'),
        ('SimCLR + IP-IRM, report', 'sum_report'),
        ('SimCLR + IP-IRM, ours', ENCODER),
    ),
    'simsiam': (
        ('SimSiam', 'sum_simsiam'),
        ('SimSiam, penalty alone', 'sum_simsiam_penalty_only'),
        ('SimSiam, random partition', 'sum_simsiam_random_partition'),
        ('SimSiam + IP-IRM, report', 'sum_simsiam_report'),
        ('SimSiam + IP-IRM, ours without penalty', 'sum_simsiam_no_penalty'),
        ('SimSiam + IP-IRM, ours', 'ipirm_simsiam_sum'),
        ('SimSiam + IP-IRM, true color', 'sum_simsiam_true_factor'),
    ),
    # The older recipe, with the mean over 20 subsets; SimCLR with group normalization.
    'simclr_mean': (
        ('SimCLR, mean', 'simclr'),
        ('SimCLR, mean, penalty alone', 'penalty_only'),
        ('SimCLR, mean, random partition', 'random_partition'),
        ('SimCLR, mean + IP-IRM, report', 'ipirm_simclr_report'),
        ('SimCLR, mean + IP-IRM, older', 'ipirm_simclr'),
    ),
    'simsiam_mean': (
        ('SimSiam, mean', 'simsiam'),
        ('SimSiam, mean, penalty alone', 'simsiam_penalty_only'),
        ('SimSiam, mean, random partition', 'simsiam_random_partition'),
        ('SimSiam, mean + IP-IRM, report', 'ipirm_simsiam_report'),
        ('SimSiam, mean + IP-IRM, older', 'ipirm_simsiam'),
    ),
    # The report has no recipe for these.
    'mocov3': (
        ('MoCo v3', 'mocov3'),
        ('MoCo v3, penalty alone', 'mocov3_penalty_only'),
        ('MoCo v3, random partition', 'mocov3_random_partition'),
        ('MoCo v3 + IP-IRM, older', 'ipirm_mocov3'),
    ),
    'byol': (
        ('BYOL', 'byol'),
        ('BYOL, penalty alone', 'byol_penalty_only'),
        ('BYOL, random partition', 'byol_random_partition'),
        ('BYOL + IP-IRM, older', 'ipirm_byol'),
    ),
    'barlowtwins': (
        ('Barlow Twins', 'barlowtwins'),
        ('Barlow Twins, penalty alone', 'barlowtwins_penalty_only'),
        ('Barlow Twins, random partition', 'barlowtwins_random_partition'),
        ('Barlow Twins + IP-IRM, older', 'ipirm_barlowtwins'),
    ),
}
# Rows of the report's Table 3.
REPORTED = {
    'supervised': 'supervised_r50',
    'SimCLR': 'linear_simclr_r50',
    'SimSiam': 'linear_simsiam_r50',
    'SimCLR + IP-IRM, report': 'linear_ipirm_simclr_r50',
    'SimSiam + IP-IRM, report': 'linear_ipirm_simsiam_r50',
}
MEASURES = dict(probe='linear probe', shifted='linear probe, color shifted', knn='k-NN')
GAIN_COLUMNS = (
    ('name', 'method'),
    ('reference', 'compared with'),
    ('measure', 'measure'),
    ('gain', 'gain, lowest to highest'),
    ('above', 'seeds above'),
    ('p', 'p, paired t test'),
)
COLUMNS = (
    ('name', 'method'),
    ('report', 'report (ImageNet)'),
    ('probe', 'linear probe'),
    ('shifted', 'linear probe, color shifted'),
    ('knn', 'k-NN'),
    ('color', 'color read out'),
)


def parse_args() -> argparse.Namespace:
    parser = table_parser(__doc__, 'work_dirs/table3', (0, 1, 2))
    parser.add_argument(
        '--methods',
        nargs='+',
        choices=METHODS,
        default=['simclr', 'simsiam'],
        help='methods whose rows are made (default: simclr simsiam, those of the report)',
    )
    parser.add_argument(
        '--images', type=int, default=10000, help='number of unlabeled images (default: 10000)'
    )
    parser.add_argument(
        '--epochs', type=int, default=20, help='epochs of self-supervised training (default: 20)'
    )
    parser.add_argument(
        '--data-root',
        default=DEBIAN_FOLDER,
        help=f'folder of the IDX files (default: {DEBIAN_FOLDER})',
    )
    return parser.parse_args()


def supervised(models: tuple[Any, Any], test_set: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Evaluate supervised networks.

    Args:
        models: One trained with colors independent of the class, and one with colors that follow
            the class for 90 % of the images.
        test_set: Arguments of ``FashionMNIST50`` for the test images.
    """
    correct = {}
    for name, model in zip(('probe', 'shifted'), models):
        test = tinted_features(model, test_set, 0.0, 3)
        with torch.no_grad():
            correct[name] = (model.head.fc(test['x']).argmax(1) == test['y']).float()
    return correct


def measure(task: tuple[int | tuple[Run, ...], str]) -> dict[str, float]:
    """Evaluate one network of the table on the test images, in percent.

    Args:
        task: What is evaluated, and the folder of the IDX files. A run is an encoder; two are
            supervised networks, see :func:`supervised`; a seed is an encoder without training.
    """
    what, data_root = task
    MMLogger.get_instance('table3', log_level='ERROR')
    test_set = dict(split='full_test', data_root=data_root)
    if isinstance(what, tuple) and len(what) == 2:
        correct = supervised((load(what[0]), load(what[1])), test_set)
    else:
        encoder = encoder_of(what if isinstance(what, int) else what[0])
        correct = evaluate_encoder(encoder, test_set)
    return {key: round(100 * float(hits.mean()), 2) for key, hits in correct.items()}


def gain_rows(
    accuracy: dict[str, dict[str, list[float]]], ours: str, references: Sequence[str]
) -> list[dict[str, str]]:
    """Rows of what one row of the table gains over others.

    Args:
        accuracy: Percent of each seed, by measure, by name of the row.
        ours: Name of the row whose gains are meant.
        references: Names of the rows that it is compared with.
    """
    rows = []
    for reference in references:
        for measure, heading in MEASURES.items():
            values = np.array(accuracy[ours][measure])
            others = np.array(accuracy[reference][measure])
            row = dict(name=ours, reference=reference, measure=heading)
            row |= gain_cells(values, others)
            if len(values) > 1:
                row['p'] = f'{paired_p(values - others):.1g}'
            rows.append(row)
    return rows


def main() -> None:
    args = parse_args()
    console = Console()
    read_fashion_mnist(args.data_root, 'train')  # fails here if the files are missing
    data = [
        'train_dataloader.dataset.split=full',
        f'train_dataloader.dataset.data_root={args.data_root}',
        f'train_dataloader.dataset.indices={args.images}',
    ]
    tied = 'train_dataloader.dataset.pipeline.0.follow=0.9'
    runs: dict[str, list[tuple[Run, ...]]] = {'supervised': []}
    for seed in args.seeds:
        folder = args.work_dir / f'seed_{seed}'
        pair = (
            Run('supervised', folder / 'supervised', 100, seed),
            Run('supervised', folder / 'supervised_tied', 100, seed, [tied]),
        )
        runs['supervised'].append(pair)
        for name, config in (row for method in args.methods for row in METHODS[method]):
            run = Run(config, folder / config, args.epochs, seed, data)
            runs.setdefault(name, []).append((run,))
    # Seed by seed, so that half the time gives a complete table of half the seeds.
    by_seed = zip(*runs.values())
    train_all([run for row in by_seed for pair in row for run in pair], console)

    of: dict[str, list[Any]] = {'untrained': list(args.seeds), **runs}
    tasks = [(one, args.data_root) for several in of.values() for one in several]
    found = iter(map_processes(measure, tasks))
    results = {name: [next(found) for _ in several] for name, several in of.items()}
    accuracy = {
        name: {key: [result[key] for result in by_seed] for key in by_seed[0]}
        for name, by_seed in results.items()
    }
    rows: list[dict[str, Any]] = []
    for name, measured in accuracy.items():
        row = {key: mean_and_range(values) for key, values in measured.items()}
        rows.append(dict(name=name, **row))
    add_report(rows, REPORTED)
    save_table(args.work_dir / 'table3.md', rows, COLUMNS)
    gains = []
    for names in ([name for name, _ in METHODS[method]] for method in args.methods):
        for ours in (name for name in names if name.endswith('IP-IRM, ours')):
            gains += gain_rows(accuracy, ours, [name for name in names if name != ours])
    if gains:
        save_table(args.work_dir / 'gains.md', gains, GAIN_COLUMNS)
    record = dict(images=args.images, epochs=args.epochs, seeds=args.seeds, accuracy=accuracy)
    atomic_write(args.work_dir / 'table3.json', json.dumps(record, indent=1))
    print(f'\n{args.work_dir}/table3.md: mean over seeds {args.seeds} (lowest to highest)')


if __name__ == '__main__':
    cli.run(main)
