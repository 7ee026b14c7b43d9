"""Train small configs in processes of their own, two at a time."""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import runpy
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ipirm_mm.engine import logged_records
from ipirm_mm.utils import ProgressBar, available_processors

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / 'tools/train.py'
# Config of the recipe, from whose encoder teacher and students start.
ENCODER = 'ipirm_simclr_sum'
# Seconds between lines where output is no terminal, on which the bar would show nothing.
_LINE_INTERVAL = 30
# An epoch of 500 labeled images takes about a tenth of one of 4,000 images, two views each.
_LABELLED_EPOCH_COST = 0.1
# Runs start from a process that has imported what they need, which takes longer than some of them.
_PROCESSES = multiprocessing.get_context('forkserver' if hasattr(os, 'fork') else 'spawn')
_PRELOADED = [
    'ipirm_mm',
    'mmpretrain.engine',
    'mmpretrain.evaluation',
    'mmpretrain.visualization',
    'torch.utils.tensorboard',
    'matplotlib.pyplot',
]


def _train(arguments: Sequence[str], output: Path, threads: int) -> None:
    """Run ``tools/train.py`` in this process.

    Args:
        arguments: Its arguments.
        output: File that gets all that it prints.
        threads: Number of threads.
    """
    with open(output, 'wb') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(threads)
    sys.argv = [str(TRAIN), *arguments]
    runpy.run_path(str(TRAIN), run_name='__main__')


class Run:
    """One training of a small config, in a process of its own.

    A finished run is reused if nothing that it depends on has changed.

    Args:
        config: Name of the config without ending: of one in ``configs/quickstart``, or with its
            folder, such as ``'glyphs/simclr_glyphs'``.
        folder: Work folder.
        epochs: Number of epochs.
        seed: Seed.
        options: Further ``key=value`` for ``--cfg-options``.
        needs: Runs whose checkpoints this one needs, by the option that names the checkpoint.
            They are trained first.
        epoch_cost: Time per epoch relative to other runs, from which the remaining time is
            estimated. Defaults to 1.
        inputs: Files that the training reads; another content makes it another run. Defaults to
            none.
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
        inputs: Sequence[Path] = (),
    ) -> None:
        self.config = config
        self.inputs = inputs
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
        self.arguments = [
            str(self.config_path),
            '--work-dir',
            str(self.folder),
            '--cfg-options',
            *self.options,
        ]
        self.process: BaseProcess | None = None

    @property
    def config_path(self) -> Path:
        """Path of the config."""
        name = self.config if '/' in self.config else f'quickstart/{self.config}'
        return ROOT / f'configs/{name}.py'

    def _fingerprint(self) -> str:
        """Hash of everything that the run depends on."""
        digest = hashlib.sha256(f'{self.options} {torch.__version__}'.encode())
        digest.update(Config.fromfile(self.config_path).pretty_text.encode())
        for run in self.needs.values():
            digest.update(run.fingerprint.encode())
        for source in (*self.inputs, *sorted((ROOT / 'ipirm_mm').rglob('*.py'))):
            digest.update(source.read_bytes())
        return digest.hexdigest()

    def start(self, threads: int) -> None:
        """Start the training from the beginning.

        Args:
            threads: Number of threads of the process.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.process = _PROCESSES.Process(
            target=_train, args=(self.arguments, self.folder / 'output.log', threads)
        )
        self.process.start()

    def poll(self) -> bool:
        """Whether the training has ended.

        Raises:
            SystemExit: If it failed, with the end of its output.
        """
        assert self.process is not None
        status = self.process.exitcode
        if status is None:
            return False
        if status:
            tail = (self.folder / 'output.log').read_text(errors='replace')[-1500:]
            raise SystemExit(
                f'error: python {TRAIN} {" ".join(self.arguments)} ended with status {status}:'
                f'\n{tail}'
            )
        self.stamp.write_text(self.fingerprint)
        self.done = True
        self.process = None
        return True

    def records(self) -> list[dict[str, Any]]:
        """The records that the training has logged so far."""
        return logged_records(self.folder)

    def epochs_done(self) -> float:
        """Number of epochs that are finished."""
        if self.done:
            return self.epochs
        epochs = [record['epoch'] for record in self.records() if 'loss' in record]
        return max(epochs, default=1) - 1


