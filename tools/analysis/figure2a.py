"""Which dimensions follow the augmentations, and what each part is worth: Figure 2 (a).

    python tools/analysis/figure2a.py CONFIG:CHECKPOINT [CONFIG:CHECKPOINT ...] [--out PICTURE]

The data and the augmentations are those of the first config, for all encoders. The response of a
dimension to an augmentation is its mean absolute change when the augmentation, alone, is applied
to an image, divided by its mean absolute difference between two images. The dimensions with the
largest mean response are "aug. equivariant", the others "aug. unrelated". Both are classified by
a linear probe, as are as many random dimensions. Responses are measured on the images of
`knn_bank`, without their labels; the probe is fitted to these, and tried on `val_dataloader`, or
on `test_dataloader` with --test. Intervals are 95 % bootstrap intervals over the classified
images; they say nothing about other seeds of a training.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import init_default_scope

from ipirm_mm import cli, cli_encoders
from ipirm_mm.datasets import single_augmentations
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import (
    bootstrap_interval,
    build_loader,
    extract_features,
    format_interval,
    labels_as_of,
    load_encoder,
    measure_response,
    probe_parts,
    random_parts,
    split_dimensions,
)
from ipirm_mm.utils import ProgressBar, atomic_write
from ipirm_mm.visualization import Accuracy, EncoderResponse, draw_responses, format_table

COLUMNS = (
    ('name', 'encoder'),
    ('part', 'dimensions'),
    ('count', 'number'),
    ('accuracy', 'linear probe'),
    ('interval', '95 % interval'),
    ('random', 'random ones'),
    ('range', 'lowest to highest'),
)
COLOR = 'other color'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli_encoders.add_encoder_arguments(parser, 'figure2a.png')
    parser.add_argument(
        '--test', action='store_true', help='classify the images of test_dataloader'
    )
    parser.add_argument(
        '--share',
        type=float,
        default=0.5,
        help='share of the dimensions called aug. equivariant (default: 0.5)',
    )
    parser.add_argument(
        '--random-splits',
        type=int,
        default=10,
        help='random splits of the dimensions, the control (default: 10)',
    )
    parser.add_argument(
        '--weight-decay',
        type=float,
        default=1e-3,
        help='weight decay of the linear probe (default: 0.001)',
    )
    cli.add_cfg_options(parser)
    args = parser.parse_args()
    cli_encoders.check_encoder_arguments(parser, args)
    if not 0 < args.share < 1 or args.random_splits < 1 or args.weight_decay < 0:
        parser.error(
            '--share must be between 0 and 1, --random-splits positive, and --weight-decay not '
            'negative'
        )
    return args


def labeled_features(model: Any, config: Any, name: str) -> dict[str, Any]:
    """Extract the features and labels of a data loader of a config."""
    data = extract_features(model, build_loader(config[name], seed=0), None, f'features, {name}')
    if 'gt_label' not in data:
        raise UserError(
            f'the images of {name} {data["why_no_label"]}, but the linear probe needs one class '
            'per image: use a labeled data set'
        )
    return data


def evaluate(name: str, model: Any, config: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Measure an encoder; returns what is written of it."""
    augmentations = single_augmentations(config)
    measured = measure_response(model, config.knn_bank, augmentations, args.num_images, args.draws)
    first, second = split_dimensions(measured.responses, args.share)
    split = 'test_dataloader' if args.test else 'val_dataloader'
    bank = labeled_features(model, config, 'knn_bank')
    query = labeled_features(model, config, split)
    order = torch.cat([first, second])
    parts = {'all': order, 'equivariant': first, 'unrelated': second}
    controls = random_parts(len(order), len(first), args.random_splits)
    for number, pair in enumerate(controls):
        parts.update({f'equivariant {number}': pair[0], f'unrelated {number}': pair[1]})
    correct: dict[str, torch.Tensor] = {}
    labels = labels_as_of(query, bank, split, 'knn_bank')
    x, y = bank['features'][0], query['features'][0]
    with ProgressBar('linear probes') as bar:
        for number, (part, dimensions) in enumerate(parts.items()):
            one = {part: dimensions}
            correct.update(probe_parts(x, bank['gt_label'], y, labels, one, args.weight_decay))
            bar((number + 1) / len(parts))
    accuracy = {part: 100 * float(right.double().mean()) for part, right in correct.items()}
    rows = dict(zip(augmentations, measured.responses))
    return dict(
        name=name,
        dimensions=order.tolist(),
        first=len(first),
        responses={key: row[order].tolist() for key, row in rows.items()},
        color=None if measured.color is None else measured.color[order].tolist(),
        accuracy={
            part: dict(
                value=accuracy[part],
                interval=[100 * end for end in bootstrap_interval(correct[part])],
                random=[accuracy[f'{part} {n}'] for n in range(len(controls))]
                if part != 'all'
                else [],
            )
            for part in ('all', 'equivariant', 'unrelated')
        },
    )


