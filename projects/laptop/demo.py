"""Both stages of the method at a laptop's scale, with controls. `make demo` runs this.

    python projects/laptop/demo.py

Stage I: trains SimCLR, IP-IRM and its controls on the embedded images, tinted by a hidden factor,
with the same seeds and budget. Prints k-NN and linear-probe accuracies, also of a probe whose
training images have colors that follow the class while the test images do not. Stage II, with the
first seed: fine-tunes a teacher from the encoder of IP-IRM, trains the same student with and
without it, and merges views and students. Tables, curves and pictures of the partitions go to one
page, work_dirs/demo/index.html.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import textwrap
import time
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation import (
    NUM_DRAWS,
    correct_rate,
    draw_scores,
    encoder_of,
    evaluate_encoder,
    load,
    merge_draws,
)
from mmengine.logging import MMLogger
from rich.console import Console
from runs import ENCODER, Run, distillation_chain, map_processes, train_all

import ipirm_mm
from ipirm_mm.evaluation import bootstrap_interval, format_interval
from ipirm_mm.visualization import Table, format_table, read_partitions, write_report

# Smaller views than the config's, which take half of the time.
VIEWS = ('data_preprocessor.transforms.0.0.scale=20',)
OURS = 'IP-IRM, ours'
# Stage I: name of the row, config, description.
METHODS = (
    ('SimCLR', 'sum_simclr', 'plain self-supervised learning'),
    ('penalty alone', 'sum_penalty_only', 'control: the penalty on the whole batch, no partition'),
    ('random partition', 'sum_random_partition', 'control: 50 random subsets, the same penalty'),
    (OURS, ENCODER, '50 subsets by k-means after 5 epochs, weight 1'),
    ('IP-IRM, report', 'sum_report', 'K = 2, Eq. 3, weight 0.2, every 5 epochs'),
    ('true color', 'sum_true_factor', 'reference: the partition by the hidden factor itself'),
)
# Those that are trained with every seed; the others with the first one, to save minutes.
EVERY_SEED = ('sum_penalty_only', ENCODER)
# Stage II: name of the row, config, description.
STUDENTS = (
    ('teacher', 'teacher', 'an encoder of IP-IRM, fine-tuned with labels for 300 epochs'),
    ('from scratch', 'student_scratch', 'control: the student alone, 100 epochs'),
    ('from Stage I', 'student_finetuned', 'control: from the encoder, without a teacher'),
    ('KL', 'student_kl', 'from the encoder, with the probabilities of the teacher'),
    ('OFD', 'student_ofd', 'from the encoder, with the features of all stages of the teacher'),
)
# The members of the ensemble.
MEMBERS = ('student_kl', 'student_ofd')
STUDENT_COLUMNS = (
    ('name', 'student'),
    ('accuracy', 'accuracy'),
    ('interval', '95 % interval'),
    ('what', 'description'),
)
STUDENT_NOTES = (
    'accuracy: on 1,000 held-out images; students are trained on 50 labeled images per class. '
    'Color is independent of the class in both.',
    'Differences of a few points are within the interval: python projects/laptop/table4.py runs '
    'five seeds of all losses.',
)
MERGED_NOTES = (
    'Predictions of the students above for the same images; python projects/laptop/table2.py runs '
    'five seeds.',
)
COLUMNS = (
    ('name', 'method'),
    ('knn', 'k-NN'),
    ('probe', 'probe'),
    ('shifted', 'probe, color shifted'),
    ('range', 'lowest to highest'),
    ('color', 'color read out'),
)
NOTES = (
    'k-NN: 50 labeled images per class vote (k = 20) on 1,000 held-out images; color is '
    'independent of the class in both.',
    'probe: linear classifier on the frozen features, fitted to 50 images per class with colors '
    'independent of the class.',
    'probe, color shifted: the same, but fitted to images of which 90 % have a color that '
    'follows the class, and tested on images whose color does not.',
    'color read out: accuracy of a linear classifier of the ten colors; chance is 10. The '
    'lower, the more invariant to color the encoder is.',
    f'Each figure is the mean over {NUM_DRAWS} draws of the colors. Rows with "lowest to highest" '
    '(of "probe, color shifted") are means over several seeds of the training; the others are of '
    'the first seed. Ten seeds of all rows: docs/lab.md.',
    'Gains that "penalty alone" or "random partition" share are due to the penalty, not to the '
    'partitions.',
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--work-dir',
        default='work_dirs/demo',
        help='folder that everything is written to (default: work_dirs/demo)',
    )
    parser.add_argument(
        '--epochs', type=int, default=20, help='epochs of each run of Stage I (default: 20)'
    )
    parser.add_argument(
        '--seeds',
        type=int,
        nargs='+',
        default=[0, 1, 2],
        help='seeds of our recipe and the penalty alone; others have the first (default: 0 1 2)',
    )
    parser.add_argument(
        '--methods',
        nargs='+',
        choices=[config for _, config, _ in METHODS],
        default=[config for _, config, _ in METHODS],
        help='configs of Stage I to run (default: all)',
    )
    parser.add_argument('--stage1', action='store_true', help='leave Stage II out')
    args = parser.parse_args()
    if args.epochs < 1:
        parser.error(f'--epochs must be at least 1, but is {args.epochs}')
    return args


def encoder_rates(of: Run | int) -> dict[str, float]:
    """Evaluate the encoder of a run, or of a seed before its training; in percent."""
    MMLogger.get_instance('demo', log_level='ERROR')
    rates = evaluate_encoder(encoder_of(of), dict(split=['val', 'test']))
    return {name: 100 * float(rate.mean()) for name, rate in rates.items()}


def encoder_rows(encoders: dict[str, list[Run]], seed: int) -> list[dict[str, Any]]:
    """The rows of Stage I: an encoder that is not trained, and those of the runs."""
    of: dict[str, list[Any]] = {'untrained': [seed], **encoders}
    rates = iter(map_processes(encoder_rates, [one for several in of.values() for one in several]))
    rows = []
    for name, several in of.items():
        found = [next(rates) for _ in several]
        row: dict[str, Any] = dict(name=name)
        row.update((key, float(np.mean([one[key] for one in found]))) for key in found[0])
        shifted = [one['shifted'] for one in found]
        if len(shifted) > 1:
            row['range'] = format_interval((min(shifted), max(shifted)), scale=1)
        rows.append(row)
    return rows


def accuracy_row(
    name: str, scores: torch.Tensor, labels: torch.Tensor, what: str
) -> dict[str, Any]:
    """Row of the accuracy, in percent, of probabilities ``(NUM_DRAWS, M, C)``."""
    rate = correct_rate(scores, labels)
    interval = format_interval(bootstrap_interval(rate))
    return dict(name=name, accuracy=100 * float(rate.mean()), interval=interval, what=what)


def student_rows(chain: dict[str, Run]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of Stage II, and those of test-time augmentation and ensembles."""
    test_set = dict(split=['val', 'test'])
    models = {config: load(chain[config]) for _, config, _ in STUDENTS}
    scores = {config: draw_scores(model, test_set) for config, model in models.items()}
    rows = [accuracy_row(name, *scores[config], what) for name, config, what in STUDENTS]
    flips = {config: draw_scores(models[config], test_set, 'flip') for config in MEMBERS}
    labels = scores[MEMBERS[0]][1]

    def merged(of: dict[str, Any]) -> torch.Tensor:
        return merge_draws(torch.stack([of[config][0] for config in MEMBERS]))

    names = {config: name for name, config, _ in STUDENTS}
    flipped = [
        accuracy_row(f'{names[config]}, flip', *flips[config], 'mean over image and mirror image')
        for config in MEMBERS
    ]
    both = ' + '.join(names[config] for config in MEMBERS)
    return rows, [
        *flipped,
        accuracy_row(both, merged(scores), labels, 'ensemble, mean'),
        accuracy_row(f'{both}, flip', merged(flips), labels, 'ensemble, mean, each with flips'),
    ]


