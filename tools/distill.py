"""Train a classifier by distillation from a pretrained encoder, on a folder of labeled images.

    python tools/distill.py --data FOLDER --encoder DIR/encoder.pth --out OUT [--loss ofd|kl]

FOLDER has a folder for each class; a random fifth of the images is held out to measure the
accuracy. Writes to OUT the classifier, student.pth and student.py, for MMPretrain's tools and
`predict`. The same command goes on with an interrupted training.
"""

from __future__ import annotations

import argparse

from ipirm_mm import cli
from ipirm_mm.apis import LOSSES, MODELS, distill


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', required=True, help='folder of the images, one folder per class')
    parser.add_argument('--encoder', required=True, help='encoder.pth, which pretrain writes')
    parser.add_argument('--out', required=True, help='folder to write to')
    parser.add_argument(
        '--model', choices=tuple(MODELS), default='resnet50', help='backbone (default: resnet50)'
    )
    parser.add_argument(
        '--loss', choices=tuple(LOSSES), default='ofd', help='how it is distilled (default: ofd)'
    )
    parser.add_argument(
        '--epochs', type=int, default=100, help='of the teacher and the student (default: 100)'
    )
    for name, text in (
        ('--batch-size', 'images per step (default: 8 to 256, by their number)'),
        ('--image-size', 'side of the crops in pixels (default: 64 to 224, by their sizes)'),
        ('--workers', 'processes that load images (default: one per processor, at most 8)'),
    ):
        parser.add_argument(name, type=int, help=text)
    parser.add_argument('--seed', type=int, default=0, help='seed of both runs (default: 0)')
    parser.add_argument('--amp', action='store_true', help='use automatic mixed precision')
    return parser.parse_args()


def main() -> None:
    print(f'student: {distill(**vars(parse_args()))}')


if __name__ == '__main__':
    cli.run(main)
