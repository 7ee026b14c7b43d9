"""Reading pickled tensors and numbers from a file that must not run code."""

from __future__ import annotations

import importlib
import io
import pickle
from typing import Any, BinaryIO

import torch

# The only names that a file may refer to, apart from the two that are replaced below.
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


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The object that a file names, if it is allowed."""
        if (module, name) == ('torch.storage', '_load_from_bytes'):
            return _load_storage
        if (module, name) == ('_codecs', 'encode'):
            return _encode
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f'{module}.{name} is not allowed')
        return getattr(importlib.import_module(module), name)


def _load_storage(data: bytes) -> Any:
    """Replace ``torch.storage._load_from_bytes``, which loads with ``weights_only=False``."""
    return torch.load(io.BytesIO(data), map_location='cpu', weights_only=True)


def _encode(text: str, encoding: str) -> bytes:
    """Replace ``_codecs.encode``, with which pickle writes bytes: only the encoding it uses."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'encoding {encoding}')
    return text.encode('latin1')
