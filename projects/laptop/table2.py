"""Test-time augmentation and ensembles at a laptop's scale, over several seeds, with a control.

    python projects/laptop/table2.py

Compares the subjects of the report's Tables 1 and 2 on the students of table4.py, whose runs are
reused: each student with and without the mirror image, and ensembles of the six distilled students
of a seed. Weights are fitted on the validation images, and everything is reported on the test
images. The control is an ensemble of the students from scratch, one per seed. Writes the table to
work_dirs/table4/table2.md.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from evaluation import (
    NUM_DRAWS,
    add_report,
    draw_scores,
    gain_cells,
    load,
    mean_and_range,
    merge_draws,
    save_table,
)
from mmengine.logging import MMLogger
from rich.console import Console
from runs import distillation_chain, table_parser, train_all

from ipirm_mm import cli
from ipirm_mm.evaluation import disagreement, fit_weights

# The distilled students of table4.py; the first, OFD, is the reference.
MEMBERS = (
    'student_ofd',
    'student_ofd_last',
    'student_kl',
    'student_feature_kl',
    'student_crd',
    'student_crd_kl',
)
SCRATCH = 'student_scratch'
# Rows of the report's Table 2 that are most like these.
REPORTED = {
    'OFD and KL, mean': 'ensemble_2_mean',
    'six losses, flip, t-sharpen': 'ensemble_5_tsharpen',
    'six losses, flip, weighted': 'ensemble_5_weighted',
}
COLUMNS = (
    ('name', 'prediction'),
    ('report', 'report (ImageNet)'),
    ('accuracy', 'accuracy'),
    ('gain', 'gain over OFD alone'),
    ('above', 'seeds with a gain'),
)


def parse_args() -> argparse.Namespace:
    return table_parser(__doc__, 'work_dirs/table4', (0, 1, 2, 3, 4)).parse_args()


def accuracy(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """Accuracy in percent of probabilities ``(NUM_DRAWS, M, C)`` for labels ``(M,)``."""
    return 100 * float((scores.argmax(2) == labels).double().mean())


def accuracies_of_seed(members: dict[str, torch.Tensor], labels: torch.Tensor) -> dict[str, float]:
    """Accuracies of one seed, by the name of the row.

    Args:
        members: Probabilities ``(6, NUM_DRAWS, M, C)`` by split and views.
        labels: Classes of the test images, ``(M,)``.
    """
    alone, flip = members['test'], members['test, flip']
    fit_on = members['val, flip'].flatten(1, 2), members['val labels'].repeat(NUM_DRAWS)
    weights = fit_weights(*fit_on)
    return {
        'OFD': accuracy(alone[0], labels),
        'OFD, flip': accuracy(flip[0], labels),
        'KL': accuracy(alone[2], labels),
        'KL, flip': accuracy(flip[2], labels),
        'OFD and KL, mean': accuracy(merge_draws(alone[[0, 2]], 'mean'), labels),
        'six losses, mean': accuracy(merge_draws(alone, 'mean'), labels),
        'six losses, flip, mean': accuracy(merge_draws(flip, 'mean'), labels),
        'six losses, flip, gmean': accuracy(merge_draws(flip, 'gmean'), labels),
        'six losses, flip, t-sharpen': accuracy(merge_draws(flip, 'tsharpen'), labels),
        'six losses, flip, weighted': accuracy(merge_draws(flip, 'weighted', weights), labels),
    }


def main() -> None:
    args = parse_args()
    console = Console()
    chains = [
        distillation_chain(args.work_dir / f'seed_{seed}', seed, [SCRATCH, *MEMBERS])
        for seed in args.seeds
    ]
    train_all([run for chain in chains for run in chain.values()], console)

    MMLogger.get_instance('table2', log_level='ERROR')
    found: list[dict[str, float]] = []
    scratch, disagree = [], []
    with console.status('evaluating'):
        for chain in chains:
            models = [load(chain[name]) for name in MEMBERS]
            members: dict[str, torch.Tensor] = {}
            for split, crops in (('test', None), ('test', 'flip'), ('val', 'flip')):
                pairs = [draw_scores(model, dict(split=split), crops) for model in models]
                members[f'{split}, {crops}' if crops else split] = torch.stack(
                    [scores for scores, _ in pairs]
                )
                members[f'{split} labels'] = labels = pairs[0][1]
            labels = members['test labels']
            found.append(accuracies_of_seed(members, labels))
            disagree.append(disagreement(members['test'].flatten(1, 2)))
            scratch.append(draw_scores(load(chain[SCRATCH]), dict(split='test'), 'flip')[0])
    rows = []
    reference = np.array([row['OFD'] for row in found])
    for name in found[0]:
        values = np.array([row[name] for row in found])
        row = dict(name=name, accuracy=mean_and_range(values))
        rows.append(row if name == 'OFD' else row | gain_cells(values, reference))
    alone = [accuracy(scores, labels) for scores in scratch]
    value = accuracy(merge_draws(torch.stack(scratch), 'mean'), labels)
    rows += [
        dict(name='control: from scratch, flip', accuracy=mean_and_range(alone)),
        dict(
            name=f'control: {len(scratch)} seeds from scratch, flip, mean', accuracy=f'{value:.1f}'
        ),
    ]
    path = args.work_dir / 'table2.md'
    add_report(rows, REPORTED)
    save_table(path, rows, COLUMNS)
    print(
        f'\n{path}: mean over seeds {args.seeds} (lowest to highest). Two of the six students '
        f'predict different classes for {100 * np.mean(disagree):.1f} % of the images.'
    )


if __name__ == '__main__':
    cli.run(main)
