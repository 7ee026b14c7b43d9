"""Stage I on Glyphs, whose hidden factor is natural: a method, IP-IRM and controls, over seeds.

    python tools/dataset_converters/glyphs.py --out data/glyphs.npz
    python projects/laptop/glyphs.py

The encoders see all kinds of fonts, without labels. Fonts of the labeled images (train) and of the
test images are others. Reported are the k-NN accuracy (k = 20), also of the pixels without an
encoder; a linear probe of the 45 characters with labels of all kinds of fonts; the shift, a probe
with labels of serif and sans fonts only, tested on mono, hand and display fonts, and the reverse;
and a probe of the kind of the font, five classes, which tells how much of the factor is in the
features. Gains are seed by seed: over the penalty alone, which is what the partition adds to it,
and over the plain method, because the penalty alone may be worse than that.
Writes work_dirs/glyphs/METHOD.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation import gain_cells, load, mean_and_range, save_table
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS
from rich.console import Console
from runs import Run, table_parser, train_all
from torch import Tensor
from torch.utils.data import DataLoader

from ipirm_mm import cli
from ipirm_mm.datasets import Glyphs
from ipirm_mm.datasets.glyphs import KINDS
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import LinearProbe, extract_features, knn_predict

# Configs of configs/glyphs, without _glyphs: the plain method and the penalty alone, ours, others.
# A gain over the penalty alone is the partition's only if the plain method, too, is worse.
METHODS = {
    'simclr': ('simclr', 'penalty_only', 'ipirm_simclr', 'random_partition', 'true_factor'),
    'simsiam': (
        'simsiam',
        'simsiam_penalty_only',
        'ipirm_simsiam',
        'simsiam_random_partition',
        'simsiam_no_penalty',
    ),
}
# Kinds of fonts on one side of the shift; the others are on the other side.
TEXT_KINDS = ('serif', 'sans')
MEASURES = {
    'knn': 'k-NN',
    'probe': 'probe',
    'to_others': 'probe, serif and sans to others',
    'to_text': 'probe, others to serif and sans',
    'kind': 'kind of font',
}
COLUMNS = (('name', 'config'), ('measure', 'measure'), ('accuracy', 'accuracy'))


def parse_args() -> argparse.Namespace:
    parser = table_parser(__doc__, 'work_dirs/glyphs', (0, 1, 2))
    parser.add_argument(
        '--data', type=Path, default=Path('data/glyphs.npz'), help='file of the converter'
    )
    parser.add_argument('--epochs', type=int, default=20, help='epochs (default: 20)')
    parser.add_argument(
        '--method',
        choices=METHODS,
        default='simclr',
        help='method whose configs are trained (default: simclr)',
    )
    return parser.parse_args()


def features_of(model: Any, data_file: Path, split: str) -> dict[str, Tensor]:
    """Pooled backbone features of a split.

    Args:
        model: An encoder.
        data_file: File of the converter.
        split: Name of the split.

    Returns:
        ``x``, features ``(N, D)``; ``y``, characters ``(N,)``; ``kind``, kinds of font ``(N,)``.
    """
    init_default_scope('mmpretrain')
    pipeline = [dict(type='PackInputs', meta_keys=('sample_idx', 'factor'))]
    dataset = DATASETS.build(
        dict(type='Glyphs', split=split, data_file=str(data_file), pipeline=pipeline)
    )
    sampler = DefaultSampler(dataset, shuffle=False, seed=0)
    loader = DataLoader(dataset, batch_size=500, sampler=sampler, collate_fn=default_collate)
    data = extract_features(model, loader, description='features')
    return dict(x=data['features'][0], y=data['gt_label'], kind=data['factor'])


def pixel_accuracy(data_file: Path) -> float:
    """k-NN accuracy of the gray values themselves, in percent: what needs no encoder."""
    parts = [Glyphs(split=split, data_file=str(data_file)) for split in ('train', 'test')]
    (train, y), (test, wanted) = (
        (
            torch.from_numpy(np.concatenate(part.images)).flatten(1).float(),
            torch.from_numpy(part.get_gt_labels()),
        )
        for part in parts
    )
    return percent(knn_predict(train, y, test, k=20).argmax(1) == wanted)


def evaluate(train: dict[str, Tensor], test: dict[str, Tensor]) -> dict[str, float]:
    """Accuracies of the measures.

    Args:
        train: Labeled features, see :func:`features_of`.
        test: Features of the test images.

    Returns:
        Percent by the keys of ``MEASURES``.
    """

    def probe(chosen: Tensor, tested: Tensor, key: str) -> float:
        if not (chosen.any() and tested.any()):
            raise UserError('train and test need serif or sans fonts, and others: install more')
        fitted = LinearProbe().fit(train['x'][chosen], train[key][chosen])
        return percent(fitted.predict(test['x'][tested]) == test[key][tested])

    text = torch.tensor([KINDS.index(kind) for kind in TEXT_KINDS])
    train_text, test_text = (torch.isin(part['kind'], text) for part in (train, test))
    every, tested = (torch.ones_like(part['kind'], dtype=torch.bool) for part in (train, test))
    votes = knn_predict(train['x'], train['y'], test['x'], k=20)
    return dict(
        knn=percent(votes.argmax(1) == test['y']),
        probe=probe(every, tested, 'y'),
        to_others=probe(train_text, ~test_text, 'y'),
        to_text=probe(~train_text, test_text, 'y'),
        kind=probe(every, tested, 'kind'),
    )


def percent(correct: Tensor) -> float:
    """Percentage of correct predictions ``(N,)``."""
    return 100 * float(correct.double().mean())


def table_rows(
    found: dict[str, list[dict[str, float]]], references: Sequence[str]
) -> list[dict[str, str]]:
    """Rows of the table: each measure of each config, with its gain over the references.

    Args:
        found: What :func:`evaluate` returns for each seed, by config.
        references: Names of the plain method and of the penalty alone.
    """
    rows = []
    for measure, heading in MEASURES.items():
        for name, seeds in found.items():
            if measure not in seeds[0]:
                continue
            values = np.array([values[measure] for values in seeds])
            row = dict(name=name, measure=heading, accuracy=mean_and_range(values))
            for reference in references:
                if name != reference:
                    others = np.array([v[measure] for v in found[reference]])
                    cells = gain_cells(values, others)
                    row |= {f'{reference} {key}': cell for key, cell in cells.items()}
            rows.append(row)
    return rows


def main() -> None:
    args = parse_args()
    if not args.data.is_file():
        raise UserError(
            f'{args.data} is missing: make it by '
            f'python tools/dataset_converters/glyphs.py --out {args.data}'
        )
    data_file = args.data.resolve()
    console = Console()
    runs: dict[str, list[Run]] = {}
    for name in METHODS[args.method]:
        for seed in args.seeds:
            run = Run(
                f'glyphs/{name}_glyphs',
                args.work_dir / f'seed_{seed}/{name}',
                args.epochs,
                seed,
                options_for(name, data_file),
                inputs=[data_file],
            )
            runs.setdefault(name, []).append(run)
    train_all([run for several in runs.values() for run in several], console)

    MMLogger.get_instance('glyphs', log_level='ERROR')
    found: dict[str, list[dict[str, float]]] = {}
    with console.status('evaluating'):
        for name, several in runs.items():
            for run in several:
                model = load(run)
                parts = [features_of(model, data_file, split) for split in ('train', 'test')]
                found.setdefault(name, []).append(evaluate(*parts))
        found['pixels'] = [dict(knn=pixel_accuracy(data_file))]
    path = args.work_dir / f'{args.method}.md'
    references = METHODS[args.method][:2]
    gains = [
        pair
        for name in references
        for pair in ((f'{name} gain', f'gain over {name}'), (f'{name} above', 'seeds with it'))
    ]
    save_table(path, table_rows(found, references), (*COLUMNS, *gains))
    print(f'\n{path}: percent, mean over seeds {args.seeds} (lowest to highest).')


def options_for(name: str, data_file: Path) -> list[str]:
    """Options that give every data set of a config the data file.

    Args:
        name: Name of the config, without ``_glyphs``.
        data_file: File of the converter.
    """
    config = Config.fromfile(Path(__file__).parents[2] / f'configs/glyphs/{name}_glyphs.py')
    position = [hook.type for hook in config.custom_hooks].index('KNNHook')
    places = [f'{part}_dataloader' for part in ('train', 'val', 'test')] + [
        f'custom_hooks.{position}.{part}_dataloader' for part in ('bank', 'query')
    ]
    return [f'{place}.dataset.data_file={data_file}' for place in places]


if __name__ == '__main__':
    cli.run(main)
