"""IP-IRM for MMPretrain: self-supervised learning that is invariant over partitions it finds.

IP-IRM (Iterative Partition-based Invariant Risk Minimization) is the method of Wang et al.,
"Self-Supervised Learning Disentangled Group Representation as Feature" (NeurIPS 2021,
arXiv 2110.15255, code Wangt-CN/IP-IRM). "The report" in this package is another text: the
technical report of an entry to the image classification track of the VIPriors challenge (Visual
Inductive Priors for Data-Efficient Computer Vision) with 71.62 % on the test split. It pre-trains
by IP-IRM (Stage I), and then distills (Stage II).

Importing the package checks which packages are installed, works around their faults (see
:mod:`ipirm_mm.compat`), registers everything in ``mmpretrain.registry``, and makes its models
known to ``mmpretrain.list_models`` and ``mmpretrain.get_model``. Where MMEngine is not installed,
only :mod:`ipirm_mm.functional` and :mod:`ipirm_mm.partition` can be used. In a config:

.. code-block:: python

    custom_imports = dict(imports=['ipirm_mm'], allow_failed_imports=False)
"""

import importlib.util
import warnings

from . import compat, functional, partition
from .version import __version__

__all__ = ['__version__', 'compat', 'functional', 'partition']

# Without MMEngine there is nothing to register in, but the method works on tensors:
# `ipirm_mm.functional` and `ipirm_mm.partition` need PyTorch only.
if importlib.util.find_spec('mmengine') is not None:
    compat.check_packages()
    with warnings.catch_warnings():
        # mmcv-lite says at its import that it lacks operators. Nothing here uses them.
        warnings.filterwarnings('ignore', 'Fail to import', UserWarning)
        compat.apply_bridges()

        from . import apis, datasets, engine, evaluation, models, resources, visualization
        from .apis import distill, predict, pretrain

    engine.apply_bridges()
    resources.register_models()
    __all__ += ['apis', 'datasets', 'engine', 'evaluation', 'models', 'resources']
    __all__ += ['visualization', 'distill', 'predict', 'pretrain']
