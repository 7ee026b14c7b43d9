"""Which errors are a mistake of the user, and the sentence that says so."""

from __future__ import annotations

import errno
import pickle
import re
import traceback
from pathlib import Path

from .errors import UserError
from .utils.safe_checkpoints import refused_name

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
    frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    text = ' '.join(str(error.args[0] if error.args else error).split())
    where = Path(frames[-1].co_filename).parts[-3:] if frames else ()
    if isinstance(error, (KeyError, AttributeError)):
        if where == ('mmengine', 'config', 'config.py'):
            key = text.rsplit(' ', 1)[-1].strip("'")
            return f'the config has no {key}: add it, or inherit from a config that has it'
        if ' registry' in text and where[:2] == ('mmengine', 'registry'):
            return f'a type in the config is not known: {text.split(". ", 1)[0]}'
    if isinstance(error, TypeError) and any(c.co_name == 'build_from_cfg' for c in frames):
        wrong = (
            'unexpected keyword argument',
            'required positional argument',
            'required keyword-only argument',
            'multiple values for',
        )
        if any(words in text for words in wrong):
            return f'the config does not fit a class: {text.replace(".__init__()", "")}'
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
    return None
