"""Kill trainings at random moments (``kill -9``), resume each, and count what is lost.

    python tests/kill_runs.py [WORK_DIR] [--stage-one 50] [--stage-two 20] [--seed 0]

The trainings are small: 330 embedded images, 20 steps, a checkpoint every three steps with one
kept; Stage I with a partition and k-NN every epoch, Stage II with a validation. A hook of the run
says what it does (``tests/data/phases.py``). Each kill is meant for one kind of work, in turns, at
a time drawn from what that took in an undisturbed run; every seventh for any moment of the run.
Every third run has two data workers that stay; then the data workers are killed as well, or not.
Every fourth kill hits a run that was killed and resumed before.

After each kill, ``--resume`` runs to the end, and its last checkpoint (weights, partitions,
memories, optimizer, schedules), the losses of its steps and its partition reports are compared
with the undisturbed run's. The exit status is 1 if one is not the same.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch
from helpers import (
    ROOT,
    SMALL_STAGE_ONE,
    STAGE_ONE,
    checked,
    fork,
    losses,
    run_tool,
    same_training,
)

from ipirm_mm.utils import ProgressBar

INTERVAL = 3  # steps between checkpoints
STEPS = 20
# Seconds: data workers look every five seconds whether their parent is there.
PATIENCE = 15
WORKERS = ('train_dataloader.num_workers=2', 'train_dataloader.persistent_workers=True')
COMMON = (
    'train_dataloader.dataset.indices=330',
    'train_cfg.max_epochs=4',
    'default_hooks.checkpoint.by_epoch=False',
    f'default_hooks.checkpoint.interval={INTERVAL}',
    'default_hooks.checkpoint.max_keep_ckpts=1',
    'model.backbone.channels=(8,16,32)',
)
STAGES = {
    'Stage I': (
        STAGE_ONE,
        (
            *SMALL_STAGE_ONE,
            *COMMON,
            'custom_hooks.0.interval=1',
            'custom_hooks.0.solver.starts=[kmeans,pca]',  # without the slow ones
            'custom_hooks.1.interval=1',
            'model.neck.in_channels=32',
        ),
    ),
    'Stage II': (
        'configs/quickstart/student_crd_kl.py',
        (
            *COMMON,
            'train_cfg.val_interval=1',
            'model.backbone.init_cfg=None',
            'model.head.in_channels=32',
        ),
    ),
}


class Phase(NamedTuple):
    """What a run does, from a time on; ``done`` is the number of steps that were done before."""

    name: str
    done: int
    time: float


class Run:
    """A training that says what it does.

    Args:
        stage: Name of the stage.
        config: Its config.
        work_dir: Where to.
        resume: Whether to resume what is there.
        workers: Whether to use data workers.
    """

    def __init__(self, stage, config, work_dir, resume=False, workers=False):
        Path(work_dir).parent.mkdir(parents=True, exist_ok=True)
        pipe = Path(f'{work_dir}.pipe')
        pipe.unlink(missing_ok=True)
        os.mkfifo(pipe)
        self.pipe = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        given = ('--work-dir', work_dir, *(['--resume'] if resume else []), '--cfg-options')
        options = (*STAGES[stage][1], *(WORKERS if workers else ()))
        self.context = fork('tools/train.py', config, *given, *options, PHASES=pipe)
        self.wait = self.context.__enter__()
        self.phases: list[Phase] = []
        self.pid, self.text = 0, ''

    def read(self):
        """Read what the run has said since the last call; returns the phases that began."""
        try:
            self.text += os.read(self.pipe, 1 << 16).decode()
        except BlockingIOError:
            return []
        *lines, self.text = self.text.split('\n')
        found = []
        for line in lines:
            name, done, when = line.split(',')
            if name.isdigit():
                self.pid = int(name)
            else:
                found.append(Phase(name, int(done), float(when)))
        self.phases += found
        return found

    def until(self, name, done):
        """Wait until a phase begins, for a minute."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if any((phase.name, phase.done) == (name, done) for phase in self.read()):
                return
            time.sleep(0.0002)
        raise TimeoutError(f'{name} after {done} steps did not begin: {self.end().stderr}')

    def end(self):
        """Wait for its end; returns how it ended."""
        finished = self.wait()
        self.read()
        self.context.__exit__(None, None, None)
        os.close(self.pipe)
        return finished


