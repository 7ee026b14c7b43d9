"""Which errors are a mistake of the user, and the sentence that says so."""

from __future__ import annotations

import errno
import pickle
import re
import traceback
from pathlib import Path
from typing import Any

from mmengine import registry

from .errors import UserError
from .options import near_names
from .utils.safe_checkpoints import refused_name

# Functions of MMEngine that build a part of a run, and the section of the config that they read.
BUILDERS = dict(
    build_dataloader='the data loader (train_dataloader, val_dataloader or test_dataloader)',
    build_model='model',
    build_optim_wrapper='optim_wrapper',
    build_param_scheduler='param_scheduler',
    build_train_loop='train_cfg',
    build_val_loop='val_cfg, val_dataloader or val_evaluator',
    build_test_loop='test_cfg, test_dataloader or test_evaluator',
    build_evaluator='val_evaluator or test_evaluator',
    build_visualizer='visualizer',
    build_log_processor='log_processor',
    register_hooks='default_hooks or custom_hooks',
    set_randomness='randomness',
    setup_env='env_cfg',
    evaluate='val_evaluator or test_evaluator',
    build_from_cfg='a part',
    from_cfg='a section',
)
GENERAL = ('build_from_cfg', 'from_cfg', 'build_train_loop')
# What PyTorch says where a layer gets another shape than it takes.
MISFIT = (
    r'shapes cannot be multiplied|to have \d+ channels|must match the size of|'
    r"Kernel size can't be greater|Output size is too small"
)
# Variables that a launcher sets.
ENVIRONMENT = dict(
    SLURM_PROCID='slurm', RANK='pytorch', LOCAL_RANK='pytorch', OMPI_COMM_WORLD_LOCAL_RANK='mpi'
)
# What PyTorch says where a disk is full.
WRITE_FAILED = r'PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+'
# What is wrong with a file or folder, and what would be right.
SYSTEM_ERRORS = {
    errno.ENOSPC: 'free space on the disk, or write to another by --work-dir or --out',
    errno.EDQUOT: 'free space in your quota, or write to another disk by --work-dir or --out',
    errno.EFBIG: 'raise the limit of the size of files (ulimit -f)',
    errno.EACCES: 'change its permissions, or give another',
    errno.EPERM: 'change its permissions, or give another',
    errno.EROFS: 'give a folder that can be written to',
    errno.EISDIR: 'it is a folder, give a file',
    errno.ENOTDIR: 'a part of the path is a file, give a folder',
    errno.EEXIST: 'there is a file of this name, give another name',
    errno.ENAMETOOLONG: 'give a shorter name',
    errno.EMFILE: 'raise the limit of open files (ulimit -n), or set fewer num_workers',
}
WRAPPERS = ('ConcatDataset', 'RepeatDataset', 'ClassBalancedDataset', 'KFoldDataset')


def find_user_error(error: BaseException | None) -> str | None:
    """Find the sentence for the user in a chain of exceptions.

    Args:
        error: What was raised.

    Returns:
        The sentence; None if the error is none of the user's.
    """
    first = error
    while error is not None:
        if isinstance(error, UserError):
            # An error from a worker process has the worker's traceback before the sentence.
            text = str(error)
            marker = f'{UserError.__name__}: '
            return text.rsplit(marker, 1)[-1].strip() if 'Traceback' in text else text
        error = error.__cause__ or error.__context__
    if isinstance(first, FileNotFoundError):
        return f'a file or folder is missing: {first}'
    if isinstance(first, OSError):
        sentence = _system_error(first)
        if sentence is not None:
            return sentence
    if isinstance(first, RuntimeError) and re.search(WRITE_FAILED, str(first)):
        return (
            'a checkpoint could not be written whole: the disk is full, or a quota or a limit of '
            'the size of files is reached; free space, and continue with --resume'
        )
    if isinstance(first, RuntimeError) and 'shared memory' in str(first):
        return (
            'the data workers have no room in the shared memory (/dev/shm): give a container more '
            '(docker run --shm-size=8g), or set num_workers=0 in the data loaders'
        )
    if isinstance(first, (pickle.UnpicklingError, EOFError)):
        # Not PyTorch's advice weights_only=False, which lets a file run code.
        reason = refused_name(first)
        return f'a checkpoint cannot be read, or holds types that could run code: {reason}'
    return _config_error(first)


def _system_error(error: OSError) -> str | None:
    """The sentence for a file or folder that the system refuses."""
    remedy = SYSTEM_ERRORS.get(error.errno or 0)
    if remedy is None:
        return None
    what = error.filename if error.filename is not None else 'a file'
    return f'{what} cannot be read or written ({error.strerror}): {remedy}'


