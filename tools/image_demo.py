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
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS, TRANSFORMS
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer

from ipirm_mm import cli
from ipirm_mm.datasets import EXTENSIONS, LoadImage, is_image
from ipirm_mm.errors import UserError
from ipirm_mm.models.tta import ScoreMergingTTA, tta_pipeline
from ipirm_mm.models.utils import class_names, label_rule, load_classifier
from ipirm_mm.utils import ProgressBar, atomic_write, type_name
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


def find_images(path: Path, out_dir: Path) -> list[Path]:
    """List the images in a folder and its subfolders, in order; or the one image.

    Pictures that an earlier run wrote to a folder below are not among them.

    Args:
        path: The folder or image.
        out_dir: Folder of the pictures that are written.

    Raises:
        UserError: If there is no image.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f'there is no image or folder {path}')
    root, own = path.resolve(), out_dir.resolve()
    below = own if own != root and own.is_relative_to(root) else None
    found = sorted(
        file
        for file in path.rglob('*')
        if is_image(file.relative_to(path))
        and not file.is_dir()
        and (below is None or not (root / file.relative_to(path)).is_relative_to(below))
    )
    if not found:
        raise UserError(f'{path} has no image: no name ends in one of {", ".join(EXTENSIONS)}')
    return found


def build(cfg: Config, args: argparse.Namespace) -> tuple[Any, Compose, tuple[str, ...] | None]:
    """Build the model and its test pipeline; returns also the names of its classes, or None."""
    pipeline = cfg.test_dataloader.dataset.pipeline
    names: tuple[str, ...] | None
    if type_name(cfg.model.type) == 'EnsembleClassifier':
        if args.checkpoint or args.tta_crops:
            raise UserError(
                'the config of an ensemble names the checkpoints and the views of its members: '
                'leave CHECKPOINT and --tta-crops out'
            )
        model = MODELS.build(cfg.model)
        names = model.classes
    else:
        if args.checkpoint is None:
            raise UserError(f'{args.config} is no ensemble: give its checkpoint after it')
        model = load_classifier(cfg, args.checkpoint)
        names = class_names(args.checkpoint, cfg)
        if args.tta_crops:
            model = ScoreMergingTTA(model, policy=args.tta_policy or 'mean')
            size = args.tta_crop_size
            pipeline = tta_pipeline(pipeline, args.tta_crops, size, args.tta_resize)
    model.to(args.device or get_device())
    model.eval()
    return model, Compose([TRANSFORMS.build(step) for step in pipeline]), names


def draw(image: np.ndarray, sample: DataSample, names: tuple[str, ...] | None, out: Path) -> None:
    """Write a picture of an image (BGR) with its predicted classes on it."""
    resize = MIN_SIDE if min(image.shape[:2]) < MIN_SIDE else None
    out.parent.mkdir(parents=True, exist_ok=True)
    UniversalVisualizer().visualize_cls(
        image[..., ::-1], sample, classes=names, resize=resize, draw_gt=False, out_file=str(out)
    )


def main() -> None:
    args = parse_args()
    paths = find_images(args.images, args.out_dir)
    cfg = cli.load_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    model, pipeline, names = build(cfg, args)
    rule = model.rule if hasattr(model, 'rule') else label_rule(getattr(model, 'module', model))
    root = args.images if args.images.is_dir() else args.images.parent
    load = LoadImage()
    rows: list[dict[str, Any]] = []
    with ProgressBar(f'{len(paths)} images') as bar:
        for begin in range(0, len(paths), args.batch_size):
            chunk = paths[begin : begin + args.batch_size]
            # LoadImage names a file that cannot be read. Pipelines of file data sets begin with
            # loading and read the file again.
            loaded = [load(dict(img_path=str(path), sample_idx=0)) for path in chunk]
            images = [results['img'].copy() for results in loaded]
            inputs = default_collate([pipeline(results) for results in loaded])
            for path, image, sample in zip(chunk, images, model.test_step(inputs)):
                score, label = sample.pred_score.cpu().topk(min(args.topk, len(sample.pred_score)))
                predicted = label[:1].tolist() if rule is None else sample.pred_label.tolist()
                if rule is None:  # of several labels, the picture shows those that are predicted
                    sample.set_pred_label(label)
                # Keep the ending, so that a.jpg and a.png give two pictures.
                relative = path.relative_to(root)
                draw(image, sample, names, args.out_dir / f'{relative}.png')
                for rank, (value, number) in enumerate(zip(score.tolist(), label.tolist())):
                    name = names[number] if names else str(number)
                    rows.append(
                        dict(
                            image=str(relative),
                            rank=rank + 1,
                            label=number,
                            name=name,
                            score=f'{value:.4f}',
                            predicted='yes' if number in predicted else 'no',
                        )
                    )
            bar((begin + len(chunk)) / len(paths), str(chunk[-1].name))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(args.out_dir / 'scores.csv', text.getvalue())
    print(format_table([row for row in rows if row['predicted'] == 'yes'], COLUMNS))
    print(f'\nPictures and scores.csv are in {args.out_dir}')


if __name__ == '__main__':
    cli.run(main)