def _slots() -> int:
    """Number of processes at a time."""
    return min(2, available_processors())


def train_all(runs: list[Run], console: Console) -> None:
    """Train all runs that are not finished, one per core but at most two at a time.

    Args:
        runs: The runs, in the order in which they are started if all they need is there.
        console: Where progress and the remaining time are shown.
    """
    cores, slots = available_processors(), _slots()
    # Read only once, by the process from which the runs start.
    os.environ['OMP_NUM_THREADS'] = str(max(1, cores // slots))
    _PROCESSES.set_forkserver_preload(_PRELOADED)
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
            told = began = time.monotonic()
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
                now = time.monotonic()
                if not console.is_terminal and now - told >= _LINE_INTERVAL:
                    told = now
                    share = done / sum(run.epochs * run.epoch_cost for run in waiting)
                    names = ', '.join(run.config for run in running)
                    console.print(f'{share:.0%} after {now - began:.0f} s, now {names}')
    finally:
        for run in running:
            if run.process is not None and run.process.exitcode is None:
                run.process.terminate()


def map_processes(
    function: Callable[[Any], Any], items: Sequence[Any], what: str = 'evaluating'
) -> list[Any]:
    """Call a function for each item, in as many processes as :func:`train_all` has.

    Args:
        function: A function of a module.
        items: Its arguments.
        what: What is done, for the progress bar. Defaults to ``'evaluating'``.

    Returns:
        What it returns, in the order of ``items``.
    """
    with _PROCESSES.Pool(min(_slots(), len(items)), torch.set_num_threads, (1,)) as pool:
        found = []
        with ProgressBar(what) as bar:
            for result in pool.imap(function, items):
                found.append(result)
                bar(len(found) / len(items), f'{len(found)} of {len(items)}')
        return found


def distillation_chain(
    folder: Path,
    seed: int,
    students: Sequence[str],
    epochs: int = 20,
    encoder_options: Sequence[str] = (),
    labelled_options: Sequence[str] = (),
) -> dict[str, Run]:
    """Encoder, teacher and students of Stage II.

    Args:
        folder: Work folder.
        seed: Seed of every run.
        students: Configs of the students; ``student_scratch`` and ``student_finetuned`` are the
            controls without a teacher.
        epochs: Epochs of the encoder. Defaults to 20.
        encoder_options: Further ``key=value`` for the encoder. Defaults to none.
        labelled_options: The same for teacher and students. Defaults to none.

    Returns:
        The runs by the names of their configs.
    """
    encoder = Run(ENCODER, folder / ENCODER, epochs, seed, encoder_options)
    from_encoder = {'model.backbone.init_cfg.checkpoint': encoder}
    cost = _LABELLED_EPOCH_COST

    def labelled(config: str, epochs: int, needs: dict[str, Run]) -> Run:
        return Run(config, folder / config, epochs, seed, labelled_options, needs, cost)

    teacher = labelled('teacher', 300, from_encoder)
    runs = {ENCODER: encoder, 'teacher': teacher}
    for student in students:
        needs: dict[str, Run] = {}
        if student != 'student_scratch':
            needs.update(from_encoder)
            if student != 'student_finetuned':
                needs['model.teacher.checkpoint'] = teacher
        runs[student] = labelled(student, 100, needs)
    return runs


def table_parser(
    description: str | None, work_dir: str, seeds: Sequence[int]
) -> argparse.ArgumentParser:
    """Make the parser of a table's command, with the folder of its runs and their seeds.

    Args:
        description: Documentation of the command.
        work_dir: Default of ``--work-dir``.
        seeds: Default of ``--seeds``.

    Returns:
        The parser, to which the command may add further options.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path(work_dir),
        help=f'folder of the runs (default: {work_dir})',
    )
    parser.add_argument(
        '--seeds',
        type=int,
        nargs='+',
        default=list(seeds),
        help=f'seeds (default: {" ".join(map(str, seeds))})',
    )
    return parser