def _config_error(error: BaseException | None) -> str | None:
    """The sentence for a mistake in a config that MMEngine found while it read or built it."""
    if error is None:
        return None
    stack = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    frames = [frame.f_code for frame in stack]
    text = ' '.join(str(error.args[0] if error.args else error).split())
    where = Path(frames[-1].co_filename).parts[-3:] if frames else ()
    if isinstance(error, (KeyError, AttributeError)):
        if where == ('mmengine', 'config', 'config.py'):
            key = text.rsplit(' ', 1)[-1].strip("'")
            return f'the config has no {key}: add it, or inherit from a config that has it'
        if ' registry' in text and where[:2] == ('mmengine', 'registry'):
            said = text.split('. ', 1)[0]
            name, kind = said.split(' ', 1)[0], said.split('::')[-1].split(' ')[0]
            return f'a type in the config is not known: {said}{near_names(name, known(kind))}'
    if isinstance(error, TypeError) and any(c.co_name == 'build_from_cfg' for c in frames):
        wrong = (
            'unexpected keyword argument',
            'required positional argument',
            'required keyword-only argument',
            'multiple values for',
        )
        if any(words in text for words in wrong):
            return f'the config does not fit a class: {text.replace(".__init__()", "")}'
    if isinstance(error, TypeError) and text == 'None is not a callable object':
        for frame in reversed(stack):
            if 'optimizer_cfg' in vars(frame.f_locals.get('self', object)):
                name = frame.f_locals['self'].optimizer_cfg.get('type')
                near = near_names(str(name), known('optimizer'))
                return f'optim_wrapper.optimizer.type is {name!r}, which is not known{near}'
    if isinstance(error, RuntimeError) and text.startswith('Invalid mode "predict"'):
        return (
            "MMPretrain's self-supervised models predict nothing that could be validated or "
            'tested: remove val_dataloader, val_cfg and val_evaluator, and use KNNHook or '
            'tools/benchmark_ssl.py'
        )
    outside = re.search(r'Target (-?\d+) is out of bounds', text)
    if isinstance(error, IndexError) and outside:
        return (
            f'an image has the label {outside[1]}, for which model.head has no output: set '
            'model.head.num_classes to the number of classes of the data set (labels count from 0)'
        )
    if isinstance(error, KeyError) and where[-1:] == ('checkpoint_hook.py',):
        return (
            f'default_hooks.checkpoint.save_best is {text!r}, which is no metric of '
            'val_evaluator: take a name that the log shows, such as accuracy/top1'
        )
    if type(error) is Exception and 'Test time pip' in text:
        return (
            'the pipeline of the validation or test set rejects an image (it gives None): remove '
            'the image, or let the pipeline keep it'
        )
    # MMEngine's wrappers of data sets lack what a wrapper around them asks for.
    if isinstance(error, (AttributeError, NotImplementedError)):
        for method in ('get_subset', 'get_cat_ids'):
            inner = next(
                (name for name in WRAPPERS if f"'{name}'" in text or f'`{name}`' in text), ''
            )
            if method in text and inner:
                outer = dict(get_subset='KFoldDataset', get_cat_ids='ClassBalancedDataset')[method]
                return (
                    f'{outer} cannot wrap {inner}, which has no {method}: let it wrap a plain '
                    f'data set, and {inner} wrap the {outer}'
                )
    return _failing_part(error, stack, text)


def known(name: str) -> set[str]:
    """Names of all types of a kind, such as ``'model'``, in MMEngine's registries."""
    found: set[str] = set()
    todo = [one for one in vars(registry).values() if getattr(one, 'name', None) == name]
    while todo:
        one = todo.pop()
        found.update(one.module_dict)
        todo += one.children.values()
    return found


def _failing_part(error: BaseException, stack: list[Any], text: str) -> str | None:
    """The sentence for a value that another package refuses: it names the part of the config."""
    names = [frame.f_code.co_name for frame in stack]
    if not isinstance(error, Exception) or isinstance(error, NotImplementedError):
        return None
    missing = re.search(r'environment variable (\w+) expected', text)  # with gloo
    variable = missing[1] if missing else text if isinstance(error, KeyError) else ''
    if variable in ENVIRONMENT:
        return (
            f'--launcher {ENVIRONMENT[variable]} needs the variable {variable}, which is not set: '
            'start by tools/dist_train.sh, tools/slurm_train.sh or mpirun, or leave out --launcher'
        )
    if 'in DataLoader worker process' in text:  # the worker's traceback, and its last line
        text = str(error).strip().splitlines()[-1]
    if isinstance(error, KeyError) and text == 'inputs':
        return (
            "the pipeline gives no 'inputs', the image: begin it with dict(type="
            "'LoadImageFromFile'), and end it with dict(type='PackInputs')"
        )
    said = text if text.startswith(type(error).__name__) else f'{type(error).__name__}: {text}'
    said = said.rstrip('.')
    if isinstance(error, RuntimeError) and re.search(MISFIT, text):
        return (
            f'the layers of the model do not fit each other or the images ({said}): check '
            'in_channels of neck and head, and the size of the images'
        )
    for frame in reversed(stack):
        owner = frame.f_locals.get('self')
        if frame.f_code.co_name == 'transform' and owner is not None:
            return f'{type(owner).__name__} of the pipeline fails ({said}): check its arguments'
        if frame.f_code.co_name == 'load_data_list' and getattr(owner, 'ann_file', ''):
            return f'{owner.ann_file} cannot be read by {type(owner).__name__} ({said}): mend it'
    built = [name for name in names if name in BUILDERS]
    # The innermost, but a class is built for a section.
    section = next((name for name in reversed(built) if name not in GENERAL), (*built, None)[0])
    if section is None or isinstance(error, (MemoryError, KeyboardInterrupt)):
        return None
    return f'{BUILDERS[section]} of the config cannot be used ({said}): change it'
