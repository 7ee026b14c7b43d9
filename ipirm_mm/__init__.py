"""IP-IRM for MMPretrain: self-supervised learning invariant over partitions that it finds.

Importing the package checks what is installed, bridges faults of the stack (see
:mod:`ipirm_mm.compat`) and registers everything in ``mmpretrain.registry``. In a config:

.. code-block:: python

    custom_imports = dict(imports=['ipirm_mm'], allow_failed_imports=False)
"""

from . import compat
from .version import __version__

compat.check_packages()
compat.apply_bridges()

from . import datasets, engine, evaluation, functional, models, partition, visualization  # noqa: E402

__all__ = [
    '__version__',
    'compat',
    'datasets',
    'engine',
    'evaluation',
    'functional',
    'models',
    'partition',
    'visualization',
]
