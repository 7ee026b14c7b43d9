"""Stage I at a laptop's scale: plain SimCLR, IP-IRM and its controls, side by side.

Trains each of the quickstart configs on the embedded images, tinted by a hidden factor, with the
same seed and budget; then prints k-NN and linear-probe accuracies, also where the colour that
followed the class in training no longer does, and writes them with curves and pictures of the
partitions to one page, ``work_dirs/demo/index.html``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.logging import MMLogger
from mmengine.runner import load_checkpoint
from mmpretrain import get_model
from mmpretrain.registry import DATASETS
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.data import DataLoader

import ipirm_mm
from ipirm_mm.evaluation import LinearProbe, bootstrap_interval, extract_features, knn_predict
from ipirm_mm.visualization import format_table, write_report

ROOT = Path(__file__).resolve().parents[1]
# Name in the table, config, what it is for.
METHODS = (
    ('SimCLR', 'simclr', 'plain self-supervised learning'),
    ('penalty alone', 'penalty_only', 'control: the penalty on the whole batch, no partition'),
    ('random partition', 'random_partition', 'control: 20 random subsets, the same penalty'),
    ('IP-IRM, report', 'ipirm_simclr_report', 'K = 2, Eq. 3, weight 0.2, every 5 epochs'),
    ('IP-IRM, ours', 'ipirm_simclr', '20 subsets by k-means after 5 epochs, weight 2'),
    ('true colour', 'true_factor', 'bound: the partition by the hidden factor itself'),
)
DRAWS = 4
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
    parser.add_argument('--epochs', type=int, default=20, help='epochs of each run (default 20)')
    parser.add_argument('--seed', type=int, default=0, help='seed of each run (default 0)')
    parser.add_argument(
        '--methods',
        nargs='+',
        choices=[config for _, config, _ in METHODS],
        default=[config for _, config, _ in METHODS],
        help='which configs to run (default all)',
    )
    args = parser.parse_args()
    if args.epochs < 1:
        parser.error(f'--epochs must be at least 1, but is {args.epochs}')
    return args


def fingerprint(config: str, args: argparse.Namespace) -> str:
    """Hash of all that a run depends on: a finished run with the same one is used again."""
    digest = hashlib.sha256(f'{args.epochs} {args.seed} {torch.__version__}'.encode())
    digest.update(Config.fromfile(ROOT / f'configs/quickstart/{config}.py').pretty_text.encode())
    for path in sorted((ROOT / 'ipirm_mm').rglob('*.py')):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class Run:
    """One training in a process of its own."""

    def __init__(self, config: str, args: argparse.Namespace) -> None:
        self.config = config
        self.epochs = args.epochs
        self.folder = Path(args.work_dir).resolve() / config
        self.checkpoint = self.folder / f'epoch_{args.epochs}.pth'
        self.stamp = self.folder / 'fingerprint'
        self.fingerprint = fingerprint(config, args)
        self.done = (
            self.checkpoint.is_file()
            and self.stamp.is_file()
            and self.stamp.read_text() == self.fingerprint
        )
        self.reused = self.done
        self.command = [
            sys.executable,
            str(ROOT / 'tools/train.py'),
            str(ROOT / f'configs/quickstart/{config}.py'),
            '--work-dir',
            str(self.folder),
            '--cfg-options',
            f'train_cfg.max_epochs={args.epochs}',
            f'randomness.seed={args.seed}',
        ]
        self.process: subprocess.Popen | None = None

    def start(self, threads: int) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        with open(self.folder / 'output.log', 'wb') as output:
            self.process = subprocess.Popen(
                self.command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, 'OMP_NUM_THREADS': str(threads)},
            )

    def poll(self) -> bool:
        """Whether it has ended; raises if it failed."""
        assert self.process is not None
        status = self.process.poll()
        if status is None:
            return False
        if status:
            tail = (self.folder / 'output.log').read_text(errors='replace')[-1500:]
            raise SystemExit(
                f'error: {" ".join(self.command)} ended with status {status}:\n{tail}'
            )
        self.stamp.write_text(self.fingerprint)
        self.done = True
        return True

    def records(self) -> list[dict[str, Any]]:
        """What it logged so far."""
        lines: list[dict[str, Any]] = []
        for path in sorted(self.folder.glob('*/vis_data/scalars.json')):
            for line in path.read_text().splitlines():
                try:
                    lines.append(json.loads(line))
                except json.JSONDecodeError:  # a line that is just being written
                    break
        return lines

    def epochs_done(self) -> float:
        if self.done:
            return self.epochs
        epochs = [record['epoch'] for record in self.records() if 'loss' in record]
        return max(epochs, default=1) - 1


def train_all(runs: list[Run], console: Console) -> None:
    """Train, as many at once as there are cores (at most 2), with progress and time left."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    )
    slots = min(2, cores)
    waiting = [run for run in runs if not run.done]
    running: list[Run] = []
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        TextColumn('{task.percentage:>3.0f} %'),
        TimeElapsedColumn(),
        TextColumn('left'),
        TimeRemainingColumn(elapsed_when_finished=False),
    )
    try:
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(
                f'training {len(waiting)} encoders', total=sum(run.epochs for run in waiting)
            )
            todo = list(waiting)
            while todo or running:
                while todo and len(running) < slots:
                    run = todo.pop(0)
                    run.start(max(1, cores // slots))
                    running.append(run)
                time.sleep(1)
                running = [run for run in running if not run.poll()]
                progress.update(task, completed=sum(run.epochs_done() for run in waiting))
    finally:
        for run in running:
            if run.process is not None and run.process.poll() is None:
                run.process.terminate()


def tinted_features(model: Any, split: Any, follow: float, seed: int) -> dict[str, torch.Tensor]:
    """Pooled features of a split, tinted with colours that follow the class to a degree."""
    dataset = DATASETS.build(
        dict(
            type='FashionMNIST50',
            split=split,
            pipeline=[
                dict(type='TintByFactor', num_factors=10, follow=follow, seed=seed),
                dict(type='PackInputs', meta_keys=('sample_idx', 'factor')),
            ],
        )
    )
    loader = DataLoader(
        dataset,
        batch_size=500,
        sampler=DefaultSampler(dataset, shuffle=False, seed=0),
        collate_fn=default_collate,
    )
    data = extract_features(model, loader, description='features')
    return dict(x=data['features'][0], y=data['gt_label'], factor=data['factor'])


def evaluate(model: Any) -> dict[str, Any]:
    """The row of a model, in percent."""
    correct: dict[str, list[torch.Tensor]] = dict(knn=[], probe=[], shifted=[], colour=[])
    for draw in range(DRAWS):
        free = tinted_features(model, 'train', 0.0, 10 * draw + 1)
        tied = tinted_features(model, 'train', 0.9, 10 * draw + 2)
        test = tinted_features(model, ['val', 'test'], 0.0, 10 * draw + 3)
        votes = knn_predict(free['x'], free['y'], test['x'], k=20)
        correct['knn'].append(votes.argmax(1) == test['y'])
        for name, train, target in (
            ('probe', free, 'y'),
            ('shifted', tied, 'y'),
            ('colour', free, 'factor'),
        ):
            probe = LinearProbe().fit(train['x'], train[target])
            correct[name].append(probe.predict(test['x']) == test[target])
    by_image = {name: torch.stack(hits).float().mean(0) for name, hits in correct.items()}
    row: dict[str, Any] = {name: 100 * float(hits.mean()) for name, hits in by_image.items()}
    low, high = bootstrap_interval(by_image['shifted'])
    row['interval'] = f'{100 * low:.1f} to {100 * high:.1f}'
    return row


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
        (name, Run(config, args), what) for name, config, what in METHODS if config in args.methods
    ]
    reused = [name for name, run, _ in chosen if run.reused]
    if reused:
        console.print(
            f'Used again, since nothing that they depend on has changed: {", ".join(reused)} '
            f'(delete {args.work_dir} to train anew).'
        )
    train_all([run for _, run, _ in chosen], console)

    # Only errors: MMEngine tells of each layer that it initialises and each file that it loads.
    MMLogger.get_instance('demo', log_level='ERROR')
    rows = []
    config = Config.fromfile(ROOT / 'configs/quickstart/simclr.py')
    torch.manual_seed(args.seed)
    with console.status('evaluating'):
        untrained = get_model(config, device='cpu')
        untrained.init_weights()
        rows.append(dict(name='untrained', **evaluate(untrained)))
        for name, run, _ in chosen:
            config = Config.fromfile(ROOT / f'configs/quickstart/{run.config}.py')
            model = get_model(config, device='cpu')
            load_checkpoint(model, str(run.checkpoint), map_location='cpu', logger='silent')
            rows.append(dict(name=name, **evaluate(model)))
    table = format_table(rows, COLUMNS)
    print(f'\n{table}\n')
    for note in NOTES:
        print(textwrap.fill(note, 96, initial_indent='- ', subsequent_indent='  '))

    page = Path(args.work_dir) / 'index.html'
    write_report(
        page,
        title='IP-IRM on tinted Fashion-MNIST: Stage I',
        rows=rows,
        columns=COLUMNS,
        curves=curves([(name, run) for name, run, _ in chosen]),
        partitions=[record for name, run, _ in chosen[::-1] for record in partitions(name, run)],
        settings={
            'command': ' '.join(['make demo'] if len(sys.argv) == 1 else sys.argv),
            'data': '4,000 unlabelled images of Fashion-MNIST-50, ten colours',
            'epochs': str(args.epochs),
            'seed': str(args.seed),
            'versions': f'ipirm_mm {ipirm_mm.__version__}, torch {torch.__version__}',
            **{name: what for name, _, what in chosen},
        },
        notes=NOTES,
    )
    print(f'\n{time.time() - began:.0f} s in all. Curves and pictures of the partitions: {page}')


if __name__ == '__main__':
    main()
