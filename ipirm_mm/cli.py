"""What the command-line tools share: flags, loading of configs, checks, and errors."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from .compat import prepare_cpu_distributed
from .engine import CheckClassesHook, check_end, no_step_message
from .errors import UserError
from .leaving import end_distributed, leave_with
from .models.tta import CROPS, VIEW_POLICIES
from .resources import find_config
from .utils import check_checkpoint, check_writable, with_names
from .utils.safe_pickle import refuse_pickled_lists

# Sections of a config without which nothing is trained.
TRAINING = ('train_dataloader', 'train_cfg', 'optim_wrapper')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that MMPretrain's ``train.py`` and ``test.py`` have in common."""
    parser.add_argument(
        '--work-dir',
        help='folder for logs, checkpoints and metrics (default: that of the config, or '
        'work_dirs/CONFIG_NAME)',
    )
    parser.add_argument('--amp', action='store_true', help='use automatic mixed precision')
    parser.add_argument(
        '--no-pin-memory', action='store_true', help='do not pin memory in the data loaders'
    )
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what starts the processes of distributed training (default: none, one process)',
    )
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help='set by the launcher'
    )


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_ConfigOptions,
        metavar='KEY=VALUE',
        help='override settings of the config: key=value; a list as key=a,b or key="[a,b]", a '
        'nested one as key="[(a,b),(c,d)]", without spaces; an item of a list by its index, as in '
        'model.distill_losses.0.stages=last',
    )


class _ConfigOptions(DictAction):
    """MMEngine's ``DictAction``, which ends in a traceback at a word without ``=``."""

    def __call__(self, parser: Any, *args: Any, **kwargs: Any) -> None:
        try:
            super().__call__(parser, *args, **kwargs)
        except (ValueError, AssertionError) as error:
            parser.error(f'--cfg-options takes key=value, without blanks ({error})')


def cfg_option_words() -> list[str]:
    """The words after ``--cfg-options`` as they were typed, to hand them to another command."""
    if '--cfg-options' not in sys.argv:
        return []
    rest = sys.argv[sys.argv.index('--cfg-options') + 1 :]
    end = next((n for n, word in enumerate(rest) if word.startswith('--')), len(rest))
    return rest[:end]


def add_tta_arguments(parser: argparse.ArgumentParser, implied: str = '') -> None:
    """Add the options of test-time augmentation, which :func:`check_tta_arguments` checks.

    Args:
        parser: The parser.
        implied: What is added to the help of ``--tta-crops`` and ``--tta-policy``. Defaults to
            nothing.
    """
    parser.add_argument(
        '--tta-crops',
        choices=tuple(CROPS),
        help='views of each image: the center crop; the center crop and its mirror image; the '
        'corners and the center; or these five and their mirror images' + implied,
    )
    parser.add_argument(
        '--tta-policy',
        choices=VIEW_POLICIES,
        help='how the probabilities of the views are merged: arithmetic mean, geometric mean, or '
        'mean of their square roots' + implied,
    )
    parser.add_argument(
        '--tta-crop-size',
        type=int,
        metavar='PIXELS',
        help='side of the crops (default: that of the CenterCrop in the test pipeline)',
    )
    parser.add_argument(
        '--tta-resize',
        type=int,
        metavar='PIXELS',
        help='shorter side of the image before cropping (default: that of the ResizeEdge in the '
        'test pipeline)',
    )


