"""Check everything that a run needs, before it begins.

    python tools/check_setup.py CONFIG [--checkpoint FILE ...] [--gpus N]

It checks packages and machine, config and model, images and labels, checkpoints, free space, and
trains a few steps to estimate memory and hours. Each finding is a line: ok, warning or error.
Nothing is left in the work folder. Exit status 1 if there is an error, otherwise 0.
"""

from __future__ import annotations

import argparse
import sys

import torch

import ipirm_mm  # noqa: F401  (registers everything, and applies the bridges of compat.py)
from ipirm_mm import cli
from ipirm_mm.doctor import examine


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--checkpoint',
        nargs='+',
        default=[],
        metavar='FILE',
        help='compare these checkpoints with the model too',
    )
    parser.add_argument(
        '--gpus',
        type=int,
        default=max(1, torch.cuda.device_count()),
        metavar='N',
        help='processes that the training would have (default: one per GPU of this machine)',
    )
    parser.add_argument(
        '--sample',
        default='5000',
        metavar='N',
        help='read at most N images of each data set, or all (default: 5000)',
    )
    parser.add_argument(
        '--steps',
        type=int,
        default=5,
        metavar='N',
        help='training steps to time (default: 5)',
    )
    cli.add_cfg_options(parser)
    args = parser.parse_args()
    if args.gpus < 1 or args.steps < 1:
        parser.error('--gpus and --steps must be at least 1')
    if args.sample != 'all' and (not args.sample.isdigit() or int(args.sample) < 1):
        parser.error('--sample takes a number of images from 1 on, or all')
    return args


def main() -> None:
    args = parse_args()
    sample = None if args.sample == 'all' else int(args.sample)
    cfg = cli.load_config(args.config, args.cfg_options)
    findings = examine(cfg, args.checkpoint, args.gpus, sample, args.steps)
    sys.exit(1 if findings.count('error') else 0)


if __name__ == '__main__':
    cli.run(main)
