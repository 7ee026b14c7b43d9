"""Show the partitions of a checkpoint: sizes, mutual information and sample images.

    python tools/analysis/show_partition.py CONFIG CHECKPOINT [--out FOLDER]

Prints for each partition the sizes of its subsets, the normalized mutual information (NMI) with
each earlier partition and, if the data set knows them, with the classes and with a hidden factor.
Draws sample images of each subset.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import CheckpointLoader
from mmpretrain.registry import DATASETS, MODELS
from PIL import Image

from ipirm_mm import cli
from ipirm_mm.datasets import one_class, why_not_one_class
from ipirm_mm.errors import UserError
from ipirm_mm.functional import mutual_information, normalized_mutual_information
from ipirm_mm.utils import ProgressBar, check_writable
from ipirm_mm.visualization import SampleImages, format_table, partition_grid

KNOWN = (('class', 'gt_label'), ('factor', 'factor'))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of the training')
    parser.add_argument('checkpoint', help='checkpoint of the training')
    parser.add_argument(
        '--out',
        type=Path,
        help='folder for the pictures (default: partitions_shown in the folder of CHECKPOINT)',
    )
    parser.add_argument(
        '--per-subset', type=int, default=24, help='sample images per subset (default: 24)'
    )
    cli.add_cfg_options(parser)
    return parser.parse_args()


def load_partitions(config: Any, checkpoint: str) -> torch.Tensor:
    """Read the partitions in a checkpoint, ``(P, N)`` long."""
    state = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    state = state.get('state_dict', state)
    part = {
        key[len('partitions.') :]: value
        for key, value in state.items()
        if key.startswith('partitions.')
    }
    if not part:
        raise UserError(
            f'{checkpoint} holds no partitions: give a checkpoint that an IP-IRM training saved'
        )
    partitions = MODELS.build(config.model).partitions
    partitions.load_state_dict(part)
    if not len(partitions):
        raise UserError(f'{checkpoint} was saved before the first partition was found')
    return partitions.found.long()


def known_values(images: SampleImages) -> dict[str, torch.Tensor]:
    """Class and factor of each image, if the data set knows them."""
    first = {**images.info(0), **images.record(0)}
    values: dict[str, torch.Tensor] = {}
    for name, key in KNOWN:
        if key not in first:
            continue
        infos = []
        with ProgressBar(f'{name} of each image') as bar:
            for index in range(len(images)):
                # The class is in the data set's record; a factor is added by the pipeline.
                record = images.info(index)
                infos.append(record[key] if key in record else images.record(index).get(key))
                bar((index + 1) / len(images))
        classes = [one_class(info) for info in infos]
        found = [value for value in classes if value is not None]
        if len(found) == len(infos):
            values[name] = torch.tensor(found)
        else:
            print(f'No comparison with {key}: the images {why_not_one_class(infos)}')
    return values


def main() -> None:
    args = parse_args()
    check_writable(args.out, folder=True)
    config = cli.load_config(args.config, args.cfg_options)
    cli.check_checkpoint(args.checkpoint)
    init_default_scope(config.get('default_scope', 'mmpretrain'))
    partitions = load_partitions(config, args.checkpoint)
    images = SampleImages(DATASETS.build(config.train_dataloader.dataset))
    if len(images) != partitions.shape[1]:
        raise UserError(
            f'the partitions divide {partitions.shape[1]} images, but the training set of '
            f'{args.config} has {len(images)}: give the config of the training, with its '
            '--cfg-options'
        )
    known = known_values(images)
    folder = args.out or Path(args.checkpoint).parent / 'partitions_shown'
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, assignment in enumerate(partitions):
        sizes = torch.bincount(assignment).sort(descending=True).values.tolist()
        row: dict[str, Any] = dict(
            number=str(number + 1),
            sizes=', '.join(map(str, sizes[:6])) + (', ...' if len(sizes) > 6 else ''),
            subsets=str(sum(size > 0 for size in sizes)),
        )
        for earlier in range(number):
            value = normalized_mutual_information(assignment, partitions[earlier])
            row[f'nmi_{earlier}'] = f'{float(value):.3f}'
        for name, values in known.items():
            row[f'{name}_nmi'] = f'{float(normalized_mutual_information(assignment, values)):.3f}'
            row[f'{name}_bits'] = f'{float(mutual_information(assignment, values)):.3f}'
        rows.append(row)
        picture = partition_grid(
            images, assignment, per_subset=args.per_subset, title=f'Partition {number + 1}'
        )
        Image.fromarray(picture).save(folder / f'partition_{number + 1:02d}.png')
    columns = [('number', 'partition'), ('subsets', 'subsets'), ('sizes', 'sizes')]
    for name in known:
        columns += [(f'{name}_nmi', f'NMI with {name}'), (f'{name}_bits', f'bits about {name}')]
    columns += [(f'nmi_{n}', f'NMI with {n + 1}') for n in range(len(partitions) - 1)]
    print(format_table(rows, columns))
    print(f'\nPictures are in {folder}/partition_*.png')


if __name__ == '__main__':
    cli.run(main)