def processes(group):
    """Living processes of a process group."""
    found = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            state, _, leader = stat.read_text().rpartition(')')[2].split()[:3]
        except OSError:  # has just ended
            continue
        if int(leader) == group and state != 'Z':
            found.append(int(stat.parent.name))
    return found


def reports(work_dir):
    """Partition reports of a run, without what differs in time."""
    found = {}
    for path in sorted(work_dir.glob('partitions/*.json')):
        found[path.name] = json.loads(path.read_text())
        found[path.name].pop('seconds')
    return found


def newest(work_dir):
    """Steps that the newest complete checkpoint has, 0 if there is none."""
    return max((int(path.stem[5:]) for path in work_dir.glob('iter_*.pth')), default=0)


def segments(phases):
    """Phases of a run with the seconds until something else began; each once per step."""
    found = {}
    for one, two in zip(phases, phases[1:]):
        found.setdefault((one.name, one.done), two.time - one.time)
    return found


class Killer:
    """Kills runs of one stage, resumes them, and compares.

    Args:
        stage: Name of the stage.
        config: Its config.
        folder: Where to.
        rng: For the moments.
    """

    def __init__(self, stage, config, folder, rng):
        self.stage, self.config, self.folder, self.rng = stage, config, folder, rng
        self.whole = folder / 'whole'
        run = Run(stage, config, self.whole)
        checked(run.end())
        self.expected = torch.load(self.whole / f'iter_{STEPS}.pth', weights_only=True)
        self.found = segments(run.phases)
        self.kinds = sorted({name for name, _ in self.found})
        self.left: Path | None = None  # what an earlier kill has left

    def moment(self, number, start):
        """Draw when to kill a run that begins after some steps: a phase, and seconds within."""
        due = {key: time for key, time in self.found.items() if key[1] < 0 or key[1] > start}
        if number % 7 == 6:
            (key,) = self.rng.choices(list(due), list(due.values()))
        else:
            kind = self.kinds[number % len(self.kinds)]
            key = self.rng.choice([key for key in due if key[0] == kind] or list(due))
        return *key, self.rng.uniform(0, due[key])

    def kill(self, number):
        """Kill a run, resume it to its end, and compare; returns a row of the table."""
        run_dir = self.folder / 'run'
        shutil.rmtree(run_dir, ignore_errors=True)
        again = number % 4 == 3 and self.left is not None
        if again:
            shutil.copytree(self.left, run_dir)
        workers = number % 3 == 2
        name, done, seconds = self.moment(number, newest(run_dir) if again else 0)
        run = Run(self.stage, self.config, run_dir, again, workers)
        run.until(name, done)
        time.sleep(seconds)
        if workers and number % 2:
            os.kill(run.pid, signal.SIGKILL)  # its data workers see that it is gone
        else:
            os.killpg(run.pid, signal.SIGKILL)
        code, last = run.end().returncode, run.phases[-1]
        if code != -signal.SIGKILL:
            raise AssertionError(f'{last} was to be killed, but ended with {code}')
        before = newest(run_dir)
        begun = max((phase.done + 1 for phase in run.phases if phase.name == 'step'), default=0)
        self.left = self.folder / 'left'
        shutil.rmtree(self.left, ignore_errors=True)
        shutil.copytree(run_dir, self.left) if run_dir.exists() else self.left.mkdir()
        resumed = Run(self.stage, self.config, run_dir, True, workers)
        finished = resumed.end()
        fault = ''
        try:
            checked(finished)
            steps = (phase.done for phase in resumed.phases if phase.name == 'step')
            start = next(steps, STEPS)
            assert start == before, f'resumed after {start} steps, but {before} were saved'
            assert begun - start <= INTERVAL, f'{begun - start} steps are repeated'
            same_training(
                torch.load(run_dir / f'iter_{STEPS}.pth', weights_only=True), self.expected
            )
            assert losses(run_dir) == losses(self.whole), 'losses'
            assert reports(run_dir) == reports(self.whole), 'partition reports'
            end = time.monotonic() + PATIENCE
            while any(map(processes, (run.pid, resumed.pid))) and time.monotonic() < end:
                time.sleep(0.1)
            for group in (run.pid, resumed.pid):
                assert not processes(group), f'processes are left: {processes(group)}'
        except Exception as error:
            fault = f'{type(error).__name__}: {error}'
            shutil.copytree(self.left, self.folder / f'lost_{number}')
        return dict(
            stage=self.stage,
            doing=last.name,
            meant=name,
            after=last.done,
            workers=workers,
            again=again,
            repeated=max(0, begun - before),
            fault=fault,
        )


