"""What the command-line tools share."""

from __future__ import annotations

import argparse
import gc
import os
import pickle
import sys
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner, find_latest_checkpoint

from .compat import prepare_cpu_distributed
from .errors import UserError
from .resources import find_config


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that MMPretrain's ``train.py`` and ``test.py`` have in common."""
    parser.add_argument('--work-dir', help='the folder to save logs, models and metrics in')
    parser.add_argument('--amp', action='store_true', help='use automatic mixed precision')
    parser.add_argument(
        '--no-pin-memory', action='store_true', help='do not pin memory in data loaders'
    )
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher',
    )
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help='set by the launcher'
    )


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config, key=value; lists as key="[a,b]" or key=a,b, '
        'nested as key="[(a,b),(c,d)]", without white space',
    )


def load_config(path: str) -> Config:
    """Load a config.

    Args:
        path: A file, or the name of a config of this package (``ipirm_mm::...``).

    Raises:
        UserError: If there is no such file; see :func:`~ipirm_mm.resources.find_config`.
    """
    return Config.fromfile(find_config(path))


def merge_options(cfg: Config, options: dict | None) -> None:
    """Merge ``--cfg-options`` into a config, which is changed in place.

    Args:
        cfg: The config.
        options: What was given, by dotted name; None if nothing was.

    Raises:
        UserError: If an option does not fit the config.
    """
    try:
        cfg.merge_from_dict(options or {})
    except (TypeError, KeyError, IndexError) as error:
        raise UserError(
            f'--cfg-options {", ".join(options or {})}: does not fit the config ({error}); what '
            'is in a list goes by its number, as in model.distill_losses.0.stages=last'
        ) from error


def merge_common(cfg: Config, args: argparse.Namespace, loaders: tuple[str, ...]) -> None:
    """Merge the common flags, but ``--cfg-options``, into a config.

    Args:
        cfg: The config, changed in place.
        args: Parsed arguments.
        loaders: Names of the data loaders whose defaults are filled in.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('./work_dirs', Path(args.config).stem)
    for name in loaders:
        if cfg.get(name) is None:
            continue
        loader = ConfigDict(
            pin_memory=True, persistent_workers=True, collate_fn=dict(type='default_collate')
        )
        loader.update(cfg[name])
        if args.no_pin_memory:
            loader['pin_memory'] = False
        cfg[name] = loader


def finish_config(cfg: Config, args: argparse.Namespace, loaders: tuple[str, ...]) -> None:
    """Merge ``--cfg-options``, and set what depends on the machine.

    Args:
        cfg: The config, changed in place.
        args: Parsed arguments.
        loaders: Names of the data loaders.
    """
    from mmengine.device import get_device

    merge_options(cfg, args.cfg_options)
    for name in loaders:
        if cfg.get(name) is None:
            continue
        if not cfg[name].get('num_workers', 0):  # torch raises otherwise
            cfg[name]['persistent_workers'] = False
        if get_device() == 'cpu':
            cfg[name]['pin_memory'] = False
    prepare_cpu_distributed(cfg)


def check_checkpoint(path: str | None) -> None:
    """See that a local checkpoint is there and whole.

    Raises:
        UserError: If it is missing or truncated; it is named.
    """
    if path is None or '://' in path:
        return
    if not os.path.isfile(path):
        raise UserError(f'there is no checkpoint {path}')
    with open(path, 'rb') as stream:
        zipped = stream.read(2) == b'PK'
    # torch.save writes a zip archive, whose directory is at the end: it is the first to go.
    if zipped and not zipfile.is_zipfile(path) or os.path.getsize(path) == 0:
        raise UserError(
            f'the checkpoint {path} is truncated ({os.path.getsize(path):,} bytes): copy it anew, '
            'or resume from an earlier one'
        )


def check_resume(cfg: Config) -> None:
    """See that the checkpoint a run will load is whole, also one found in its work folder.

    Raises:
        UserError: If it is missing or truncated; it is named.
    """
    path = cfg.get('load_from')
    if path is None and cfg.get('resume') and os.path.isdir(cfg.work_dir):
        # A run killed while it saved leaves half a file, and this is how it is taken up again.
        path = find_latest_checkpoint(cfg.work_dir)
    check_checkpoint(path)


def build_runner(cfg: Config) -> Any:
    """Build the runner that a config asks for."""
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def run(main: Callable[[], None]) -> None:
    """Run a tool; a mistake of the user's is one sentence on standard error and status 1.

    Set ``IPIRM_TRACEBACK=1`` to see where it was raised.
    """
    try:
        main()
        _end_distributed()
    except Exception as error:
        user_error = _find_user_error(error)
        if user_error is None or os.environ.get('IPIRM_TRACEBACK') == '1':
            traceback.print_exc()
        else:
            print(f'error: {user_error}', file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        _leave(1)


def _end_distributed() -> None:
    """Take down the process group, which MMEngine's runner leaves to the interpreter's exit.

    There, a thread of the group that is still running aborts the process ("terminate called
    without an active exception"), and the launcher calls a finished training a failure.
    """
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()  # no rank takes away what another still talks to
        gc.collect()  # the runner's cycles, with DDP's hold on the group
        distributed.destroy_process_group()


def _find_user_error(error: BaseException | None) -> str | None:
    """The sentence for the user in a chain of exceptions, if there is one."""
    first = error
    while error is not None:
        if isinstance(error, UserError):
            # One that crossed from a worker carries the worker's traceback before the sentence.
            text = str(error)
            marker = f'{UserError.__name__}: '
            return text.rsplit(marker, 1)[-1].strip() if 'Traceback' in text else text
        error = error.__cause__ or error.__context__
    if isinstance(first, FileNotFoundError):
        return f'a file or folder is missing: {first}'
    if isinstance(first, (pickle.UnpicklingError, EOFError)):
        # Around its reason torch advises weights_only=False, with which a file could run code.
        reason = str(first).rsplit('WeightsUnpickler error:', 1)[-1].strip()
        reason = (reason or type(first).__name__).splitlines()[0]
        return f'a checkpoint cannot be read, or holds types that could run code: {reason}'
    return None


def _leave(status: int) -> None:
    """Exit at once: a rank that waits for the others in its exit handlers would never end."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        os._exit(status)
    sys.exit(status)
