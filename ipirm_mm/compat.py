"""Bridges over faults of the installed stack, each with the fault it bridges."""

from __future__ import annotations

import importlib
import importlib.metadata
import pickle
import re
from typing import Any

# Import name, least version, and the names under which PyPI has it (official first, then the
# maintained fork).
REQUIRED = (
    ('torch', '2.1', ('torch',)),
    ('torchvision', '0.16', ('torchvision',)),
    ('mmengine', '0.10.0', ('mmengine', 'onedl-mmengine')),
    ('mmcv', '2.0.0', ('mmcv-lite', 'mmcv', 'onedl-mmcv')),
    ('mmpretrain', '1.2.0', ('mmpretrain', 'onedl-mmpretrain')),
)
MEND = "pip install 'ipirm_mm[openmmlab]'"


def _version_tuple(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r'\d+', version.split('+')[0])[:3])


def check_packages() -> None:
    """Name a package that is missing or too old, and the command that mends it.

    The OpenMMLab packages are no hard requirements of this one: the official ones and their fork
    overwrite each other, so that installing one could break the set-up of a user of the other.

    Raises:
        ImportError: If a package is missing or too old.
    """
    for name, least, distributions in REQUIRED:
        found = None
        for distribution in distributions:
            try:
                found = importlib.metadata.version(distribution)
                break
            except importlib.metadata.PackageNotFoundError:
                continue
        if found is None:
            try:  # built from source under another name
                found = getattr(importlib.import_module(name), '__version__', least)
            except ImportError as error:
                raise ImportError(
                    f'ipirm_mm needs {name} >= {least}, which is not installed: run `{MEND}`'
                ) from error
        if _version_tuple(found) < _version_tuple(least):
            raise ImportError(
                f'ipirm_mm needs {name} >= {least}, but {found} is installed: '
                f'run `{MEND} --upgrade`'
            )


def apply_bridges() -> None:
    """Apply all bridges that an import can apply; done twice, it changes nothing more."""
    allow_checkpoint_types()
    mend_hue_on_numpy_2()


def allow_checkpoint_types() -> None:
    """Let ``torch.load`` read the checkpoints that MMEngine writes.

    Fault: since torch 2.6 ``torch.load`` refuses types other than tensors (``weights_only=True``),
    but MMEngine 0.10.7 saves its message hub, ``HistoryBuffer`` objects of NumPy arrays, and
    cannot load what it saved (mmengine issue 1655). Exactly what these need is allowed here.
    Loading still refuses everything else, so that no checkpoint runs code.
    """
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer

    if _version_tuple(torch.__version__) < (2, 6):
        return
    multiarray: Any = importlib.import_module(
        'numpy._core.multiarray' if hasattr(np, '_core') else 'numpy.core.multiarray'
    )
    types: list[Any] = [
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        # A buffer holds its statistics as methods, pickled as getattr(HistoryBuffer, name).
        (_getattr_of_history_buffer, 'builtins.getattr'),
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


def _getattr_of_history_buffer(owner: Any, name: str) -> Any:
    """Stand in for ``getattr`` in a checkpoint: nothing but the statistics of a buffer.

    The builtin would let a checkpoint reach anything from the types that are allowed.
    """
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(f'a checkpoint may not hold getattr({owner!r}, {name!r})')
    return getattr(HistoryBuffer, name)


def mend_hue_on_numpy_2() -> None:
    """Let ``ColorJitter`` shift hue by negative amounts.

    Fault: mmcv 2.2.0 computes ``np.uint8(hue_factor * 255)``, which NumPy 2 refuses for negative
    numbers (OverflowError), so that no stock SimCLR pipeline runs. What NumPy 1 computed is the
    value modulo 256.
    """
    import cv2
    import mmcv
    import numpy as np
    from mmcv.image import photometric
    from PIL import Image

    probe = np.zeros((1, 1, 3), np.uint8)
    try:
        photometric.adjust_hue(probe, -0.1, backend='pillow')
        return
    except OverflowError:
        pass
    original = photometric.adjust_hue

    def adjust_hue(img: np.ndarray, hue_factor: float, backend: str | None = None) -> np.ndarray:
        if not -0.5 <= hue_factor < 0 or img.ndim != 3:
            return original(img, hue_factor, backend)
        shift = np.uint8(int(hue_factor * 255) % 256)
        if (backend or photometric.imread_backend) == 'pillow':
            hue, saturation, value = Image.fromarray(img[..., ::-1]).convert('HSV').split()
            hue = Image.fromarray(np.asarray(hue) + shift)
            shifted = Image.merge('HSV', (hue, saturation, value)).convert('RGB')
            return np.array(shifted, dtype=img.dtype)[..., ::-1]
        hsv = cv2.cvtColor(img.astype(np.uint8), cv2.COLOR_BGR2HSV_FULL)
        hsv[..., 0] += shift
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR_FULL).astype(img.dtype)

    adjust_hue.__doc__ = original.__doc__
    for module in (photometric, mmcv.image, mmcv):
        module.adjust_hue = adjust_hue


def prepare_cpu_distributed(cfg: Any) -> None:
    """Start distributed training without an accelerator, over gloo.

    Fault: MMEngine's ``init_dist`` calls ``torch.cuda.set_device`` whatever the backend, and its
    default wrapper gives DDP ``device_ids``, which DDP refuses on the processor. The group is
    initialised here, before the runner, which then leaves it alone. Does nothing where there is an
    accelerator, or the launcher is not PyTorch's.

    Args:
        cfg: The config, changed in place.
    """
    import torch
    from mmengine.device import get_device
    from torch import distributed

    if cfg.get('launcher', 'none') != 'pytorch' or get_device() != 'cpu':
        return
    cfg.setdefault('env_cfg', {}).setdefault('dist_cfg', {})
    cfg.env_cfg.dist_cfg['backend'] = 'gloo'
    # An explicit wrapper bypasses the top-level option, so it has to be put inside.
    wrapper = dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    wrapper.update(cfg.get('model_wrapper_cfg') or {})
    wrapper['device_ids'] = None
    cfg.model_wrapper_cfg = wrapper
    if not distributed.is_initialized():
        if torch.multiprocessing.get_start_method(allow_none=True) is None:
            torch.multiprocessing.set_start_method('fork')
        distributed.init_process_group('gloo')
