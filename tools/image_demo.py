"""Classify an image, or all images of a folder.

    python tools/image_demo.py IMAGE_OR_FOLDER CONFIG CHECKPOINT
                               [--tta-crops ten --tta-policy tsharpen]
    python tools/image_demo.py IMAGE_OR_FOLDER ENSEMBLE_CONFIG

Writes to --out-dir a picture of each image with its classes on it, and `scores.csv`, the classes
of each image with their scores, highest first, and which are predicted.
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer

from ipirm_mm import cli
from ipirm_mm.apis import find_images, load_predictor, predicted
from ipirm_mm.utils import atomic_write, check_writable
from ipirm_mm.visualization import format_table

COLUMNS = (('image', 'image'), ('name', 'class'), ('score', 'score'))
# Smaller images are enlarged, so that the text can be read.
MIN_SIDE = 256


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('images', type=Path, help='an image, or a folder of images')
    parser.add_argument('config', help='config of a classifier or an ensemble')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='checkpoint file; none for an ensemble, whose config names those of its members',
    )
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=Path('work_dirs/image_demo'),
        help='folder for the pictures and scores.csv (default: work_dirs/image_demo)',
    )
    parser.add_argument('--topk', type=int, default=5, help='classes per image (default: 5)')
    parser.add_argument('--batch-size', type=int, default=1, help='images per batch (default: 1)')
    cli.add_tta_arguments(parser)
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: a GPU if there is one)')
    cli.add_cfg_options(parser)
    args = parser.parse_intermixed_args()  # options may stand between files
    if args.topk < 1 or args.batch_size < 1:
        parser.error('--topk and --batch-size must be at least 1')
    cli.check_tta_arguments(parser, args)
    if args.tta_policy and args.tta_crops is None:  # as in tools/test.py
        args.tta_crops = 'flip'
    return args


def draw(image: np.ndarray, sample: DataSample, names: tuple[str, ...] | None, out: Path) -> None:
    """Write a picture of an image (BGR) with its predicted classes on it."""
    resize = MIN_SIDE if min(image.shape[:2]) < MIN_SIDE else None
    out.parent.mkdir(parents=True, exist_ok=True)
    UniversalVisualizer().visualize_cls(
        image[..., ::-1], sample, classes=names, resize=resize, draw_gt=False, out_file=str(out)
    )


def main() -> None:
    args = parse_args()
    check_writable(args.out_dir, folder=True)
    paths = find_images(args.images, leave_out=args.out_dir)
    cfg = cli.load_config(args.config, args.cfg_options)
    predictor = load_predictor(
        cfg,
        args.checkpoint,
        args.config,
        args.tta_crops,
        args.tta_policy,
        args.tta_crop_size,
        args.tta_resize,
        args.device,
    )
    names = predictor.names
    root = args.images if args.images.is_dir() else args.images.parent
    rows: list[dict[str, Any]] = []
    for path, image, sample in predicted(predictor, paths, args.batch_size):
        score, label = sample.pred_score.cpu().topk(min(args.topk, len(sample.pred_score)))
        kept = label[:1].tolist() if predictor.rule is None else sample.pred_label.tolist()
        if predictor.rule is None:  # of several labels, the picture shows those predicted
            sample.set_pred_label(label)
        # Keep the ending, so that a.jpg and a.png give two pictures.
        relative = path.relative_to(root)
        draw(image, sample, names, args.out_dir / f'{relative}.png')
        for rank, (value, number) in enumerate(zip(score.tolist(), label.tolist())):
            rows.append(
                dict(
                    image=str(relative),
                    rank=rank + 1,
                    label=number,
                    name=names[number] if names else str(number),
                    score=f'{value:.4f}',
                    predicted='yes' if number in kept else 'no',
                )
            )
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(args.out_dir / 'scores.csv', text.getvalue())
    print(format_table([row for row in rows if row['predicted'] == 'yes'], COLUMNS))
    print(f'\nPictures and scores.csv are in {args.out_dir}')


if __name__ == '__main__':
    cli.run(main)
