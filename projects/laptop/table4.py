"""The report's Table 4 at a laptop's scale, over several seeds, with its controls.

    python tools/table4.py

For each seed: Stage I on the embedded images, a teacher fine-tuned from it, and the same student
from scratch, from Stage I without teacher, and by each distillation loss. Writes a table to
work_dirs/table4/table4.md. Runs that were finished before are used again as long as nothing that
they depend on has changed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from mmengine.logging import MMLogger
from rich.console import Console
from side_by_side import (
    distillation_chain,
    draw_scores,
    hit_rate,
    load,
    save_table,
    train_all,
)

from ipirm_mm import cli

# Row, config.
STUDENTS = (
    ('student from scratch', 'student_scratch'),
    ('student from Stage I', 'student_finetuned'),
    ('KL, logits', 'student_kl'),
    ('KL, features', 'student_feature_kl'),
    ('OFD, all stages', 'student_ofd'),
    ('OFD, last stage', 'student_ofd_last'),
    ('CRD', 'student_crd'),
    ('CRD with KL', 'student_crd_kl'),
)
CONTROL = 'student_finetuned'
COLUMNS = (
    ('name', 'student'),
    ('accuracy', 'accuracy'),
    ('gain', 'over "from Stage I"'),
    ('above', 'seeds above it'),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/table4'))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2, 3, 4])
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    console = Console()
    chains = [
        distillation_chain(args.work_dir / f'seed_{seed}', seed, [name for _, name in STUDENTS])
        for seed in args.seeds
    ]
    train_all([run for chain in chains for run in chain.values()], console)

    MMLogger.get_instance('table4', log_level='ERROR')
    test_set = dict(split=['val', 'test'])
    with console.status('evaluating'):
        accuracy = {
            name: np.array(
                [
                    100 * float(hit_rate(*draw_scores(load(chain[name]), test_set)).mean())
                    for chain in chains
                ]
            )
            for name in ('teacher', *(name for _, name in STUDENTS))
        }
    rows = []
    for title, name in (('teacher, 300 epochs', 'teacher'), *STUDENTS):
        values, gains = accuracy[name], accuracy[name] - accuracy[CONTROL]
        row = dict(
            name=title, accuracy=f'{values.mean():.1f} ({values.min():.1f} to {values.max():.1f})'
        )
        if name.startswith('student') and name != CONTROL:
            row['gain'] = f'{gains.mean():+.1f} ({gains.min():+.1f} to {gains.max():+.1f})'
            row['above'] = f'{int((gains > 0).sum())} of {len(gains)}'
        rows.append(row)
    path = args.work_dir / 'table4.md'
    save_table(path, rows, COLUMNS)
    print(f'\n{path}; mean over seeds {args.seeds}, lowest to highest')


if __name__ == '__main__':
    cli.run(main)
