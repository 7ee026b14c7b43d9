"""Test a model. Takes the flags of MMPretrain's tools/test.py, and also runs without a GPU.

    python tools/test.py CONFIG CHECKPOINT [--tta] [--tta-policy mean|gmean|tsharpen]
                         [--tta-crops center|flip|five|ten] [--val] [--out FILE.pkl]
                         [--cfg-options key=value ...]
    python tools/test.py ENSEMBLE_CONFIG

A test set without labels is not evaluated; write its predictions with --out.
"""

from __future__ import annotations

import argparse
from typing import Any

import mmengine
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import Evaluator
from mmengine.model import is_model_wrapper
from mmengine.runner import CheckpointLoader
from mmpretrain.models import BaseClassifier

import ipirm_mm  # noqa: F401  (registers everything, and applies the bridges of compat.py)
from ipirm_mm import cli
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import NEED_LABELS, DumpPredictions, PredictionEvaluator, has_label
from ipirm_mm.models.tta import tta_pipeline
from ipirm_mm.models.utils import (
    as_names,
    class_names,
    class_order,
    label_rule,
    say_unknown,
)
from ipirm_mm.utils import type_name

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
    args = parser.parse_args()
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
        pipeline = cfg.test_dataloader.dataset.pipeline
        cfg.tta_pipeline = tta_pipeline(
            pipeline, args.tta_crops or 'flip', args.tta_crop_size, args.tta_resize
        )
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def set_evaluator(runner: Any, cfg: Config, args: argparse.Namespace) -> None:
    """Let scores and classes of the test set match, and the predictions be written."""
    loop = runner.test_loop
    dataset = loop.dataloader.dataset
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    names = as_names((getattr(dataset, 'metainfo', None) or {}).get('classes'))
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
        evaluator.metrics.append(DumpPredictions(args.out, names or own, rule))
    if not evaluator.metrics:
        raise UserError(
            'the test set has no labels, so there is nothing to evaluate: write the '
            'predictions with --out FILE.pkl'
        )


def check_weights(model: Any, checkpoint: str) -> None:
    """Check that a checkpoint has all weights of a classifier, of which MMEngine only warns."""
    model = model.module if is_model_wrapper(model) else model
    network = getattr(model, 'module', model)  # of test-time augmentation
    if not isinstance(network, BaseClassifier):
        return
    content = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    state = content.get('state_dict', content)
    state = {key.removeprefix('module.'): value for key, value in state.items()}
    weights = {name for name, _ in network.named_parameters()}
    own = {key: value.shape for key, value in network.state_dict().items()}
    # Other shapes are what torch cannot load; the modules' own hooks may rename and resize.
    try:
        missing = network.load_state_dict(state, strict=False).missing_keys
    except RuntimeError:
        missing = [k for k in own if k not in state or state[k].shape != own[k]]
    # What only the training of a student needs is not in its published checkpoint.
    missing = [k for k in missing if k in weights and not k.startswith('distill_losses.')]
    if missing:
        raise UserError(
            f'{checkpoint} does not fit the classifier of the config: {len(missing)} of '
            f'{len(weights)} weights are missing in it, or have another shape, such as '
            f'{missing[0]}: give the checkpoint of this config'
        )


def main() -> None:
    args = parse_args()
    if args.out is None and args.out_item is not None:
        raise UserError('--out-item needs --out, the file to write to')
    cfg = cli.load_config(args.config, args.cfg_options)
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
    if args.checkpoint is not None:
        check_weights(runner.model, args.checkpoint)
    set_evaluator(runner, cfg, args)
    metrics = runner.test()
    if args.out and args.out_item == 'metrics':
        mmengine.dump(metrics, args.out)


if __name__ == '__main__':
    cli.run(main)
