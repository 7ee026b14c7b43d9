"""Both stages at a laptop's scale, side by side.

Stage I: trains plain SimCLR, IP-IRM and its controls on the embedded images, tinted by a hidden
factor, with the same seed and budget; then prints k-NN and linear-probe accuracies, also where the
colour that followed the class in training no longer does. Stage II: fine-tunes a teacher from an
encoder of IP-IRM, trains the same student with and without it, and merges views and students.
Tables, curves and pictures of the partitions go to one page, ``work_dirs/demo/index.html``.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmpretrain import get_model
from rich.console import Console
from side_by_side import (
    DRAWS,
    ROOT,
    Run,
    distillation_chain,
    draw_scores,
    evaluate,
    hit_rate,
    load,
    merge_draws,
    train_all,
)

import ipirm_mm
from ipirm_mm.evaluation import bootstrap_interval
from ipirm_mm.visualization import Table, format_table, write_report

# Name in the table, config, what it is for.
METHODS = (
    ('SimCLR', 'simclr', 'plain self-supervised learning'),
    ('penalty alone', 'penalty_only', 'control: the penalty on the whole batch, no partition'),
    ('random partition', 'random_partition', 'control: 20 random subsets, the same penalty'),
    ('IP-IRM, report', 'ipirm_simclr_report', 'K = 2, Eq. 3, weight 0.2, every 5 epochs'),
    ('IP-IRM, ours', 'ipirm_simclr', '20 subsets by k-means after 5 epochs, weight 2'),
    ('true colour', 'true_factor', 'bound: the partition by the hidden factor itself'),
)
# Rows of Stage II, likewise.
STUDENTS = (
    ('teacher', 'teacher', 'an encoder of IP-IRM, fine-tuned with labels for 300 epochs'),
    ('from scratch', 'student_scratch', 'control: the student alone, 100 epochs'),
    ('from Stage I', 'student_finetuned', 'control: from the encoder, without teacher'),
    ('KL', 'student_kl', 'from the encoder, with the probabilities of the teacher'),
    ('OFD', 'student_ofd', 'from the encoder, with the features of all stages of the teacher'),
)
# Of which the ensemble is.
MEMBERS = ('student_kl', 'student_ofd')
STUDENT_COLUMNS = (
    ('name', 'student'),
    ('accuracy', 'accuracy'),
    ('interval', '95 % interval'),
    ('what', 'what it is'),
)
STUDENT_NOTES = (
    'accuracy: of 1,000 held-out images, colour independent of the class as in training, which is '
    'on 50 labelled images a class.',
    'Differences of some points are within the interval: python tools/table4.py gives five seeds '
    'of all losses.',
)
MERGED_NOTES = (
    'Of the students above, on the same images; python tools/table2.py gives five seeds.',
)
COLUMNS = (
    ('name', 'method'),
    ('knn', 'k-NN'),
    ('probe', 'probe'),
    ('shifted', 'probe, colour shifted'),
    ('interval', '95 % interval'),
    ('colour', 'colour read out'),
)
NOTES = (
    'k-NN: 50 labelled images a class vote (k = 20) on 1,000 held-out images; colour is '
    'independent of the class in both.',
    'probe: linear classifier on the frozen features, fitted to 50 images a class, colour '
    'independent of the class.',
    'probe, colour shifted: the same, but fitted where the colour follows the class for 90 % of '
    'the images and tested where it does not.',
    'colour read out: accuracy of a linear classifier of the ten colours; chance is 10. The '
    'lower, the more the encoder has become invariant to colour.',
    f'Each figure is the mean over {DRAWS} draws of the colours, for one seed of the training. '
    'The interval is a bootstrap over the test images and says nothing about other seeds.',
    'What "penalty alone" or "random partition" gains as well is the penalty\'s, not the '
    "partitions'.",
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('--work-dir', default='work_dirs/demo', help='where everything is written')
    parser.add_argument(
        '--epochs', type=int, default=20, help='epochs of each run of Stage I (default 20)'
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of each run (default 0)')
    parser.add_argument(
        '--methods',
        nargs='+',
        choices=[config for _, config, _ in METHODS],
        default=[config for _, config, _ in METHODS],
        help='which configs to run (default all)',
    )
    parser.add_argument('--stage1', action='store_true', help='leave Stage II out')
    args = parser.parse_args()
    if args.epochs < 1:
        parser.error(f'--epochs must be at least 1, but is {args.epochs}')
    return args


def row_of(model: Any) -> dict[str, Any]:
    """The row of a model, in percent."""
    by_image = evaluate(model, dict(split=['val', 'test']))
    row: dict[str, Any] = {name: 100 * float(hits.mean()) for name, hits in by_image.items()}
    low, high = bootstrap_interval(by_image['shifted'])
    row['interval'] = f'{100 * low:.1f} to {100 * high:.1f}'
    return row


def accuracy_row(
    name: str, scores: torch.Tensor, labels: torch.Tensor, what: str
) -> dict[str, Any]:
    """A row of accuracy, in percent, of ``(draws, M, C)`` probabilities."""
    hits = hit_rate(scores, labels)
    low, high = bootstrap_interval(hits)
    interval = f'{100 * low:.1f} to {100 * high:.1f}'
    return dict(name=name, accuracy=100 * float(hits.mean()), interval=interval, what=what)


def student_rows(chain: dict[str, Run]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of Stage II and those of test-time augmentation and ensembles."""
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
    """Loss and k-NN accuracy over the epochs of each run."""
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
    return {'contrastive loss of the batch': loss, 'k-NN accuracy while it trains (%)': accuracy}