def curves(runs: list[tuple[str, Run]]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Loss and k-NN accuracy over the epochs of each run, for the plots of the page."""
    loss: dict[str, list[tuple[float, float]]] = {}
    accuracy: dict[str, list[tuple[float, float]]] = {}
    for name, run in runs:
        by_epoch: dict[int, list[float]] = {}
        for record in run.records():
            if 'risk_batch' in record:
                by_epoch.setdefault(record['epoch'], []).append(record['risk_batch'])
            if 'knn_monitor/top1' in record:
                point = record['step'], record['knn_monitor/top1']
                accuracy.setdefault(name, []).append(point)
        loss[name] = [(epoch, float(np.mean(values))) for epoch, values in by_epoch.items()]
    return {'contrastive loss of the batch': loss, 'k-NN accuracy during training (%)': accuracy}


def partitions(name: str, run: Run) -> list[dict[str, Any]]:
    """Records of the partitions that a run found, with their pictures."""
    found: list[dict[str, Any]] = []
    for record in read_partitions(run.folder):
        picture = run.folder / 'partitions' / f'partition_{record["number"]:02d}.png'
        found.append(dict(record, method=name, picture=picture))
    return found


def main() -> None:
    args = parse_args()
    console = Console()
    began = time.time()
    folders = {seed: Path(args.work_dir) / f'seed_{seed}' for seed in args.seeds}
    first = args.seeds[0]
    chain: dict[str, Run] = {}
    if not args.stage1:
        names = [config for _, config, _ in STUDENTS if config != 'teacher']
        chain = distillation_chain(folders[first], first, names, args.epochs, VIEWS)
    methods = [row for row in METHODS if row[1] in args.methods]
    # The encoder of the chain is trained once.
    encoders = {
        name: [
            chain[config]
            if seed == first and config in chain
            else Run(config, folder / config, args.epochs, seed, VIEWS)
            for seed, folder in folders.items()
            if seed == first or config in EVERY_SEED
        ]
        for name, config, _ in methods
    }
    # The chain first, since its runs wait for each other; then seed by seed.
    by_seed = [run for row in zip_longest(*encoders.values()) for run in row if run is not None]
    runs = list(dict.fromkeys([*chain.values(), *by_seed]))
    reused = sum(run.reused for run in runs)
    if reused:
        console.print(
            f'Reused, since nothing that they depend on has changed: {reused} of {len(runs)} runs '
            f'(delete {args.work_dir} to train them again).'
        )
    train_all(runs, console)

    # Errors only: MMEngine logs every layer that it initializes and every file that it loads.
    MMLogger.get_instance('demo', log_level='ERROR')
    with console.status('evaluating'):
        rows = encoder_rows(encoders, first)
        tables = [Table('Stage I: encoders', rows, COLUMNS, NOTES)]
        if chain:
            students, merged = student_rows(chain)
            tables.append(Table('Stage II: students', students, STUDENT_COLUMNS, STUDENT_NOTES))
            tables.append(
                Table('Inference: views and models merged', merged, STUDENT_COLUMNS, MERGED_NOTES)
            )
    for table in tables:
        print(f'\n{table.title}\n\n{format_table(table.rows, table.columns)}\n')
        for note in table.notes:
            print(textwrap.fill(note, 96, initial_indent='- ', subsequent_indent='  '))

    page = Path(args.work_dir) / 'index.html'
    write_report(
        page,
        title='IP-IRM on tinted Fashion-MNIST',
        tables=tables,
        # Of the first seed, as more would hide each other; those of our recipe come first.
        curves=curves([(name, several[0]) for name, several in encoders.items()]),
        partitions=[
            record
            for name, several in sorted(encoders.items(), key=lambda item: item[0] != OURS)
            for record in partitions(name, several[0])
        ],
        settings={
            'command': 'make demo' if len(sys.argv) == 1 else shlex.join(['python', *sys.argv]),
            'data': '4,000 unlabeled and 500 labeled images of Fashion-MNIST-50, ten colors',
            'epochs': str(args.epochs),
            'views': '20 x 20 pixels',
            'seeds': f'{", ".join(map(str, args.seeds))}; curves, partitions, Stage II: {first}',
            'versions': f'ipirm_mm {ipirm_mm.__version__}, torch {torch.__version__}',
            **{name: what for name, _, what in methods},
        },
    )
    print(f'\n{time.time() - began:.0f} s in total. Curves and pictures of partitions: {page}')


if __name__ == '__main__':
    main()
