"""Compare encoders by k-NN and by a linear classifier on their frozen features.

    python tools/benchmark_ssl.py CONFIG CHECKPOINT [CHECKPOINT ...]

The labeled images are those of `knn_bank` in the config; the images to classify are those of its
`val_dataloader`, or of `test_dataloader` with --test. Features are extracted once per checkpoint.
A checkpoint that lacks a key of the backbone is refused. Intervals are 95 % bootstrap intervals
over the classified images; they say nothing about other seeds of a training.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS

from ipirm_mm import cli
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import (
    LinearProbe,
    bootstrap_interval,
    build_loader,
    extract_features,
    format_interval,
    knn_predict,
    labels_as_of,
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
    cli.add_cfg_options(parser)
    args = parser.parse_args()
    if args.k < 1 or args.temperature <= 0 or args.weight_decay < 0:
        parser.error('--k and --temperature must be positive, --weight-decay not negative')
    return args


def evaluate(
    model: Any, bank_loader: Any, query_loader: Any, args: argparse.Namespace
) -> dict[str, Any]:
    """Evaluate an encoder; returns its row of the table, in percent."""
    bank = extract_features(model, bank_loader, description='features, labeled')
    query = extract_features(model, query_loader, description='features, to classify')
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
    rows = []
    # Checkpoints of different runs often have the same name: then show the folder too.
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