def check_tta_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the program if options of :func:`add_tta_arguments` lack the views they are for."""
    if args.tta_crops is None and (args.tta_crop_size or args.tta_resize):
        parser.error('--tta-crop-size and --tta-resize need --tta-crops')


def load_config(path: str, options: dict | None = None) -> Config:
    """Load a config. Classes in it (MMEngine's newer style) are replaced by their names.

    Args:
        path: A file, or the name of a config of this package (``ipirm_mm::...``).
        options: Values of ``--cfg-options`` by dotted name, which replace those of the file.
            Defaults to None: there are none.

    Raises:
        UserError: If there is no such file, see :func:`~ipirm_mm.resources.find_config`, it
            cannot be read, or an option does not fit it.
    """
    found = find_config(path)
    try:
        cfg = with_names(Config.fromfile(found))
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # of any type: a config is a program
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise UserError(
            f'the config {path} cannot be read: {type(error).__name__}: {reason}; a config is a '
            '.py file of MMEngine'
        ) from error
    try:
        cfg.merge_from_dict(options or {})
    except (TypeError, KeyError, IndexError) as error:
        raise UserError(
            f'--cfg-options {", ".join(options or {})}: does not fit the config ({error}); '
            'name an item of a list by its number, as in model.distill_losses.0.stages=last'
        ) from error
    refuse_pickled_lists(cfg._cfg_dict)
    return cfg


def merge_common(cfg: Config, args: argparse.Namespace, loaders: tuple[str, ...]) -> None:
    """Merge the common flags except ``--cfg-options`` into a config.

    Args:
        cfg: The config, changed in place.
        args: Parsed arguments, see :func:`add_common_arguments`.
        loaders: Names of the data loaders that get MMPretrain's defaults.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        check_writable(args.work_dir, folder=True)
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('./work_dirs', Path(cfg.filename).stem)
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


def fit_to_machine(cfg: Config, loaders: tuple[str, ...]) -> None:
    """Change what the machine does not have: workers to keep, a GPU to copy to or to talk by.

    Args:
        cfg: The config, changed in place.
        loaders: Names of the data loaders.
    """
    for name in loaders:
        if cfg.get(name) is None:
            continue
        if not cfg[name].get('num_workers', 0):  # torch raises otherwise
            cfg[name]['persistent_workers'] = False
        if get_device() == 'cpu':
            cfg[name]['pin_memory'] = False
    prepare_cpu_distributed(cfg)


def prepare_training(cfg: Config, amp: bool = False, auto_scale_lr: bool = False) -> None:
    """Check that a config can train, before anything is written, and apply flags of the training.

    Args:
        cfg: The config, changed in place.
        amp: Whether to train with automatic mixed precision. Defaults to False.
        auto_scale_lr: Whether to scale the learning rate to the batch size. Defaults to False.

    Raises:
        UserError: If a section is missing that training or a flag needs, the machine has no mixed
            precision, or no step would be made.
    """
    check_model(cfg)
    missing = [name for name in TRAINING if cfg.get(name) is None]
    if missing:
        raise UserError(
            f'{cfg.filename} has no {", ".join(missing)}, so that nothing can be trained: add '
            f'{"them" if len(missing) > 1 else "it"}, or inherit from a config that has them'
        )
    for name in TRAINING:
        if not isinstance(cfg[name], dict):
            raise UserError(f'{name} must be a dict of settings, but is {cfg[name]!r}')
    if amp:
        wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
        if wrapper not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise UserError(
                f'--amp needs optim_wrapper.type OptimWrapper, but it is {wrapper}: leave out '
                '--amp, or change the type'
            )
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if cfg.optim_wrapper.get('type') == 'AmpOptimWrapper' and get_device() in ('cpu', 'mps'):
        raise UserError(
            'mixed precision (--amp, AmpOptimWrapper) needs an accelerator, but there is only a '
            'processor: leave out --amp, or set optim_wrapper.type=OptimWrapper'
        )
    if auto_scale_lr:
        cfg.auto_scale_lr = {**(cfg.get('auto_scale_lr') or {}), 'enable': True}
    scale = cfg.get('auto_scale_lr') or {}
    base = scale.get('base_batch_size')
    if scale.get('enable') and not (isinstance(base, int) and base > 0):
        raise UserError(
            f'--auto-scale-lr needs auto_scale_lr.base_batch_size, but it is {base}: set '
            'auto_scale_lr=dict(base_batch_size=N), where N is the number of images per step (of '
            'all processes) for which the learning rate was chosen'
        )
    if scale.get('enable') and 'batch_size' not in cfg.train_dataloader:
        raise UserError('--auto-scale-lr needs train_dataloader.batch_size, which is missing')
    _check_steps(cfg)


def check_model(cfg: Config) -> None:
    """Check that a config has a model.

    Args:
        cfg: The config.

    Raises:
        UserError: If it has none.
    """
    model = cfg.get('model')
    if not isinstance(model, dict):
        found = 'no model' if model is None else f'model={model!r}'
        raise UserError(
            f'{cfg.filename} has {found}, where the settings of a model are needed: give '
            'model=dict(type=...), or inherit from a config that has it'
        )


def _check_loop(loop: Any) -> None:
    """Check that a training loop of MMEngine counts what its end is given in."""
    if loop.get('type', 'EpochBasedTrainLoop') in ('EpochBasedTrainLoop', 'IterBasedTrainLoop'):
        by_epoch = loop.get('by_epoch', loop.get('type') != 'IterBasedTrainLoop')
        right, wrong = ('max_epochs', 'max_iters')[:: 1 if by_epoch else -1]
        if wrong in loop or right not in loop:
            raise UserError(
                f'train_cfg has {", ".join(sorted(loop))}, and so counts '
                f'{"epochs" if by_epoch else "iterations"} and needs {right} alone: give '
                'train_cfg=dict(_delete_=True, by_epoch=True, max_epochs=...), or '
                'train_cfg=dict(_delete_=True, by_epoch=False, max_iters=...)'
            )
    interval = loop.get('val_interval', 1)
    if not isinstance(interval, int) or interval < 1:
        raise UserError(
            f'train_cfg.val_interval must be at least 1, but is {interval}: to validate not at '
            'all, use --no-validate'
        )


def _check_steps(cfg: Config) -> None:
    _check_loop(cfg.train_cfg)
    for name in ('max_epochs', 'max_iters'):
        end = cfg.train_cfg.get(name)
        if end is not None and (not isinstance(end, int) or isinstance(end, bool)):
            raise UserError(f'train_cfg.{name} must be a whole number, but is {end!r}')
        if cfg.train_cfg.get(name) is not None:
            check_end(0, cfg.train_cfg[name], name)
    loader = cfg.train_dataloader
    # Without drop_last there is a batch; the data set need not be built twice.
    if not loader.get('drop_last') or loader.get('batch_sampler') or not loader.get('batch_size'):
        return
    endless = 'Infinite' in str(loader.get('sampler', {}).get('type'))
    if endless or not isinstance(loader.dataset, dict):
        return
    from mmengine.registry import DATASETS, init_default_scope
    from torch import distributed

    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    if distributed.is_available() and distributed.is_initialized():
        world = distributed.get_world_size()
    elif cfg.get('launcher', 'none') == 'none':
        world = 1
    else:
        world = int(os.environ.get('WORLD_SIZE', os.environ.get('SLURM_NTASKS', 1)))
    images = len(DATASETS.build(loader.dataset))
    message = no_step_message(images, loader.batch_size, True, world)
    if message:
        raise UserError(message)


def check_resume(cfg: Config) -> None:
    """Check the checkpoint that a run is told to load, before anything is written.

    The runner checks those that it finds in its work folder.

    Args:
        cfg: The config of the run.

    Raises:
        UserError: If it is missing or damaged; it is named.
    """
    check_checkpoint(cfg.get('load_from'))


def build_runner(cfg: Config) -> Any:
    """Build the runner of a config, MMEngine's or the one named by ``runner_type``."""
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    runner.register_hook(CheckClassesHook())
    return runner


def run(main: Callable[[], None]) -> None:
    """Run a tool. A user's mistake is reported as one sentence on standard error, with status 1.

    Set ``IPIRM_TRACEBACK=1`` to get the traceback as well.

    Args:
        main: The tool.
    """
    try:
        main()
        end_distributed()
    except SystemExit:  # also after a signal, see ExactResumeHook
        end_distributed()
        raise
    except Exception as error:
        leave_with(error)
