"""Test a model: MMPretrain's tools/test.py, also on processors alone.

tools/test.py CONFIG CHECKPOINT [--tta] [--tta-policy POLICY] [--tta-crops flip|five|ten]
                   [--out FILE] [--cfg-options key=value ...]
"""

from __future__ import annotations

import argparse
from copy import deepcopy

import mmengine
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults

import ipirm_mm  # noqa: F401  (registers, and bridges the stack, before anything is built)
from ipirm_mm import cli
from ipirm_mm.errors import UserError
from ipirm_mm.models.tta import VIEW_POLICIES

LOADERS = ('test_dataloader',)
CROPS = dict(flip='HorizontalFlip', five='FiveCrop', ten='TenCrop')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    cli.add_common_arguments(parser)
    parser.add_argument('--out', help='file to write results to (.pkl, .json or .yaml)')
    parser.add_argument(
        '--out-item',
        choices=['metrics', 'pred'],
        help='what --out writes (default: predictions)',
    )
    parser.add_argument('--show-dir', help='folder to save pictures of predictions in')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--interval', type=int, default=1, help='picture every so many samples')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds each window stays')
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation: the tta_pipeline and tta_model of the config, or else '
        'the mean over the image and its mirror image',
    )
    parser.add_argument(
        '--tta-policy', choices=VIEW_POLICIES, help='how to merge the views (implies --tta)'
    )
    parser.add_argument(
        '--tta-crops',
        choices=tuple(CROPS),
        help='views: the image and its mirror image, five crops, or ten (implies --tta)',
    )
    parser.add_argument(
        '--tta-crop-size',
        type=int,
        help="side of five or ten crops; by default that of the test pipeline's CenterCrop",
    )
    return parser.parse_args()


def tta_pipeline(pipeline: list, crops: str, crop_size: int | None) -> list:
    """Turn a test pipeline into one of several views.

    Args:
        pipeline: The test pipeline, of which the last transform packs the image.
        crops: Which views, a key of ``CROPS``.
        crop_size: Side of five or ten crops; None for that of the ``CenterCrop``.

    Raises:
        UserError: If no crop size is given anywhere.
    """
    *before, pack = deepcopy(pipeline)
    views = dict(type=CROPS[crops], transforms=[pack])
    if crops != 'flip':
        centers = [step for step in before if str(step.type).endswith('CenterCrop')]
        before = [step for step in before if step not in centers]
        size = crop_size or (centers[-1].crop_size if centers else None)
        if size is None:
            raise UserError(
                f'--tta-crops {crops} needs a size, but the test pipeline has no CenterCrop: add '
                '--tta-crop-size'
            )
        views['crop_size'] = size
    return [*before, views]


def set_tta(cfg: Config, args: argparse.Namespace) -> None:
    """Wrap the model and the pipeline for test-time augmentation."""
    if args.tta_policy is not None or 'tta_model' not in cfg:
        cfg.tta_model = dict(type='ScoreMergingTTA', policy=args.tta_policy or 'mean')
    if args.tta_crops is not None or 'tta_pipeline' not in cfg:
        pipeline = cfg.test_dataloader.dataset.pipeline
        cfg.tta_pipeline = tta_pipeline(pipeline, args.tta_crops or 'flip', args.tta_crop_size)
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def main() -> None:
    args = parse_args()
    if args.out is None and args.out_item is not None:
        raise UserError('--out-item needs --out, the file to write to')
    cfg = cli.load_config(args.config)
    cli.merge_common(cfg, args, LOADERS)
    cli.check_checkpoint(args.checkpoint)
    cfg.load_from = args.checkpoint
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show or args.show_dir is not None:
        if 'visualization' not in cfg.get('default_hooks', {}):
            raise UserError(
                '--show and --show-dir need default_hooks.visualization in the config: add '
                "visualization=dict(type='VisualizationHook')"
            )
        cfg.default_hooks.visualization.update(
            enable=True,
            show=args.show,
            wait_time=args.wait_time,
            out_dir=args.show_dir,
            interval=args.interval,
        )
    if args.tta or args.tta_policy or args.tta_crops:
        set_tta(cfg, args)
    cli.finish_config(cfg, args, LOADERS)
    runner = cli.build_runner(cfg)
    if args.out and args.out_item != 'metrics':
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    metrics = runner.test()
    if args.out and args.out_item == 'metrics':
        mmengine.dump(metrics, args.out)


if __name__ == '__main__':
    cli.run(main)
