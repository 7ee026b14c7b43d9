"""Test a model. Takes the flags of MMPretrain's tools/test.py, and also runs without a GPU.

    python tools/test.py CONFIG CHECKPOINT [--tta] [--tta-policy mean|gmean|tsharpen]
                         [--tta-crops center|flip|five|ten] [--val] [--out FILE.pkl]
                         [--cfg-options key=value ...]
    python tools/test.py ENSEMBLE_CONFIG

A test set without labels is not evaluated; write its predictions with --out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import mmengine
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.model import is_model_wrapper

import ipirm_mm  # noqa: F401  (registers everything, and applies the bridges of compat.py)
from ipirm_mm import cli
from ipirm_mm.datasets import one_pipeline, with_pipelines
from ipirm_mm.engine import CheckWeightsHook
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import (
    NEED_LABELS,
    DumpPredictions,
    ModelSource,
    PredictionEvaluator,
    has_label,
)
from ipirm_mm.models.tta import tta_pipeline
from ipirm_mm.models.utils import (
    class_names,
    class_order,
    dataset_class_names,
    label_rule,
    say_unknown,
)
from ipirm_mm.utils import check_writable, type_name

LOADERS = ('test_dataloader',)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='checkpoint file; none for an ensemble, whose config names those of its members',
    )
    cli.add_common_arguments(parser)
    parser.add_argument(
        '--val',
        action='store_true',
        help='test on the validation split (val_dataloader and val_evaluator of the config)',
    )
    parser.add_argument('--out', help='file to write results to (.pkl, .json or .yaml)')
    parser.add_argument(
        '--out-item',
        choices=['metrics', 'pred'],
        help='what --out writes (default: pred, the predictions)',
    )
    parser.add_argument('--show-dir', help='folder to save pictures of predictions in')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument(
        '--interval', type=int, default=1, help='images per saved or shown picture (default: 1)'
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds that each window stays open'
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation: by tta_pipeline and tta_model of the config if it has them, '
        'otherwise the mean over the image and its mirror image',
    )
    cli.add_tta_arguments(parser, implied=' (implies --tta)')
    args = parser.parse_intermixed_args()  # options may stand between files
    cli.check_tta_arguments(parser, args)
    return args


def set_tta(cfg: Config, args: argparse.Namespace) -> None:
    """Wrap the model and the pipeline for test-time augmentation."""
    if type_name(cfg.model.type) == 'EnsembleClassifier':
        raise UserError(
            'members of an ensemble have test-time augmentation of their own: set crops and '
            'policy of each member in the config, and leave --tta out'
        )
    if args.tta_policy is not None or 'tta_model' not in cfg:
        cfg.tta_model = dict(type='ScoreMergingTTA', policy=args.tta_policy or 'mean')
    if args.tta_crops is not None or 'tta_pipeline' not in cfg:
        pipeline = one_pipeline(cfg.test_dataloader, 'test_dataloader')
        cfg.tta_pipeline = tta_pipeline(
            pipeline, args.tta_crops or 'flip', args.tta_crop_size, args.tta_resize
        )
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset = with_pipelines(
        cfg.test_dataloader.dataset, lambda pipeline: cfg.tta_pipeline
    )


def set_evaluator(runner: Any, cfg: Config, args: argparse.Namespace) -> None:
    """Let scores and classes of the test set match, and the predictions be written."""
    loop = runner.test_loop
    dataset = loop.dataloader.dataset
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    names = dataset_class_names(dataset)
    if args.checkpoint is None:
        source, own, rule = args.config, model.classes, model.rule
    else:
        network = getattr(model, 'module', model)  # of test-time augmentation
        source, own = args.checkpoint, class_names(args.checkpoint, cfg)
        rule = label_rule(network)
    order = class_order(names, own, 'the test set', source)
    if own is None:
        say_unknown(source)
    elif names is None:
        say_unknown('the test set')
    if type(loop.evaluator) is Evaluator:
        metrics, meta = loop.evaluator.metrics, loop.evaluator.dataset_meta
        loop.evaluator = PredictionEvaluator(metrics, order)
        loop.evaluator.dataset_meta = meta
    elif order is not None:
        raise UserError(
            f'the test set has the classes of {source} in another order, but the evaluator of the '
            f'config is a {type(loop.evaluator).__name__}, to which scores cannot be mapped: give '
            'the test set the order of the checkpoint, by metainfo.classes'
        )
    evaluator = loop.evaluator
    info = getattr(dataset, 'get_data_info', None)
    if info is not None and not has_label(info(0)) and isinstance(evaluator, PredictionEvaluator):
        for metric in [m for m in evaluator.metrics if isinstance(m, NEED_LABELS)]:
            evaluator.set_aside(metric)
    if args.out and args.out_item != 'metrics':
        made_by = ModelSource.of(args.config, args.checkpoint, cfg)
        evaluator.metrics.append(DumpPredictions(args.out, names or own, rule, made_by))
    if not evaluator.metrics:
        raise UserError(
            'the test set has no labels, so there is nothing to evaluate: write the '
            'predictions with --out FILE.pkl'
        )


def main() -> None:
    args = parse_args()
    if args.out is None and args.out_item is not None:
        raise UserError('--out-item needs --out, the file to write to')
    if args.out_item == 'metrics' and not args.out.endswith(('.json', '.yaml', '.yml', '.pkl')):
        raise UserError(
            f'metrics are written as .json, .yaml or .pkl, but --out is {args.out}: give another '
            'name'
        )
    check_writable(args.out)
    cfg = cli.load_config(args.config, args.cfg_options)
    cli.check_model(cfg)
    if args.val:
        for part in ('dataloader', 'evaluator', 'cfg'):
            if cfg.get(f'val_{part}') is None:
                raise UserError(f'--val needs val_{part}, which {args.config} does not have')
        cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
        cfg.setdefault('test_cfg', dict())
    cli.merge_common(cfg, args, LOADERS)
    args.checkpoint = args.checkpoint or None  # dist_test.sh hands on an empty one
    if args.checkpoint is None and type_name(cfg.model.type) != 'EnsembleClassifier':
        raise UserError(
            f'{args.config} is no ensemble: give its checkpoint, tools/test.py CONFIG CHECKPOINT'
        )
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
    cli.fit_to_machine(cfg, LOADERS)
    runner = cli.build_runner(cfg)
    runner.register_hook(CheckWeightsHook())
    set_evaluator(runner, cfg, args)
    metrics = runner.test()
    if args.out and args.out_item == 'metrics' and is_main_process():
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        mmengine.dump(plain_numbers(metrics), args.out)


def plain_numbers(value: Any) -> Any:
    """Metrics with lists in place of tensors and arrays, such as those of a confusion matrix."""
    if isinstance(value, dict):
        return {str(key): plain_numbers(item) for key, item in value.items()}
    return value.tolist() if hasattr(value, 'tolist') else value


if __name__ == '__main__':
    cli.run(main)