def partitions(name: str, run: Run) -> list[dict[str, Any]]:
    """Records and pictures of the partitions that a run found."""
    found: list[dict[str, Any]] = []
    for path in sorted((run.folder / 'partitions').glob('partition_*.json')):
        record = json.loads(path.read_text())
        record.update(method=name, picture=path.with_suffix('.png'))
        found.append(record)
    return found


def main() -> None:
    args = parse_args()
    console = Console()
    began = time.time()
    chosen = [
        (name, Run(config, Path(args.work_dir) / config, args.epochs, args.seed), what)
        for name, config, what in METHODS
        if config in args.methods
    ]
    chain: dict[str, Run] = {}
    if not args.stage1:
        names = [config for _, config, _ in STUDENTS if config != 'teacher']
        chain = distillation_chain(Path(args.work_dir), args.seed, names, args.epochs)
    reused = [name for name, run, _ in chosen if run.reused]
    reused += [name for name, run in chain.items() if run.reused]
    if reused:
        console.print(
            f'Used again, since nothing that they depend on has changed: {", ".join(reused)} '
            f'(delete {args.work_dir} to train anew).'
        )
    # The chain first: it is the longer of the two.
    train_all([*chain.values(), *(run for _, run, _ in chosen)], console)

    # Only errors: MMEngine tells of each layer that it initialises and each file that it loads.
    MMLogger.get_instance('demo', log_level='ERROR')
    rows = []
    config = Config.fromfile(ROOT / 'configs/quickstart/simclr.py')
    torch.manual_seed(args.seed)
    with console.status('evaluating'):
        untrained = get_model(config, device='cpu')
        untrained.init_weights()
        rows.append(dict(name='untrained', **row_of(untrained)))
        for name, run, _ in chosen:
            rows.append(dict(name=name, **row_of(load(run))))
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
        curves=curves([(name, run) for name, run, _ in chosen]),
        partitions=[record for name, run, _ in chosen[::-1] for record in partitions(name, run)],
        settings={
            'command': ' '.join(['make demo'] if len(sys.argv) == 1 else sys.argv),
            'data': '4,000 unlabelled and 500 labelled images of Fashion-MNIST-50, ten colours',
            'epochs': str(args.epochs),
            'seed': str(args.seed),
            'versions': f'ipirm_mm {ipirm_mm.__version__}, torch {torch.__version__}',
            **{name: what for name, _, what in chosen},
        },
    )
    print(f'\n{time.time() - began:.0f} s in all. Curves and pictures of the partitions: {page}')


if __name__ == '__main__':
    main()
