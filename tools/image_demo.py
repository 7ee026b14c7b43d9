"""Classify an image, or a folder of images: pictures with their classes on them, and scores.

    tools/image_demo.py IMAGE_OR_FOLDER CONFIG CHECKPOINT [--tta-crops ten --tta-policy tsharpen]
    tools/image_demo.py IMAGE_OR_FOLDER ENSEMBLE_CONFIG

Pictures go to --out-dir, with `scores.csv`: the classes of each image, best first.
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
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader
from mmpretrain.registry import MODELS, TRANSFORMS
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer

from ipirm_mm import cli
from ipirm_mm.datasets import EXTENSIONS, LoadImage
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import ProgressBar, write_whole
from ipirm_mm.models import load_weights
from ipirm_mm.models.tta import (
    CROPS,
    VIEW_POLICIES,
    ScoreMergingTTA,
    plain_classifier,
    tta_pipeline,
)
from ipirm_mm.visualization import format_table

COLUMNS = (('image', 'image'), ('name', 'class'), ('score', 'score'))
# Smaller ones are enlarged so that the text can be read.
LEAST_SIDE = 256


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('images', type=Path, help='an image, or a folder of images')
    parser.add_argument('config', help='config of a classifier or an ensemble')
    parser.add_argument('checkpoint', nargs='?', help='its checkpoint; none for an ensemble')
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/image_demo'))
    parser.add_argument('--topk', type=int, default=5, help='classes of each image (default 5)')
    parser.add_argument('--batch-size', type=int, default=1, help='images at once (default 1)')
    parser.add_argument('--tta-crops', choices=tuple(CROPS), help='views (default: one)')
    parser.add_argument('--tta-policy', choices=VIEW_POLICIES, default='mean', help='(mean)')
    parser.add_argument('--tta-crop-size', type=int, help='side of the crops')
    parser.add_argument('--tta-resize', type=int, help='shorter side before cropping')
    parser.add_argument('--device', help='device (default: a GPU if there is one)')
    cli.add_cfg_options(parser)
    args = parser.parse_args()
    if args.topk < 1 or args.batch_size < 1:
        parser.error('--topk and --batch-size must be at least 1')
    if args.tta_crops is None and (args.tta_crop_size or args.tta_resize):
        parser.error('--tta-crop-size and --tta-resize need --tta-crops')
    return args


def find_images(path: Path) -> list[Path]:
    """The images in a folder and its folders, in order; or the one image.

    Raises:
        UserError: If there is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f'there is no image or folder {path}')
    found = sorted(file for file in path.rglob('*') if file.suffix.lower() in EXTENSIONS)
    if not found:
        raise UserError(f'{path} has no image, whose name ends in one of {", ".join(EXTENSIONS)}')
    return found


def build(cfg: Config, args: argparse.Namespace) -> tuple[Any, Compose, list[str] | None]:
    """The model, the pipeline of its images, and names of its classes if they are known."""
    pipeline = cfg.test_dataloader.dataset.pipeline
    names = None
    if cfg.model.type == 'EnsembleClassifier':
        if args.checkpoint or args.tta_crops:
            raise UserError(
                'members of an ensemble have checkpoints and views of their own, in its config: '
                'leave CHECKPOINT and --tta-crops out'
            )
        model = MODELS.build(cfg.model)
        first = cfg.model.members[0].checkpoint
    else:
        if args.checkpoint is None:
            raise UserError(f'{args.config} is no ensemble: give its checkpoint after it')
        cli.check_checkpoint(args.checkpoint)
        first = args.checkpoint
        model = revert_sync_batchnorm(MODELS.build(plain_classifier(cfg)))
        load_weights(model, first, prefix='', strict=True)
        if args.tta_crops:
            model = ScoreMergingTTA(model, policy=args.tta_policy)
            size = args.tta_crop_size
            pipeline = tta_pipeline(pipeline, args.tta_crops, size, args.tta_resize)
    meta = CheckpointLoader.load_checkpoint(first, map_location='cpu').get('meta', {})
    names = meta.get('dataset_meta', {}).get('classes')
    model.to(args.device or get_device())
    model.eval()
    return model, Compose([TRANSFORMS.build(step) for step in pipeline]), names


def draw(image: np.ndarray, sample: DataSample, names: list[str] | None, out: Path) -> None:
    """Write a picture of an image, BGR, with the classes of a sample on it."""
    resize = LEAST_SIDE if min(image.shape[:2]) < LEAST_SIDE else None
    out.parent.mkdir(parents=True, exist_ok=True)
    UniversalVisualizer().visualize_cls(
        image[..., ::-1], sample, classes=names, resize=resize, draw_gt=False, out_file=str(out)
    )


def main() -> None:
    args = parse_args()
    paths = find_images(args.images)
    cfg = cli.load_config(args.config)
    cli.merge_options(cfg, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    model, pipeline, names = build(cfg, args)
    root = args.images if args.images.is_dir() else args.images.parent
    load = LoadImage()
    rows: list[dict[str, Any]] = []
    with ProgressBar(f'{len(paths)} images') as bar:
        for begin in range(0, len(paths), args.batch_size):
            chunk = paths[begin : begin + args.batch_size]
            # Read here, which names a file that cannot be read; pipelines of data sets of files
            # read it again.
            loaded = [load(dict(img_path=str(path), sample_idx=0)) for path in chunk]
            images = [results['img'].copy() for results in loaded]
            inputs = default_collate([pipeline(results) for results in loaded])
            for path, image, sample in zip(chunk, images, model.test_step(inputs)):
                score, label = sample.pred_score.cpu().topk(min(args.topk, len(sample.pred_score)))
                sample.set_pred_label(label)
                # The whole name: a.jpg and a.png are two pictures.
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
                        )
                    )
            bar((begin + len(chunk)) / len(paths), str(chunk[-1].name))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_whole(args.out_dir / 'scores.csv', text.getvalue().encode())
    print(format_table([row for row in rows if row['rank'] == 1], COLUMNS))
    print(f'\nPictures and scores.csv: {args.out_dir}')


if __name__ == '__main__':
    cli.run(main)
