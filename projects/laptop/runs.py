"""Train quickstart configs side by side, and compare: for demo.py, table3.py and table4.py."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmpretrain import get_model
from mmpretrain.registry import DATASETS
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.data import DataLoader

from ipirm_mm.evaluation import LinearProbe, extract_features, knn_predict
from ipirm_mm.functional import merge_scores
from ipirm_mm.models.tta import ScoreMergingTTA, plain_classifier, tta_pipeline
from ipirm_mm.visualization import format_table

ROOT = Path(__file__).resolve().parents[1]
DRAWS = 4
# An epoch of 500 labelled images takes about a tenth of one of 4,000 images, two views each.
_LABELLED = 0.1


class Run:
    """One training of a quickstart config, in a process of its own.

    A finished run is used again if nothing that it depends on has changed.

    Args:
        config: Name of the config.
        folder: Work folder.
        epochs: Epochs.
        seed: Seed.
        options: Further ``key=value`` for ``--cfg-options``.
        needs: Options that name a checkpoint, and the runs that make it, which come first.
        epoch_cost: Time of an epoch, relative to those of other runs, by which the time left is
            estimated. Defaults to 1.
    """

    def __init__(
        self,
        config: str,
        folder: Path,
        epochs: int,
        seed: int,
        options: Sequence[str] = (),
        needs: dict[str, Run] | None = None,
        epoch_cost: float = 1.0,
    ) -> None:
        self.config = config
        self.epoch_cost = epoch_cost
        self.needs = needs or {}
        self.epochs = epochs
        self.folder = folder.resolve()
        self.checkpoint = self.folder / f'epoch_{epochs}.pth'
        self.stamp = self.folder / 'fingerprint'
        self.options = [
            f'train_cfg.max_epochs={epochs}',
            f'randomness.seed={seed}',
            *options,
            *(f'{key}={run.checkpoint}' for key, run in self.needs.items()),
        ]
        self.fingerprint = self._fingerprint()
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
            *self.options,
        ]
        self.process: subprocess.Popen | None = None

    def _fingerprint(self) -> str:
        """Hash of all that the run depends on."""
        digest = hashlib.sha256(f'{self.options} {torch.__version__}'.encode())
        path = ROOT / f'configs/quickstart/{self.config}.py'
        digest.update(Config.fromfile(path).pretty_text.encode())
        for run in self.needs.values():
            digest.update(run.fingerprint.encode())
        for source in sorted((ROOT / 'ipirm_mm').rglob('*.py')):
            digest.update(source.read_bytes())
        return digest.hexdigest()

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
                f'training {len(waiting)} networks',
                total=sum(run.epochs * run.epoch_cost for run in waiting),
            )
            todo = list(waiting)
            while todo or running:
                while len(running) < slots:
                    ready = (run for run in todo if all(n.done for n in run.needs.values()))
                    run = next(ready, None)
                    if run is None:
                        break
                    todo.remove(run)
                    run.start(max(1, cores // slots))
                    running.append(run)
                time.sleep(1)
                running = [run for run in running if not run.poll()]
                done = sum(run.epochs_done() * run.epoch_cost for run in waiting)
                progress.update(task, completed=done)
    finally:
        for run in running:
            if run.process is not None and run.process.poll() is None:
                run.process.terminate()


def distillation_chain(
    folder: Path, seed: int, students: Sequence[str], epochs: int = 20
) -> dict[str, Run]:
    """Encoder, teacher and students of Stage II, by the names of their configs.

    Args:
        folder: Work folder.
        seed: Seed of each.
        students: Configs of the students; ``student_scratch`` and ``student_finetuned`` are the
            controls without teacher.
        epochs: Epochs of the encoder. Defaults to 20.
    """
    encoder = Run('ipirm_simclr_bn', folder / 'ipirm_simclr_bn', epochs, seed)
    from_encoder = {'model.backbone.init_cfg.checkpoint': encoder}
    teacher = Run(
        'teacher', folder / 'teacher', 300, seed, needs=from_encoder, epoch_cost=_LABELLED
    )
    runs = dict(ipirm_simclr_bn=encoder, teacher=teacher)
    for student in students:
        needs: dict[str, Run] = {}
        if student != 'student_scratch':
            needs.update(from_encoder)
            if student != 'student_finetuned':
                needs['model.teacher.checkpoint'] = teacher
        runs[student] = Run(
            student, folder / student, 100, seed, needs=needs, epoch_cost=_LABELLED
        )
    return runs


def save_table(path: Path, rows: list[dict[str, Any]], columns: Sequence[tuple[str, str]]) -> None:
    """Write a table as Markdown, and print it.

    Args:
        path: File to write.
        rows: Text of each row by key; what a row lacks is a dash.
        columns: Key and heading of each column.
    """
    print(f'\n{format_table(rows, columns)}')
    lines = [
        '| ' + ' | '.join(heading for _, heading in columns) + ' |',
        '| --- ' * len(columns) + '|',
        *('| ' + ' | '.join(row.get(key, '-') for key, _ in columns) + ' |' for row in rows),
    ]
    path.write_text('\n'.join(lines) + '\n')


def load(run: Run) -> Any:
    """The network of a finished run."""
    config = Config.fromfile(ROOT / f'configs/quickstart/{run.config}.py')
    if config.model.type == 'DistillingClassifier':  # the student alone, as it will be used
        config.model = plain_classifier(config)
    model = get_model(config, device='cpu')
    load_checkpoint(model, str(run.checkpoint), map_location='cpu', logger='silent')
    return model


def draw_scores(
    model: Any, test_set: dict[str, Any], crops: str | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities of a classifier for test images, over several draws of the colours.

    Args:
        model: A classifier.
        test_set: Config of the test images.
        crops: Views of test-time augmentation, see
            :func:`~ipirm_mm.models.tta.tta_pipeline`. Defaults to None, the images alone.

    Returns:
        ``(DRAWS, M, C)``, and the classes of the images, ``(M,)``.
    """
    model.eval()
    scores = []
    for draw in range(DRAWS):
        pipeline = tinted_pipeline(0.0, 10 * draw + 3)
        loader = loader_of(test_set, tta_pipeline(pipeline, crops) if crops else pipeline)
        network = ScoreMergingTTA(model) if crops else model
        with torch.no_grad():
            samples = [sample for batch in loader for sample in network.test_step(batch)]
        scores.append(torch.stack([sample.pred_score for sample in samples]))
    return torch.stack(scores), torch.cat([sample.gt_label for sample in samples])


