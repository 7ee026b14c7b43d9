"""Reading pickled tensors and numbers from a file that must not run code."""

from __future__ import annotations

import importlib
import io
import pickle
from typing import Any, BinaryIO

import torch

from ipirm_mm.errors import UserError

# Endings of files that MMEngine reads with pickle, or with a loader of YAML that makes objects.
RUN_CODE = ('.pkl', '.pickle', '.yaml', '.yml')
# The only names that a file may refer to, apart from those that are replaced below.
_ALLOWED = {
    ('collections', 'OrderedDict'),
    ('torch._utils', '_rebuild_tensor_v2'),
    ('numpy', 'dtype'),
    ('numpy', 'ndarray'),
    # NumPy 1 and NumPy 2 write different module names.
    *(
        (f'numpy.{core}.multiarray', name)
        for core in ('core', '_core')
        for name in ('scalar', '_reconstruct')
    ),
}
# What a checkpoint of MMEngine may have besides: the logged values in its message hub, parameters
# of a module, and types and sizes of tensors.
_ALLOWED_IN_CHECKPOINTS = {
    ('mmengine.logging.logger', 'HistoryBuffer'),
    ('mmengine.logging.history_buffer', 'HistoryBuffer'),
    ('torch._utils', '_rebuild_parameter'),
    ('torch', 'Size'),
    ('torch', 'device'),
    *(
        ('torch', name)
        for name in ('float16', 'bfloat16', 'float32', 'float64', 'uint8', 'int8', 'int16')
    ),
    *(('torch', name) for name in ('int32', 'int64', 'bool')),
}


def safe_load(stream: BinaryIO) -> Any:
    """Unpickle a file that holds tensors, arrays, numbers and text, and nothing else.

    Reads what MMEngine's ``DumpResults`` writes. ``pickle.load`` would run any function that the
    file names.

    Args:
        stream: The open file.

    Returns:
        What was pickled, tensors on the CPU.

    Raises:
        pickle.UnpicklingError: If the file names a type or function that is not allowed.
        Exception: Of other types, if the bytes are no pickle.
    """
    return _RestrictedUnpickler(stream).load()


def refuse_pickled_lists(node: Any) -> None:
    """Refuse lists of images that MMEngine would unpickle, which could run code.

    Args:
        node: A config, or a part of one.

    Raises:
        UserError: If an ``ann_file`` has an ending of :data:`RUN_CODE`.
    """
    parts = node.values() if isinstance(node, dict) else node
    name = node.get('ann_file') if isinstance(node, dict) else None
    if isinstance(name, str) and name.endswith(RUN_CODE):
        raise UserError(
            f'ann_file is {name}: MMEngine reads such files in a way that could run code; write '
            'the list as .json, or as a .txt for CustomDataset'
        )
    for part in parts:
        if isinstance(part, (dict, list, tuple)):
            refuse_pickled_lists(part)


class _RestrictedUnpickler(pickle.Unpickler):
    allowed = _ALLOWED

    def find_class(self, module: str, name: str) -> Any:
        """The object that a file names, if it is allowed."""
        if (module, name) == ('torch.storage', '_load_from_bytes'):
            return _load_storage
        if (module, name) == ('_codecs', 'encode'):
            return _encode
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f'{module}.{name} is not allowed')
        return getattr(importlib.import_module(module), name)


class _CheckpointUnpickler(_RestrictedUnpickler):
    allowed = _ALLOWED | _ALLOWED_IN_CHECKPOINTS

    def find_class(self, module: str, name: str) -> Any:
        """The object that a checkpoint names, if it is allowed."""
        if (module, name) in (('builtins', 'getattr'), ('__builtin__', 'getattr')):
            return statistic_of_history_buffer
        return super().find_class(module, name)


class CheckpointPickle:
    """What ``torch.load`` takes as ``pickle_module``, with the names that a checkpoint may have.

    For versions of PyTorch before 2.6, whose ``weights_only=True`` cannot be told to allow the
    types in MMEngine's checkpoints.
    """

    __name__ = 'ipirm_mm.utils.safe_pickle'
    Unpickler = _CheckpointUnpickler

    @staticmethod
    def load(stream: BinaryIO, **kwargs: Any) -> Any:
        """Unpickle what is before the tensors in a file of PyTorch before 1.6."""
        return _CheckpointUnpickler(stream, **kwargs).load()


def statistic_of_history_buffer(owner: Any, name: str) -> Any:
    """Replace ``getattr`` in a checkpoint; it returns only the statistics of a buffer.

    A buffer holds its statistics as methods, pickled as ``getattr(HistoryBuffer, name)``. The
    builtin would let a checkpoint reach any attribute of the allowed types.

    Args:
        owner: ``HistoryBuffer``.
        name: Name of the statistic.

    Raises:
        pickle.UnpicklingError: If it is anything else.
    """
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(f'a checkpoint may not hold getattr({owner!r}, {name!r})')
    return getattr(HistoryBuffer, name)


def _load_storage(data: bytes) -> Any:
    """Replace ``torch.storage._load_from_bytes``, which loads with ``weights_only=False``."""
    return torch.load(io.BytesIO(data), map_location='cpu', weights_only=True)


def _encode(text: str, encoding: str) -> bytes:
    """Replace ``_codecs.encode``, with which pickle writes bytes: only the encoding it uses."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'encoding {encoding}')
    return text.encode('latin1')
