"""Which errors are a mistake of the user, and the sentence that says so."""

from __future__ import annotations

import pickle
import re
import traceback
from pathlib import Path

from .errors import UserError
from .utils.safe_checkpoints import refused_name

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
    if isinstance(first, (pickle.UnpicklingError, EOFError)):
        # Not PyTorch's advice weights_only=False, which lets a file run code.
        reason = refused_name(first)
        return f'a checkpoint cannot be read, or holds types that could run code: {reason}'
    return _config_error(first)


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
