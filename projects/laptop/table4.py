"""The report's Table 4 at a laptop's scale, over several seeds, with controls.

    python projects/laptop/table4.py

For each seed: Stage I on the embedded images, a teacher fine-tuned from its encoder, and the same
student from scratch, from Stage I without a teacher, and with each distillation loss. Writes the
table to work_dirs/table4/table4.md. Finished runs are reused if nothing that they depend on has
changed.

--students chooses other rows, such as student_dkd and student_dist, whose losses the report does
not have:

    python projects/laptop/table4.py --students student_kl student_dkd student_dist

--lr gives teacher and students another learning rate; to choose settings, use --split val and
seeds that are not reported.
"""

from __future__ import annotations

import argparse

import numpy as np
from evaluation import (
    add_report,
    correct_rate,
    draw_scores,
    gain_cells,
    load,
    mean_and_range,
    save_table,
)
from mmengine.logging import MMLogger
from rich.console import Console
from runs import distillation_chain, table_parser, train_all

from ipirm_mm import cli

# Name of the row, config: the table unless --students is given.
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
# Losses that the report does not have.
FURTHER = (('DKD', 'student_dkd'), ('DIST', 'student_dist'))
CONTROL = 'student_finetuned'
# Rows of the report's Table 4.
REPORTED = {
    'KL, logits': 'kl_r50',
    'KL, features': 'feature_kl_r50',
    'OFD, all stages': 'ofd_r50',
    'OFD, last stage': 'ofd_last_r50',
    'CRD': 'crd_r50',
    'CRD with KL': 'crd_kl_r50',
}
COLUMNS = (
    ('name', 'student'),
    ('report', 'report (ImageNet)'),
    ('accuracy', 'accuracy'),
    ('gain', 'gain over "from Stage I"'),
    ('above', 'seeds with a gain'),
)


def parse_args() -> argparse.Namespace:
    parser = table_parser(__doc__, 'work_dirs/table4', (0, 1, 2, 3, 4))
    parser.add_argument(
        '--students',
        nargs='+',
        choices=[name for _, name in (*STUDENTS, *FURTHER)],
        metavar='CONFIG',
        default=[name for _, name in STUDENTS],
        help='rows of the table, by the names of their configs in configs/quickstart; the control '
        f'{CONTROL} is always there (default: the rows of the report and the controls)',
    )
    parser.add_argument(
        '--lr',
        type=float,
        help='learning rate of teacher and students (default: that of the configs)',
    )
    parser.add_argument(
        '--split',
        nargs='+',
        choices=['val', 'test'],
        default=['val', 'test'],
        help='images that accuracies are of (default: val test)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    console = Console()
    students = [
        (title, name) for title, name in (*STUDENTS, *FURTHER) if name in (CONTROL, *args.students)
    ]
    names = [name for _, name in students]
    rate = [] if args.lr is None else [f'optim_wrapper.optimizer.lr={args.lr}']
    chains = [
        distillation_chain(args.work_dir / f'seed_{seed}', seed, names, labelled_options=rate)
        for seed in args.seeds
    ]
    train_all([run for chain in chains for run in chain.values()], console)

    MMLogger.get_instance('table4', log_level='ERROR')
    test_set = dict(split=args.split)
    with console.status('evaluating'):
        accuracy = {
            name: np.array(
                [
                    100 * float(correct_rate(*draw_scores(load(chain[name]), test_set)).mean())
                    for chain in chains
                ]
            )
            for name in ('teacher', *names)
        }
    rows = []
    for title, name in (('teacher, 300 epochs', 'teacher'), *students):
        row = dict(name=title, accuracy=mean_and_range(accuracy[name]))
        if name.startswith('student') and name != CONTROL:
            row |= gain_cells(accuracy[name], accuracy[CONTROL])
        rows.append(row)
    path = args.work_dir / 'table4.md'
    add_report(rows, REPORTED)
    save_table(path, rows, COLUMNS)
    print(f'\n{path}: mean over seeds {args.seeds} (lowest to highest)')


if __name__ == '__main__':
    cli.run(main)
