"""Helpers without any knowledge of the method: files, progress, safe unpickling."""

from .config_types import type_name, with_names
from .io import atomic_open, atomic_write, check_checkpoint, check_writable, why_damaged
from .machine import available_processors
from .progress import ProgressBar, duration
from .safe_pickle import safe_load

__all__ = [
    'ProgressBar',
    'atomic_open',
    'atomic_write',
    'available_processors',
    'check_checkpoint',
    'check_writable',
    'duration',
    'safe_load',
    'type_name',
    'why_damaged',
    'with_names',
]
