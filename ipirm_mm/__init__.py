"""IP-IRM for MMPretrain: self-supervised learning that is invariant over partitions it finds.

IP-IRM (Iterative Partition-based Invariant Risk Minimisation) is the method of Wang et al.,
"Self-Supervised Learning Disentangled Group Representation as Feature" (NeurIPS 2021,
arXiv 2110.15255, code Wangt-CN/IP-IRM). "The report" in this package is another text: the
technical report of an entry to the image classification track of the VIPriors challenge (Visual
Inductive Priors for Data-Efficient Computer Vision) with 71.62 % on the test split. It pre-trains
by IP-IRM (Stage I), and then distils (Stage II).

Importing the package checks which packages are installed, works around their faults (see
:mod:`ipirm_mm.compat`), registers everything in ``mmpretrain.registry``, and makes its models
known to ``mmpretrain.list_models`` and ``mmpretrain.get_model``. In a config:

.. code-block:: python

    custom_imports = dict(imports=['ipirm_mm'], allow_failed_imports=False)
"""

from . import compat
from .version import __version__

compat.check_packages()
compat.apply_bridges()

from . import (  # noqa: E402
    datasets,
    engine,
    evaluation,
    functional,
    models,
    partition,
    resources,
    visualization,
)

resources.register_models()

__all__ = [
    '__version__',
    'compat',
    'datasets',
    'engine',
    'evaluation',
    'functional',
    'models',
    'partition',
    'resources',
    'visualization',
]
