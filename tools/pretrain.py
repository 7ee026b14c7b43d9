"""Train an encoder on a folder of images without labels, by one command.

    python tools/pretrain.py --data FOLDER --out DIR [--model resnet50] [--epochs N]

Writes to DIR the encoder (encoder.pth for timm and torchvision, encoder_mmpretrain.pth for
MMPretrain), the page index.html, and config.py, an ordinary config of MMEngine. The same command
goes on with an interrupted training. What is not given is chosen from the images; it is printed.
"""

from __future__ import annotations

import argparse

from ipirm_mm import cli
from ipirm_mm.apis import METHODS, MODELS, pretrain


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', required=True, help='folder of the images')
    parser.add_argument('--out', required=True, help='folder to write to')
    parser.add_argument(
        '--model', choices=tuple(MODELS), default='resnet50', help='backbone (default: resnet50)'
    )
    parser.add_argument(
        '--method',
        choices=tuple(METHODS),
        default='ipirm-simclr',
        help='how to train; those with penalty-only and random-partition are controls '
        '(default: ipirm-simclr)',
    )
    for name, text in (
        ('--epochs', 'passes over the images (default: 100 to 800, by their number)'),
        ('--batch-size', 'images per step (default: 8 to 256, by their number)'),
        ('--image-size', 'side of the crops in pixels (default: 64 to 224, by their sizes)'),
        ('--num-subsets', 'subsets of the partition (default: 2 to 50, by the batch)'),
        ('--workers', 'processes that load images (default: one per processor, at most 8)'),
    ):
        parser.add_argument(name, type=int, help=text)
    parser.add_argument(
        '--labels',
        action=argparse.BooleanOptionalAction,
        help='the folders in DATA are classes, for the k-NN accuracy (default: if they can be)',
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the run (default: 0)')
    parser.add_argument('--amp', action='store_true', help='use automatic mixed precision')
    return parser.parse_args()


def main() -> None:
    print(f'encoder: {pretrain(**vars(parse_args()))}')


if __name__ == '__main__':
    cli.run(main)
