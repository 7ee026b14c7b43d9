"""Loading checkpoints of PyTorch, from any place, without running what a file names."""

from __future__ import annotations

import functools
import importlib
import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ipirm_mm.errors import UserError

from .safe_pickle import CheckpointPickle, statistic_of_history_buffer

# Before, PyTorch cannot be told which functions to replace in a file.
CAN_ALLOW_TYPES = tuple(int(part) for part in torch.__version__.split('.')[:2]) >= (2, 6)
_FORCE, _FORCE_NOT = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'


def allow_checkpoint_types() -> None:
    """Let ``torch.load`` read the checkpoints that MMEngine writes.

    Fault: since torch 2.6 ``torch.load`` refuses types other than tensors (``weights_only=True``),
    but MMEngine 0.10.7 saves its message hub, ``HistoryBuffer`` objects of NumPy arrays, and so
    cannot load its own checkpoints (mmengine issue 1655). This function allows exactly the types
    in such a checkpoint. Loading still refuses everything else, so no checkpoint runs code.
    """
    import numpy as np
    from mmengine.logging import HistoryBuffer

    if not CAN_ALLOW_TYPES:
        return
    multiarray: Any = importlib.import_module(
        'numpy._core.multiarray' if hasattr(np, '_core') else 'numpy.core.multiarray'
    )
    types: list[Any] = [
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        (statistic_of_history_buffer, 'builtins.getattr'),
    ]
    # A file names these functions by the module that its NumPy had.
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        types.append((multiarray._reconstruct, f'{module}._reconstruct'))
        types.append((multiarray.scalar, f'{module}.scalar'))
    for name in ('Float64', 'Float32', 'Int64', 'Int32', 'Bool'):
        dtype = getattr(getattr(np, 'dtypes', None), f'{name}DType', None)
        if dtype is not None:
            types.append(dtype)
    torch.serialization.add_safe_globals(types)


def load_checkpoints_safely() -> None:
    """Let MMEngine's ``CheckpointLoader``, by which every tool loads, run no code of a checkpoint.

    Faults: MMEngine leaves ``weights_only`` to the default of ``torch.load``, which is False
    before PyTorch 2.6, and wherever ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD`` is set. Addresses
    (``https://``) are loaded by ``torch.hub``, whose default is False in every version. And
    ``Runner.resume`` runs the text under ``meta['config']`` of a checkpoint as a Python file; no
    version of MMEngine writes it, and it is left out.
    """
    from mmengine.runner import CheckpointLoader

    if getattr(CheckpointLoader, 'runs_no_code', False):
        return
    original = CheckpointLoader.load_checkpoint

    @functools.wraps(original)
    def load_checkpoint(
        cls: Any, filename: Any, map_location: Any = None, logger: Any = 'current'
    ) -> Any:
        try:
            with _weights_only():
                content = original(str(filename), map_location, logger)
        except pickle.UnpicklingError as error:
            # Not `from error`: PyTorch advises weights_only=False, which lets a file run code.
            raise UserError(_refusal(filename, error)) from None
        if not isinstance(content, dict):
            raise UserError(
                f'{filename} is no checkpoint: it holds a {type(content).__name__}, not a dict of '
                'weights; give the file that tools/train.py saved'
            )
        meta = content.get('meta')
        if isinstance(meta, dict):
            meta.pop('config', None)
        return content

    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    CheckpointLoader.load_checkpoint = classmethod(load_checkpoint)
    CheckpointLoader.runs_no_code = True


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Load a file of ``torch.save`` that holds tensors and what MMEngine's checkpoints have.

    Args:
        filename: Path of the file.
        map_location: As for ``torch.load``. Defaults to None.

    Returns:
        What was saved.

    Raises:
        FileNotFoundError: If there is no such file.
        UserError: If it cannot be read.
        pickle.UnpicklingError: If it names a type or function that is not allowed.
    """
    path = os.path.expanduser(filename)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{path} can not be found.')
    try:
        if CAN_ALLOW_TYPES:
            return torch.load(path, map_location=map_location, weights_only=True)
        return load_restricted(path, map_location)
    except (OSError, pickle.UnpicklingError, UserError):
        raise
    except Exception as error:  # damaged bytes raise errors of many types
        reason = re.split(r'\. |\n', str(error).strip())[0] or type(error).__name__
        raise UserError(
            f'{path} cannot be read as a checkpoint ({reason}): it is damaged or of another kind; '
            'copy it again, or take an earlier one'
        ) from error


def load_restricted(path: str, map_location: Any = None) -> Any:
    """Load a file of ``torch.save`` by our own list of allowed names, in any version of PyTorch.

    Args:
        path: Path of the file.
        map_location: As for ``torch.load``. Defaults to None.

    Returns:
        What was saved.

    Raises:
        pickle.UnpicklingError: If it names a type or function that is not allowed.
    """
    with _environment(None):  # the unpickler decides, not the variable
        return torch.load(
            path, map_location=map_location, pickle_module=CheckpointPickle(), weights_only=False
        )


@contextmanager
def _weights_only() -> Iterator[None]:
    """Let every ``torch.load`` within load with ``weights_only=True``, whatever it is given."""
    with _environment('1'):
        yield


@contextmanager
def _environment(force: str | None) -> Iterator[None]:
    before = {name: os.environ.pop(name, None) for name in (_FORCE, _FORCE_NOT)}
    if force is not None:
        os.environ[_FORCE] = force
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def refused_name(error: BaseException) -> str:
    """What a refused file holds, without the advice of PyTorch that would let it run.

    Args:
        error: What the unpickler raised.

    Returns:
        The name of a type or function, or the beginning of the message.
    """
    text = str(error)
    for pattern in (r'GLOBAL ([\w.]+)', r'([\w.]+) is not allowed', r"but got <class '([\w.]+)'>"):
        found = re.search(pattern, text)
        if found:
            return found[1]
    if 'WeightsUnpickler error:' in text:
        text = text.split('WeightsUnpickler error:')[-1].strip()
    elif text.startswith('Weights only load failed'):
        text = ''
    return re.split(r'\. |\n', text)[0][:200] or type(error).__name__


def _refusal(path: Any, error: BaseException) -> str:
    return (
        f'the checkpoint {path} cannot be read, because it is damaged or could run code '
        f'({refused_name(error)}): it may hold tensors, numbers and text; take a file that '
        'tools/train.py or tools/publish_model.py wrote, or save the weights alone, '
        'torch.save(model.state_dict(), FILE)'
    )