def hit_rate(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """How often each image is classified rightly, ``(M,)``, by ``(DRAWS, M, C)`` and labels."""
    return (scores.argmax(2) == labels).float().mean(0)


def merge_draws(
    members: torch.Tensor, policy: str = 'mean', weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Merge the probabilities of members, ``(A, DRAWS, M, C)``; returns ``(DRAWS, M, C)``."""
    merged = merge_scores(members.flatten(1, 2), policy, weights)
    return merged.unflatten(0, members.shape[1:3])


def tinted_pipeline(follow: float, seed: int) -> list[dict[str, Any]]:
    """Pipeline of images in colours that follow the class to a degree."""
    return [
        dict(type='TintByFactor', num_factors=10, follow=follow, seed=seed),
        dict(type='PackInputs', meta_keys=('sample_idx', 'factor')),
    ]


def loader_of(dataset: dict[str, Any], pipeline: list[dict[str, Any]]) -> DataLoader:
    """Loader of embedded images, in order."""
    init_default_scope('mmpretrain')  # in which transforms within transforms are looked up
    built = DATASETS.build(dict(type='FashionMNIST50', **dataset, pipeline=pipeline))
    return DataLoader(
        built,
        batch_size=500,
        sampler=DefaultSampler(built, shuffle=False, seed=0),
        collate_fn=default_collate,
    )


def tinted_features(
    model: Any, dataset: dict[str, Any], follow: float, seed: int
) -> dict[str, torch.Tensor]:
    """Pooled features of a data set, tinted with colours that follow the class to a degree."""
    loader = loader_of(dataset, tinted_pipeline(follow, seed))
    data = extract_features(model, loader, description='features')
    return dict(x=data['features'][0], y=data['gt_label'], factor=data['factor'])


def evaluate(model: Any, test_set: dict[str, Any]) -> dict[str, torch.Tensor]:
    """How often each test image is classified rightly, over several draws of the colours.

    Args:
        model: An encoder.
        test_set: Config of the test images.

    Returns:
        ``(M,)``, 0 to 1, of ``knn`` (k = 20) and ``probe``, fitted to the 500 labelled images of
        independent colours; ``shifted``, the probe fitted where colours follow the class for 90 %
        of the images; and ``colour``, a probe of the ten colours.
    """
    correct: dict[str, list[torch.Tensor]] = dict(knn=[], probe=[], shifted=[], colour=[])
    labelled = dict(split='train')
    for draw in range(DRAWS):
        free = tinted_features(model, labelled, 0.0, 10 * draw + 1)
        tied = tinted_features(model, labelled, 0.9, 10 * draw + 2)
        test = tinted_features(model, test_set, 0.0, 10 * draw + 3)
        votes = knn_predict(free['x'], free['y'], test['x'], k=20)
        correct['knn'].append(votes.argmax(1) == test['y'])
        for name, train, target in (
            ('probe', free, 'y'),
            ('shifted', tied, 'y'),
            ('colour', free, 'factor'),
        ):
            probe = LinearProbe().fit(train['x'], train[target])
            correct[name].append(probe.predict(test['x']) == test[target])
    return {name: torch.stack(hits).float().mean(0) for name, hits in correct.items()}
