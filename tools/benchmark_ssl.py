"""Compare encoders by k-NN and by a linear classifier on their frozen features.

    python tools/benchmark_ssl.py CONFIG CHECKPOINT [CHECKPOINT ...]

The labeled images are those of `knn_bank` in the config; the images to classify are those of its
`val_dataloader`, or of `test_dataloader` with --test. Features are extracted once per checkpoint.
A checkpoint that lacks a key of the backbone is refused. Intervals are 95 % bootstrap intervals
over the classified images; they say nothing about other seeds of a training.

--disentanglement also measures how the features are divided among known factors: the class, and
fields of the data samples. Classifiers of factors are fitted to the labeled images and measured on
the others. docs/disentanglement.md says what each measure means.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch import Tensor

from ipirm_mm import cli
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import (
    LinearProbe,
    bootstrap_interval,
    build_loader,
    check_factors,
    disentanglement_scores,
    extract_features,
    format_interval,
    knn_predict,
    labels_as_of,
    missing_factor,
    shifted_probe,
)
from ipirm_mm.models import load_weights
from ipirm_mm.utils import ProgressBar
from ipirm_mm.visualization import format_table

COLUMNS = (
    ('name', 'checkpoint'),
    ('knn', 'k-NN'),
    ('knn_interval', '95 % interval'),
    ('probe', 'linear probe'),
    ('probe_interval', '95 % interval'),
)
SCORE_COLUMNS = (
    ('name', 'checkpoint'),
    ('dci_disentanglement', 'DCI: D'),
    ('dci_completeness', 'C'),
    ('dci_informativeness', 'I'),
    ('irs', 'IRS'),
    ('modularity', 'MOD'),
    ('explicitness', 'EXP'),
)
FACTOR_COLUMNS = (
    ('name', 'checkpoint'),
    ('factor', 'factor'),
    ('values', 'values'),
    ('informativeness', 'DCI: I'),
    ('explicitness', 'EXP'),
    ('tied', 'probe, factor tied to class'),
    ('free', 'probe, control'),
)
FACTORS = ('gt_label', 'factor')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config with the backbone and the data')
    parser.add_argument('checkpoints', nargs='+', help='checkpoints of that backbone')
    parser.add_argument(
        '--test', action='store_true', help='classify the images of test_dataloader'
    )
    parser.add_argument('--k', type=int, default=20, help='number of neighbors (default: 20)')
    parser.add_argument(
        '--temperature', type=float, default=0.5, help='temperature of k-NN votes (default: 0.5)'
    )
    parser.add_argument(
        '--weight-decay',
        type=float,
        default=1e-3,
        help='weight decay of the linear classifier (default: 0.001)',
    )
    parser.add_argument(
        '--disentanglement',
        action='store_true',
        help='also print DCI, IRS, modularity, explicitness and the probe under shift',
    )
    parser.add_argument(
        '--factors',
        nargs='+',
        metavar='FIELD',
        help='fields of the data samples that hold the factors, for --disentanglement '
        f'(default: {" ".join(FACTORS)}: the class and the color of TintByFactor)',
    )
    cli.add_cfg_options(parser)
    args = parser.parse_intermixed_args()  # options may stand between files
    if args.factors and not args.disentanglement:
        parser.error('--factors needs --disentanglement')
    args.factors = args.factors or FACTORS
    if len(set(args.factors)) < len(args.factors):
        parser.error(f'--factors must be different, but are {" ".join(args.factors)}')
    if args.k < 1 or args.temperature <= 0 or args.weight_decay < 0:
        parser.error('--k and --temperature must be positive, --weight-decay not negative')
    return args


def evaluate(
    bank: dict[str, Any], query: dict[str, Any], args: argparse.Namespace
) -> dict[str, Any]:
    """Evaluate the features of an encoder; returns its row of the table, in percent."""
    split = 'test_dataloader' if args.test else 'val_dataloader'
    for name, data in (('knn_bank', bank), (split, query)):
        if 'gt_label' not in data:
            raise UserError(
                f'the images of {name} {data["why_no_label"]}, but k-NN and the linear classifier '
                'need one class per image: use a labeled data set'
            )
        print(f'{name}: {len(data["sample_idx"])} of {data["num_images"]} images used')
    x, y = bank['features'][0], bank['gt_label']
    votes = knn_predict(x, y, query['features'][0], args.k, args.temperature)
    with ProgressBar('linear probe') as bar:
        probe = LinearProbe(args.weight_decay).fit(x, y, bar)
    row: dict[str, Any] = {}
    predictions = (('knn', votes.argmax(1)), ('probe', probe.predict(query['features'][0])))
    labels = labels_as_of(query, bank, split, 'knn_bank')
    for name, prediction in predictions:
        correct = prediction == labels
        row[name] = 100 * float(correct.double().mean())
        row[f'{name}_interval'] = format_interval(bootstrap_interval(correct))
    return row


def factors_of(data: dict[str, Any], labels: Tensor, names: Sequence[str], split: str) -> Tensor:
    """Factors of the images of a data loader, ``(N, F)``."""
    for name in names:
        if name != 'gt_label' and name not in data:
            raise UserError(missing_factor(f'{split}: --factors', name))
    factors = torch.stack([labels if name == 'gt_label' else data[name] for name in names], 1)
    check_factors(factors, names, split)
    return factors


def measure_disentanglement(
    bank: dict[str, Any], query: dict[str, Any], args: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Rows of the tables: all factors, all factors with their images shuffled, each factor."""
    split = 'test_dataloader' if args.test else 'val_dataloader'
    labels = labels_as_of(query, bank, split, 'knn_bank')
    fit, held_out = (
        (data['features'][0], factors_of(data, classes, args.factors, name))
        for data, classes, name in (
            (bank, bank['gt_label'], 'knn_bank'),
            (query, labels, split),
        )
    )
    with ProgressBar('disentanglement') as bar:
        scores: dict[str, Any] = disentanglement_scores(fit, held_out, args.factors, progress=bar)
    generator = torch.Generator().manual_seed(0)
    shuffled = [
        (x, factors[torch.randperm(len(x), generator=generator)]) for x, factors in (fit, held_out)
    ]
    with ProgressBar('disentanglement, factors shuffled') as bar:
        chance: dict[str, Any] = disentanglement_scores(*shuffled, args.factors, progress=bar)
    rows = []
    for f, name in enumerate(args.factors):
        row: dict[str, Any] = dict(
            factor=name,
            values=len(fit[1][:, f].unique()),
            informativeness=format_score(scores[f'dci_informativeness_{name}']),
            explicitness=format_score(scores[f'explicitness_{name}']),
        )
        if name != 'gt_label':
            with ProgressBar(f'probe, {name} tied to class') as bar:
                tied = shifted_probe(
                    fit[0],
                    bank['gt_label'],
                    fit[1][:, f],
                    (held_out[0], labels),
                    weight_decay=args.weight_decay,
                    progress=bar,
                )
            row['tied'], row['free'] = (100 * accuracy for accuracy in tied)
        rows.append(row)
    scores, chance = (
        {key: format_score(value) for key, value in measured.items()}
        for measured in (scores, chance)
    )
    return scores, chance, rows


