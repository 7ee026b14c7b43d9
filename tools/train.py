"""Train a model. Takes the flags of MMPretrain's tools/train.py, and also runs without a GPU.

    python tools/train.py CONFIG [--work-dir DIR] [--resume [CHECKPOINT]]
                          [--cfg-options key=value ...]

Exit status 1 and one sentence on standard error report a mistake in a config or a file.
"""

from __future__ import annotations

import argparse

import ipirm_mm  # noqa: F401  (registers everything, and applies the bridges of compat.py)
from ipirm_mm import cli
from ipirm_mm.engine import add_training_hooks

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    cli.add_common_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from CHECKPOINT, or from the latest in the work folder',
    )
    parser.add_argument(
        '--no-validate', action='store_true', help='do not validate during training'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the ratio of the actual to the original batch size',
    )
    parser.add_argument(
        '--no-persistent-workers', action='store_true', help='start new data workers every epoch'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = cli.load_config(args.config, args.cfg_options)
    cli.merge_common(cfg, args, LOADERS)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.no_persistent_workers:
        for name in LOADERS:
            if cfg.get(name) is not None:
                cfg[name]['persistent_workers'] = False
    cli.fit_to_machine(cfg, LOADERS)
    cli.prepare_training(cfg, amp=args.amp, auto_scale_lr=args.auto_scale_lr)
    cli.check_resume(cfg)
    runner = cli.build_runner(cfg)
    add_training_hooks(runner)
    runner.train()


if __name__ == '__main__':
    cli.run(main)
