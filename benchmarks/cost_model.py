"""A model of what Stage I costs on GPUs, from counted operations and bytes, and from your rates.

    python benchmarks/cost_model.py [--gpu-rate 100] [--link-rate 50] [--loader-ms 11.1] ...

Counts the operations of SimCLR with ResNet-50 at 224 pixels (two views, forward and backward) and
the bytes of its gradient, and adds up the hours of training for VIPriors (50,000 images, 800
epochs, 256 images per step) and ImageNet-1k (1,281,167 images, 100 epochs, 4,096 per step):

- *network*: operations at the rate of the GPUs;
- *gradient*: each GPU sends and receives its gradient twice per step (ring all-reduce);
- *loader*: processor time of the views over the data workers, at the time per image that
  benchmarks/views.py measures; *BatchedViews*: what these leave of it to the workers;
- *features*: forward passes of all images every 50 epochs, and the objective of a partition on
  all blocks of 3,096, on one GPU, whose similarities are counted in the same way;
- *search*: what strategy 'local' takes for each partition where eight ranks share it out, each on
  one thread of a processor (benchmarks/sharing.py, 50,000 images): a bound, since it is a great
  many small operations, which no count turns into seconds on a GPU. 'kmeans' takes a few seconds.

Network and loader run at the same time, so that the slower counts; the others are added. None of
the rates was measured on a GPU by us: give those of your machine.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from hardware import count
from mmpretrain.models import ResNet

from ipirm_mm.visualization import format_table

BLOCK = 3096
# Images, epochs and images per step.
SETS = {'VIPriors': (50_000, 800, 256), 'ImageNet-1k': (1_281_167, 100, 4096)}
COLUMNS = (
    ('name', 'hours of Stage I'),
    ('network', 'network'),
    ('gradient', 'gradient'),
    ('loader', 'loader'),
    ('batched', 'BatchedViews'),
    ('features', 'features'),
    ('search', 'search'),
    ('total', 'in all'),
    ('total_batched', 'in all, BatchedViews'),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options = (
        ('gpu-rate', 100.0, 'operations per second and GPU that a network reaches, in 10^12'),
        ('link-rate', 50.0, 'bytes per second between GPUs, in 10^9'),
        ('loader-ms', 11.1, 'processor time of the two views of an image, in ms'),
        ('batched-ms', 1.74, 'what BatchedViews leaves of it, in ms'),
        ('workers', 8, 'data workers per GPU'),
        ('interval', 50, 'epochs between partitions'),
        ('search-s', 20.7, "time of a search by 'local', shared by eight ranks, in seconds"),
    )
    for name, default, text in options:
        parser.add_argument(
            f'--{name}', type=float, default=default, help=f'{text} (default: {default:g})'
        )
    return parser.parse_args()


def network() -> tuple[float, float, float]:
    """Operations of a view, forward, and forward and backward; bytes of the gradient."""
    model = ResNet(50).to('meta')
    model.train()
    image = torch.empty(1, 3, 224, 224, device='meta')
    with torch.no_grad():
        forward = count(lambda: model(image)).operations
    both = count(lambda: model(image)[0].sum().backward()).operations
    return forward, both, sum(4 * p.numel() for p in model.parameters())


def hours(name: str, gpus: int, args: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    images, epochs, batch = SETS[name]
    forward, both, gradient = network()
    rate, link = 1e12 * args.gpu_rate, 1e9 * args.link_rate
    seen = images * epochs
    steps = seen / batch
    workers = gpus * args.workers
    passes = epochs / args.interval
    # Similarities of all blocks in each of them, 128 wide, both views, on one GPU.
    objective = passes * images / BLOCK * 2 * (2 * BLOCK) ** 2 * 128 / rate
    parts = dict(
        network=2 * seen * both / (gpus * rate),
        gradient=steps * 2 * gradient / link * (gpus - 1) / gpus,
        loader=1e-3 * args.loader_ms * seen / workers,
        batched=1e-3 * args.batched_ms * seen / workers,
        features=passes * 2 * images * forward / (gpus * rate) + objective,
        search=passes * args.search_s,
    )
    added = parts['gradient'] + parts['features'] + parts['search']
    parts['total'] = max(parts['network'], parts['loader']) + added
    parts['total_batched'] = max(parts['network'], parts['batched']) + added
    return dict(
        name=f'{name}, {gpus} GPUs',
        **{key: f'{value / 3600:.3g}' for key, value in parts.items()},
    )


def main() -> None:
    args = parse_args()
    forward, both, gradient = network()
    print(
        f'a view: {forward / 1e9:.1f} x 10^9 operations forward, {both / 1e9:.1f} with the '
        f'backward pass; gradient: {gradient / 1e6:.0f} MB\n'
    )
    print(format_table([hours(name, gpus, args) for name in SETS for gpus in (8, 64)], COLUMNS))


if __name__ == '__main__':
    main()