def format_score(value: float) -> str | None:
    """Write a measure, 0 to 1, with three decimals; None if it is undefined."""
    return None if math.isnan(value) else f'{value:.3f}'


def main() -> None:
    args = parse_args()
    config = cli.load_config(args.config, args.cfg_options)
    split = 'test_dataloader' if args.test else 'val_dataloader'
    for name in ('knn_bank', split):
        if config.get(name) is None:
            raise UserError(
                f'{args.config} has no {name}: it needs a data loader of labeled images '
                f'(knn_bank) and one of images to classify ({split})'
            )
    init_default_scope(config.get('default_scope', 'mmpretrain'))
    config.model.setdefault('data_preprocessor', config.get('data_preprocessor'))
    config.model.backbone.pop('init_cfg', None)
    # Only the loss needs it, and some are downloaded when they are built (EVA, MILAN).
    config.model.pop('target_generator', None)
    model = revert_sync_batchnorm(MODELS.build(config.model)).to(get_device())
    loaders = [build_loader(config[name], seed=0) for name in ('knn_bank', split)]
    rows, scores, factor_rows = [], [], []
    # Checkpoints of different runs often have the same name: then show the folder too.
    folder = len({Path(path).name for path in args.checkpoints}) < len(args.checkpoints)
    for path in args.checkpoints:
        cli.check_checkpoint(path)
        keys = load_weights(model.backbone, path, strict=True).loaded
        print(f'{path}: all {keys} keys of the backbone loaded')
        name = '/'.join(Path(path).parts[-2:]) if folder else Path(path).name
        bank, query = (
            extract_features(model, loader, None, f'features, {what}', args.factors)
            for loader, what in zip(loaders, ('labeled', 'to classify'))
        )
        rows.append(dict(name=name, **evaluate(bank, query, args)))
        if args.disentanglement:
            measured, chance, by_factor = measure_disentanglement(bank, query, args)
            scores += [
                dict(name=name, **measured),
                dict(name=f'{name}, factors shuffled', **chance),
            ]
            factor_rows += [dict(name=name, **row) for row in by_factor]
    print(f'\n{format_table(rows, COLUMNS)}')
    if args.disentanglement:
        print(f'\n{format_table(scores, SCORE_COLUMNS)}')
        print(f'\n{format_table(factor_rows, FACTOR_COLUMNS)}')


if __name__ == '__main__':
    cli.run(main)
