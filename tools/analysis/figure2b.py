"""What excites filters that do not follow the augmentations, layer by layer: Figure 2 (b).

    python tools/analysis/figure2b.py CONFIG:CHECKPOINT [CONFIG:CHECKPOINT ...] [--layers NAME ...]

The data and the augmentations are those of the first config, for all encoders. Of each layer, the
filters with the smallest mean response to the augmentations are "aug. unrelated" (responses are
defined as in Figure 2 (a), of the mean activation of a filter). They are clustered by k-means, by
their standardized mean activations in the images of `val_dataloader`. The filter nearest to each
center is shown in the images that excite it most: the image, and the guided gradient of the
filter's largest activation. Guided backpropagation needs ReLU (or ReLU6), and a network without it
is refused; other activations pass plain gradients.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import default_collate
from mmengine.registry import DATASETS, init_default_scope
from torch import Tensor

from ipirm_mm import cli, cli_encoders
from ipirm_mm.datasets import single_augmentations
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import (
    choose_filters,
    filter_maps,
    find_layers,
    guided_backpropagation,
    image_numbers,
    last_stages,
    load_encoder,
    measure_response,
    split_dimensions,
)
from ipirm_mm.utils import ProgressBar, atomic_write
from ipirm_mm.visualization import (
    FilterPanel,
    FilterRow,
    SampleImages,
    draw_filters,
    format_table,
)

COLUMNS = (
    ('name', 'encoder'),
    ('layer', 'layer'),
    ('filter', 'filter'),
    ('size', 'filters in its cluster'),
    ('clustered', 'of'),
    ('response', 'mean response'),
    ('color', 'response to color'),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli_encoders.add_encoder_arguments(parser, 'figure2b.png')
    parser.add_argument(
        '--layers',
        nargs='+',
        help='modules by name, such as backbone.layer4 (default: the last two stages)',
    )
    parser.add_argument('--clusters', type=int, default=4, help='clusters (default: 4)')
    parser.add_argument('--per-filter', type=int, default=4, help='images per filter (default: 4)')
    parser.add_argument(
        '--share',
        type=float,
        default=0.5,
        help='share of the filters called aug. equivariant, which are left out (default: 0.5)',
    )
    cli.add_cfg_options(parser)
    args = parser.parse_args()
    cli_encoders.check_encoder_arguments(parser, args)
    if args.clusters < 2 or args.per_filter < 1 or not 0 < args.share < 1:
        parser.error(
            '--clusters must be at least 2, --per-filter at least 1, --share between 0 and 1'
        )
    return args


class Images:
    """The images on which filters are chosen, for the network and for a person."""

    def __init__(self, config: Any, number: int) -> None:
        self.dataset = DATASETS.build(config.val_dataloader.dataset)
        self.numbers = image_numbers(len(self.dataset), number)
        self.shown = SampleImages(self.dataset, self.numbers)

    def prepared(self, model: Any, chosen: list[int]) -> Tensor:
        """Some of the images as the network takes them, ``(B, C, H, W)``."""
        batch = default_collate([self.dataset[self.numbers[number]] for number in chosen])
        return model.data_preprocessor(batch, False)['inputs']


def evaluate(
    name: str, model: Any, config: Any, images: Images, args: argparse.Namespace
) -> tuple[list[FilterPanel], list[dict[str, Any]]]:
    """Find and show the filters of an encoder; returns its panels, and the rows of the table."""
    names = args.layers or last_stages(model, images.prepared(model, [0]))
    layers = find_layers(model, names)
    widths: list[int] = []

    def project(batch: Tensor) -> Tensor:
        maps = filter_maps(model.backbone, batch, layers)
        widths[:] = [found.shape[1] for found in maps.values()]
        return torch.cat([found.mean((2, 3)) for found in maps.values()], 1)

    measured = measure_response(
        model,
        config.val_dataloader,
        single_augmentations(config),
        args.num_images,
        args.draws,
        project,
    )
    color = measured.color
    colors = [None] * len(widths) if color is None else color.split(widths)
    panels, rows = [], []
    parts = zip(
        layers, measured.features.split(widths, 1), measured.responses.split(widths, 1), colors
    )
    with ProgressBar(f'guided backpropagation, {name}') as bar:
        for number, (layer, activations, responses, colored) in enumerate(parts):
            _, unrelated = split_dimensions(responses, args.share)
            chosen = choose_filters(activations, unrelated, args.clusters)
            shown = []
            for filter_number, size in zip(chosen.filters.tolist(), chosen.sizes.tolist()):
                top = activations[:, filter_number].argsort(descending=True, stable=True)
                numbers = measured.sample_idx[top[: args.per_filter]].tolist()
                gradients = guided_backpropagation(
                    model.backbone,
                    images.prepared(model, numbers),
                    layers[layer],
                    torch.full((len(numbers),), filter_number, device=activations.device),
                    layer,
                )
                if not is_rgb(model):
                    gradients = gradients.flip(1)
                shown.append(
                    FilterRow(
                        f'filter {filter_number}\n{size} of {chosen.clustered}',
                        [images.shown[n] for n in numbers],
                        list(gradients.cpu().numpy()),
                    )
                )
                rows.append(
                    dict(
                        name=name,
                        layer=layer,
                        filter=filter_number,
                        size=size,
                        clustered=chosen.clustered,
                        response=float(responses[:, filter_number].mean()),
                        color=None if colored is None else float(colored[filter_number]),
                        images=[images.numbers[n] for n in numbers],
                    )
                )
            panels.append(FilterPanel(name, layer, shown))
            bar((number + 1) / len(layers))
    return panels, rows


def is_rgb(model: Any) -> bool:
    """Whether the network of a model takes RGB images, not BGR."""
    preprocessor = model.data_preprocessor
    return bool(
        getattr(preprocessor, 'to_rgb', False)
        or getattr(preprocessor, '_channel_conversion', False)
    )


def main() -> None:
    args = parse_args()
    encoders = cli_encoders.load_encoder_configs(args)
    config = next(iter(encoders.values()))[0]
    if config.get('val_dataloader') is None:
        raise UserError(
            f'{config.filename} has no val_dataloader: the first config needs one, with images to '
            'show'
        )
    init_default_scope(config.get('default_scope', 'mmpretrain'))
    images = Images(config, args.num_images)
    panels, rows = [], []
    for name, (own, checkpoint) in encoders.items():
        found = evaluate(name, load_encoder(own, checkpoint), config, images, args)
        panels += found[0]
        rows += found[1]
    shown = [
        {
            key: f'{value:.3f}' if isinstance(value, float) else value
            for key, value in row.items()
            if key != 'images'
        }
        for row in rows
    ]
    columns = COLUMNS if any(row['color'] is not None for row in rows) else COLUMNS[:-1]
    print(f'\n{format_table(shown, columns)}')
    atomic_write(args.out, draw_filters(panels))
    numbers = Path(args.out).with_suffix('.json')
    atomic_write(numbers, json.dumps(cli_encoders.without_infinity(rows), indent=1) + '\n')
    print(f'\nPicture: {args.out}; all numbers: {numbers}')


if __name__ == '__main__':
    cli.run(main)
