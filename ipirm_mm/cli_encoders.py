"""What the tools share that compare encoders: their arguments, names, configs and numbers."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .cli import load_config
from .errors import UserError
from .evaluation import EncoderFiles, encoder_files
from .models.classifiers import model_name
from .utils import check_checkpoint, check_writable


def add_encoder_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """Add the arguments that :func:`check_encoder_arguments` checks.

    Args:
        parser: The parser.
        out: Default of ``--out``.
    """
    parser.add_argument(
        'encoders',
        nargs='+',
        metavar='CONFIG:CHECKPOINT',
        help='encoders to compare; the first config also gives the data and the augmentations',
    )
    parser.add_argument(
        '--names', nargs='+', help='a name for each encoder (default: that of its config)'
    )
    parser.add_argument(
        '--out', default=out, help=f'picture, a .png file; numbers are beside it (default: {out})'
    )
    parser.add_argument(
        '--num-images',
        type=int,
        default=1000,
        help='images on which responses are measured (default: 1000, or all there are)',
    )
    parser.add_argument(
        '--draws',
        type=int,
        default=2,
        help='draws of each augmentation per image (default: 2)',
    )


def check_encoder_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the program if an argument of :func:`add_encoder_arguments` is out of range."""
    if args.num_images < 2 or args.draws < 1:
        parser.error('--num-images must be at least 2, and --draws at least 1')
    if not args.out.endswith('.png'):
        parser.error(f'--out must be a .png file, but is {args.out}')
    check_writable(args.out)
    if args.names and len(set(args.names)) != len(args.encoders):
        parser.error(
            f'--names must be {len(args.encoders)} different names, one for each encoder, but is '
            f'{" ".join(args.names)}'
        )


def load_encoder_configs(args: argparse.Namespace) -> dict[str, tuple[Config, str]]:
    """Load the configs of the encoders, and check their checkpoints.

    Args:
        args: Parsed arguments; ``cfg_options`` are for all configs.

    Returns:
        Config and checkpoint of each encoder, by its name.

    Raises:
        UserError: If an argument has another form, or a file is missing or damaged.
    """
    files = [encoder_files(text) for text in args.encoders]
    configs = [load_config(one.config, args.cfg_options) for one in files]
    for one in files:
        check_checkpoint(one.checkpoint)
    if configs[0].get('model') is None:
        raise UserError(
            f'{files[0].config} has no model: give the config of an encoder or classifier first'
        )
    names = args.names or encoder_names(files)
    return {name: (cfg, one.checkpoint) for name, cfg, one in zip(names, configs, files)}


def encoder_names(files: Sequence[EncoderFiles]) -> list[str]:
    """Name encoders by their configs, where these are the same also by their checkpoints.

    Args:
        files: The files of the encoders.

    Returns:
        Different names.
    """
    names = [model_name(one.config) for one in files]
    for parts in (1, 2):
        if len(set(names)) == len(names):
            return names
        names = ['/'.join(Path(one.checkpoint).parts[-parts:]) for one in files]
    return (
        names
        if len(set(names)) == len(names)
        else [f'{n + 1}: {name}' for n, name in enumerate(names)]
    )


def without_infinity(value: Any) -> Any:
    """Replace infinite numbers in lists and dicts by None, as JSON has no infinity."""
    if isinstance(value, dict):
        return {key: without_infinity(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_infinity(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
