"""Kill a run of the quickstart at random moments, resume it each time, and count what is lost.

    python tests/data/kill_runs.py WORK_DIR [--kills 10] [--seed 0] [--keep 1]
                                   [--config CONFIG] [--cfg-options KEY=VALUE ...]

Each run is stopped by SIGKILL (and its data workers with it) and resumed: in turns at a random time
after its first checkpoint, and while it writes that. After all kills the last resume runs to its
end, and its last checkpoint is compared with that of a run that nothing disturbs.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

import ipirm_mm  # noqa: F401  (allows the types that MMEngine's checkpoints hold)

ROOT = Path(__file__).resolve().parents[2]


def start(args, work_dir, *more):
    given = (args.config, '--work-dir', work_dir, *more, '--cfg-options')
    options = (f'default_hooks.checkpoint.max_keep_ckpts={args.keep}', *args.cfg_options)
    command = [sys.executable, ROOT / 'tools/train.py', *given, *options]
    log = open(Path(f'{work_dir}.log'), 'ab')  # noqa: SIM115
    return subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stdout=log, stderr=log, start_new_session=True
    )


def saved(work_dir):
    return {path.name: path.stat().st_mtime_ns for path in work_dir.glob('*.pth')}


def kill_once(process, work_dir, rng, longest, in_save):
    """Kill a run; returns whether it was while a file was being written, None if it had ended."""
    before = saved(work_dir)
    # A run that never saves would never get further: let it save once before it is killed.
    while process.poll() is None:
        parts = list(work_dir.glob('*.part'))
        if in_save and parts or not in_save and saved(work_dir) != before:
            break
        time.sleep(0.0005)
    end = time.monotonic() + rng.uniform(0, longest)
    while not in_save and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    if process.poll() is not None:
        return None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return bool(list(work_dir.glob('*.part')))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('work_dir', type=Path)
    parser.add_argument('--config', default='configs/quickstart/ipirm_simclr_report.py')
    parser.add_argument('--kills', type=int, default=10)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--keep', type=int, default=1)
    parser.add_argument('--longest', type=float, default=3, help='seconds until a kill, at most')
    parser.add_argument('--cfg-options', nargs='+', default=[])
    args = parser.parse_args()
    rng = random.Random(args.seed)
    whole, run = args.work_dir / 'whole', args.work_dir / 'run'
    for folder in (whole, run):
        folder.mkdir(parents=True)
    if start(args, whole).wait():
        sys.exit(f'the undisturbed run failed: see {whole}.log')
    name = (whole / 'last_checkpoint').read_text().split('/')[-1]
    kills = in_saves = survived = lost = 0
    more: tuple = ()
    while kills < args.kills:
        process = start(args, run, *more)
        hit = kill_once(process, run, rng, args.longest, in_save=kills % 2 == 1)
        if hit is None:
            if process.returncode == 0:  # the end came first: begin another run
                for path in run.glob('*.pth'):
                    path.unlink()
                (run / 'last_checkpoint').unlink()
                more = ()
                continue
            lost += 1
            break
        kills += 1
        in_saves += hit
        survived += bool(saved(run))
        lost += not saved(run)
        more = ('--resume',) if saved(run) else ()
        print(f'kill {kills}: while saving {hit}, left {sorted(saved(run))}', flush=True)
    if start(args, run, *more).wait():
        sys.exit(f'the resumed run failed: see {run}.log')
    one, two = (torch.load(folder / name, weights_only=True) for folder in (whole, run))
    same = all(torch.equal(v, two['state_dict'][k]) for k, v in one['state_dict'].items())
    print(f'{kills} kills, {in_saves} while saving: {survived} survived, {lost} lost')
    print(f'weights, buffers and partitions of {name}: {"identical" if same else "DIFFERENT"}')
    sys.exit(not same or lost > 0)


if __name__ == '__main__':
    main()