def drawn(result: dict[str, Any]) -> EncoderResponse:
    """What is drawn of a result of :func:`evaluate`."""
    extra = {} if result['color'] is None else {COLOR: torch.tensor(result['color']).numpy()}
    return EncoderResponse(
        result['name'],
        {key: torch.tensor(row).numpy() for key, row in result['responses'].items()},
        extra,
        result['first'],
        {part: Accuracy(**found) for part, found in result['accuracy'].items()},
    )


def print_tables(results: list[dict[str, Any]]) -> None:
    rows, responses = [], []
    for result in results:
        first, count = result['first'], len(result['dimensions'])
        slices = dict(
            all=slice(0, count), equivariant=slice(0, first), unrelated=slice(first, count)
        )
        for part, found in result['accuracy'].items():
            random = found['random']
            rows.append(
                dict(
                    name=result['name'],
                    part=part,
                    count=len(result['dimensions'][slices[part]]),
                    accuracy=found['value'],
                    interval=format_interval(found['interval'], scale=1),
                    random=sum(random) / len(random) if random else None,
                    range=format_interval((min(random), max(random)), scale=1) if random else None,
                )
            )
            row = dict(name=result['name'], part=part)
            measured = dict(result['responses'])
            if result['color'] is not None:
                measured[COLOR] = result['color']
            for key, values in measured.items():
                median = torch.tensor(values[slices[part]]).quantile(0.5)
                row[key] = f'{float(median):.3f}'
            responses.append(row)
    names = [key for key in responses[0] if key not in ('name', 'part')]
    print('\nMedian response of the dimensions:\n')
    columns = [('name', 'encoder'), ('part', 'dimensions'), *((key, key) for key in names)]
    print(format_table(responses, columns))
    if COLOR in names:
        print(f'{COLOR}, by TintByFactor: a known factor of the images, no augmentation')
    print(f'\nAccuracy in percent:\n\n{format_table(rows, COLUMNS)}')


def main() -> None:
    args = parse_args()
    encoders = cli_encoders.load_encoder_configs(args)
    config = next(iter(encoders.values()))[0]
    split = 'test_dataloader' if args.test else 'val_dataloader'
    for name in ('knn_bank', split):
        if config.get(name) is None:
            raise UserError(
                f'{config.filename} has no {name}: the first config needs a data loader of '
                f'labeled images (knn_bank) and one of images to classify ({split})'
            )
    init_default_scope(config.get('default_scope', 'mmpretrain'))
    results = []
    for name, (own, checkpoint) in encoders.items():
        results.append(evaluate(name, load_encoder(own, checkpoint), config, args))
    print_tables(results)
    atomic_write(args.out, draw_responses([drawn(result) for result in results]))
    numbers = Path(args.out).with_suffix('.json')
    atomic_write(numbers, json.dumps(cli_encoders.without_infinity(results), indent=1) + '\n')
    print(f'\nPicture: {args.out}; all numbers: {numbers}')


if __name__ == '__main__':
    cli.run(main)
