"""Test a model: MMPretrain's tools/test.py, also on processors alone.

tools/test.py CONFIG CHECKPOINT [--tta] [--out FILE] [--cfg-options key=value ...]
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

LOADERS = ('test_dataloader',)


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
    return parser.parse_args()


def set_tta(cfg: Config) -> None:
    """Wrap the model and the pipeline for test-time augmentation, as MMPretrain does."""
    if 'tta_model' not in cfg:
        cfg.tta_model = dict(type='mmpretrain.AverageClsScoreTTA')
    if 'tta_pipeline' not in cfg:
        pipeline = deepcopy(cfg.test_dataloader.dataset.pipeline)
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        pipeline[-1] = dict(type='TestTimeAug', transforms=[flips, [pipeline[-1]]])
        cfg.tta_pipeline = pipeline
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
    if args.tta:
        set_tta(cfg)
    cli.finish_config(cfg, args, LOADERS)
    runner = cli.build_runner(cfg)
    if args.out and args.out_item != 'metrics':
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    metrics = runner.test()
    if args.out and args.out_item == 'metrics':
        mmengine.dump(metrics, args.out)


if __name__ == '__main__':
    cli.run(main)
