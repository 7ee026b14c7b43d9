"""Compare encoders by k-NN and by a linear classifier on their frozen features.

    python tools/benchmark_ssl.py CONFIG CHECKPOINT [CHECKPOINT ...]

Labelled images are those of `knn_bank` in the config, images to classify those of its
`val_dataloader` (or, with --test, `test_dataloader`). Features of each are extracted once. A
checkpoint that lacks a key of the backbone is refused. Intervals are 95 % bootstrap intervals over
the images that are classified, and say nothing about other seeds of a training.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS

from ipirm_mm import cli
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import (
    LinearProbe,
    ProgressBar,
    bootstrap_interval,
    extract_features,
    knn_predict,
)
from ipirm_mm.models import load_weights
from ipirm_mm.visualization import format_table

COLUMNS = (
    ('name', 'checkpoint'),
    ('knn', 'k-NN'),
    ('knn_interval', '95 % interval'),
    ('probe', 'linear probe'),
    ('probe_interval', '95 % interval'),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config, for the backbone and the data')
    parser.add_argument('checkpoints', nargs='+', help='checkpoints of that backbone')
    parser.add_argument('--test', action='store_true', help='classify test_dataloader')
    parser.add_argument('--k', type=int, default=20, help='neighbours (default 20)')
    parser.add_argument('--temperature', type=float, default=0.5, help='of the votes (0.5)')
    parser.add_argument(
        '--weight-decay', type=float, default=1e-3, help='of the linear probe (1e-3)'
    )
    cli.add_cfg_options(parser)
    args = parser.parse_args()
    if args.k < 1 or args.temperature <= 0 or args.weight_decay < 0:
        parser.error('--k and --temperature must be positive, --weight-decay not negative')
    return args


def evaluate(
    model: Any, bank_loader: Any, query_loader: Any, args: argparse.Namespace
) -> dict[str, Any]:
    """The row of an encoder, in percent."""
    bank = extract_features(model, bank_loader, description='features, labelled')
    query = extract_features(model, query_loader, description='features, to classify')
    for name, data in (('knn_bank', bank), ('val_dataloader', query)):
        if 'gt_label' not in data:
            raise UserError(f'the images of {name} have no labels')
    x, y = bank['features'][0], bank['gt_label']
    votes = knn_predict(x, y, query['features'][0], args.k, args.temperature)
    with ProgressBar('linear probe') as bar:
        probe = LinearProbe(args.weight_decay).fit(x, y, bar)
    row: dict[str, Any] = {}
    predictions = (('knn', votes.argmax(1)), ('probe', probe.predict(query['features'][0])))
    for name, prediction in predictions:
        correct = prediction == query['gt_label']
        row[name] = 100 * float(correct.double().mean())
        low, high = bootstrap_interval(correct)
        row[f'{name}_interval'] = f'{100 * low:.1f} to {100 * high:.1f}'
    return row


def main() -> None:
    args = parse_args()
    config = cli.load_config(args.config)
    cli.merge_options(config, args.cfg_options)
    split = 'test_dataloader' if args.test else 'val_dataloader'
    for name in ('knn_bank', split):
        if config.get(name) is None:
            raise UserError(
                f'{args.config} has no {name}: it must say which images are labelled (knn_bank) '
                f'and which are to be classified ({split}), each a data loader'
            )
    init_default_scope(config.get('default_scope', 'mmpretrain'))
    config.model.setdefault('data_preprocessor', config.get('data_preprocessor'))
    config.model.backbone.pop('init_cfg', None)
    model = revert_sync_batchnorm(MODELS.build(config.model)).to(get_device())
    loaders = [Runner.build_dataloader(config[name], seed=0) for name in ('knn_bank', split)]
    rows = []
    # Checkpoints of different runs often have the same name.
    folder = len({Path(path).name for path in args.checkpoints}) < len(args.checkpoints)
    for path in args.checkpoints:
        cli.check_checkpoint(path)
        keys = load_weights(model.backbone, path, strict=True).loaded
        print(f'{path}: all {keys} keys of the backbone loaded')
        name = '/'.join(Path(path).parts[-2:]) if folder else Path(path).name
        rows.append(dict(name=name, **evaluate(model, *loaders, args)))
    print(f'\n{format_table(rows, COLUMNS)}')


if __name__ == '__main__':
    cli.run(main)