def table(rows):
    """The rows as a table, by what the processes did when they were killed."""
    heads = ('Killed while it did', *STAGES, 'survived', 'lost', 'steps repeated, at most')
    lines = [f'| {" | ".join(heads)} |', '| --- ' * len(heads) + '|']
    for doing in [*sorted({row['doing'] for row in rows}), 'all']:
        these = [row for row in rows if doing in (row['doing'], 'all')]
        stages = Counter(row['stage'] for row in these)
        lost = sum(bool(row['fault']) for row in these)
        most = max(row['repeated'] for row in these)
        cells = (doing, *(stages[name] for name in STAGES), len(these) - lost, lost, most)
        lines.append(f'| {" | ".join(map(str, cells))} |')
    workers, again = (sum(row[key] for row in rows) for key in ('workers', 'again'))
    lines.append(
        f'\n{len(rows)} kills, {workers} with data workers, {again} of runs that were killed and '
        f'resumed before: {sum(not row["fault"] for row in rows)} survived, '
        f'{sum(bool(row["fault"]) for row in rows)} lost'
    )
    return '\n'.join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('work_dir', type=Path, nargs='?', help='default: a temporary folder')
    parser.add_argument('--stage-one', type=int, default=50, help='kills of Stage I')
    parser.add_argument('--stage-two', type=int, default=20, help='kills of Stage II')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    args = parser.parse_args()
    folder = args.work_dir or Path(tempfile.mkdtemp(prefix='kill_runs_'))
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict] = []
    total = args.stage_one + args.stage_two
    with ProgressBar('kills') as bar:
        for stage, kills in zip(STAGES, (args.stage_one, args.stage_two)):
            if not kills:
                continue
            config = write_config(folder, stage)
            killer = Killer(
                stage,
                config,
                folder / stage.replace(' ', '_'),
                random.Random(f'{args.seed}, {stage}'),
            )
            for number in range(kills):
                rows.append(killer.kill(number))
                row = rows[-1]
                bar(len(rows) / total, f'{stage}, {row["doing"]}: {row["fault"] or "survived"}')
                with open(folder / 'kills.jsonl', 'a') as file:
                    file.write(json.dumps(row) + '\n')
                if row['fault']:
                    print(f'LOST, {row}', flush=True)
    print(table(rows))
    print(f'rows: {folder}/kills.jsonl')
    sys.exit(any(row['fault'] for row in rows))


def write_config(folder, stage):
    """Write the config of a stage, with a teacher for Stage II; returns its path."""
    base = STAGES[stage][0]
    text = (
        f'_base_ = [{str(ROOT / base)!r}]\n'
        "custom_imports = dict(imports=['ipirm_mm', 'phases'], allow_failed_imports=False)\n"
    )
    if stage == 'Stage II':
        options = ('train_cfg.max_epochs=1', 'model.backbone.init_cfg=None')
        teacher = folder / 'teacher'
        where = ('--work-dir', teacher, '--no-validate', '--cfg-options', *options)
        options = ('train_dataloader.dataset.indices=330', 'default_hooks.checkpoint.interval=1')
        run_tool('tools/train.py', 'configs/quickstart/teacher.py', *where, *options)
        text += f'model = dict(teacher=dict(checkpoint={str(teacher / "epoch_1.pth")!r}))\n'
    path = folder / f'{stage.replace(" ", "_")}.py'
    path.write_text(text)
    return path


if __name__ == '__main__':
    main()
