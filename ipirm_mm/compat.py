"""Workarounds for faults of the installed packages; each function names the fault it mends."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import UserError
from .resources import SCOPE, find_by_basename, find_config

# Import name, lowest version that works, and the names on PyPI (official first, then the
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
    """Check that the required packages are installed and new enough.

    The OpenMMLab packages are optional requirements (extras). The official ones and their fork
    overwrite each other, so a hard requirement on one could break an environment with the other.

    Raises:
        ImportError: If a package is missing or too old. The message names it, and the command to
            run.
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
    """Apply all workarounds that need no config. A second call changes nothing more."""
    from .utils.safe_checkpoints import allow_checkpoint_types, load_checkpoints_safely

    allow_checkpoint_types()
    load_checkpoints_safely()
    mend_hue_on_numpy_2()
    accept_numpy_labels()
    copy_each_subset_afresh()
    resolve_own_config_names()
    recompute_activations_with_gradient()
    preprocess_one_view_of_two_norms()
    encode_without_masks()
    average_the_model_of_views()


def mend_hue_on_numpy_2() -> None:
    """Let ``ColorJitter`` shift hue by negative amounts.

    Fault: mmcv 2.2.0 computes ``np.uint8(hue_factor * 255)``. NumPy 2 refuses negative numbers
    there (OverflowError), so no stock SimCLR pipeline runs. NumPy 1 took the value modulo 256,
    and so does this function.
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


def accept_numpy_labels() -> None:
    """Let data sets give the class of an image as an integer of NumPy.

    Fault: ``format_label`` of MMPretrain takes Python integers and arrays, but raises TypeError
    for ``numpy.int64``, which an item of an array of labels is. For names of classes and
    fractions it gets one sentence.
    """
    import numpy as np
    from mmpretrain.structures import data_sample, utils

    original = utils.format_label
    if getattr(original, 'takes_numpy', False):
        return

    @functools.wraps(original)
    def format_label(value: Any) -> Any:
        try:
            return original(int(value) if isinstance(value, np.integer) else value)
        except TypeError as error:
            raise UserError(
                f'gt_label is {value!r}, but labels are numbers of classes: an integer, or a list '
                'of integers. Let the data set give the number of the class'
            ) from error

    format_label.takes_numpy = True  # type: ignore[attr-defined]
    for module in (utils, data_sample):
        module.format_label = format_label


def resolve_own_config_names() -> None:
    """Let ``_base_`` and ``Config.fromfile`` take names such as ``ipirm_mm::ipirm_simclr_r50.py``.

    Fault: MMEngine has such names for its own projects only. ``_get_package_and_cfg_path`` looks
    the package up in a fixed list, and wants a slash in the name; ``get_installed_path`` needs
    ``pkg_resources``, which setuptools 82 removed; ``Config.fromfile`` takes no such name at all.

    See :func:`ipirm_mm.resources.find_config` for the names. A base that moved within this package
    gets its sentence, too.
    """
    from mmengine.config import Config

    if getattr(Config.fromfile, 'knows_ipirm_mm', False):
        return
    fromfile, get_cfg_path = Config.fromfile, Config._get_cfg_path

    @functools.wraps(fromfile)
    def fromfile_or_name(filename: Any, *args: Any, **kwargs: Any) -> Any:
        if str(filename).startswith(f'{SCOPE}::'):
            filename = find_config(str(filename))
        return fromfile(filename, *args, **kwargs)

    @functools.wraps(get_cfg_path)
    def get_cfg_path_or_name(cfg_path: str, filename: str) -> tuple[str, str | None]:
        if cfg_path.startswith(f'{SCOPE}::'):
            return find_config(cfg_path), None  # our bases name a default scope themselves
        path, scope = get_cfg_path(cfg_path, filename)
        moved = None if os.path.isfile(path) else find_by_basename(path)
        if moved:
            raise UserError(
                f'{filename} inherits from {cfg_path}, which is not there: the config of this '
                f'name is {SCOPE}::{moved}'
            )
        return path, scope

    fromfile_or_name.knows_ipirm_mm = True  # type: ignore[attr-defined]
    Config.fromfile = staticmethod(fromfile_or_name)
    Config._get_cfg_path = staticmethod(get_cfg_path_or_name)


def recompute_activations_with_gradient() -> None:
    """Let ``activation_checkpointing`` keep gradients, and averaged models their own weights.

    Faults: MMEngine's ``turn_on_activation_checkpointing`` takes PyTorch's reentrant variant,
    which runs the first pass without gradient. What a hook records within it, such as the features
    that OFD compares, then has none: the loss is right and its gradient never arrives. A module
    whose inputs need no gradient (the backbone itself) is not trained at all. The other variant,
    which PyTorch recommends, has neither fault and gives the same numbers. Besides, the copy of a
    network that ``EMAHook`` makes went on to call the layers of the original.
    """
    from mmengine.runner import activation_checkpointing

    activation_checkpointing.wrap_forward = RecomputedForward


class RecomputedForward:
    """A module's ``forward`` whose activations are recomputed in the backward pass.

    A deep copy of the module has that of the copy.

    Args:
        forward: The method.
    """

    def __init__(self, forward: Any) -> None:
        self.forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the method."""
        from torch.utils.checkpoint import checkpoint

        return checkpoint(self.forward, *args, use_reentrant=False, **kwargs)


def preprocess_one_view_of_two_norms() -> None:
    """Let ``TwoNormDataPreprocessor`` take one view of each image, as features need it.

    Fault: the preprocessor of BEiT, BEiT v2, CAE and iTPN takes any batch for the pair of image
    and target. Of a tensor ``(B, C, H, W)`` it keeps the first two images, three rows of each. One
    view is the image, and gets the first normalization.
    """
    from mmpretrain.models.utils import SelfSupDataPreprocessor, TwoNormDataPreprocessor

    original = TwoNormDataPreprocessor.forward
    if getattr(original, 'takes_one_view', False):
        return

    @functools.wraps(original)
    def forward(self: Any, data: dict, training: bool = False) -> Any:
        one_view = not isinstance(data['inputs'], (list, tuple))
        # `cast_data` of the original also moves the batch to the device.
        method = SelfSupDataPreprocessor.forward if one_view else original
        return method(self, data, training)

    forward.takes_one_view = True  # type: ignore[attr-defined]
    TwoNormDataPreprocessor.forward = forward


def encode_without_masks() -> None:
    """Let ``extract_feat`` of MFF and SparK encode whole images.

    Faults: without a mask ``MFFViT`` calls ``MAEViT`` without saying so, which draws one; the last
    of the "features" are the numbers of the patches. SparK sees its images through the mask of the
    last training batch, a global variable; before the first batch it cannot encode any.
    """
    from mmpretrain.models import MFFViT, SparK, VisionTransformer

    original = MFFViT.forward
    if getattr(original, 'sees_whole_images', False):
        return

    @functools.wraps(original)
    def forward(self: Any, x: Any, mask: bool | None = True) -> Any:
        return VisionTransformer.forward(self, x) if mask is None else original(self, x, mask)

    def extract_feat(self: Any, inputs: Any) -> Any:
        """Extract the features of whole images."""
        with all_positions_active(inputs):
            return self.backbone(inputs)

    forward.sees_whole_images = True  # type: ignore[attr-defined]
    MFFViT.forward = forward
    SparK.extract_feat = extract_feat


@contextmanager
def all_positions_active(images: Any) -> Iterator[None]:
    """Let a sparse backbone (SparK) see whole images; afterwards its mask is as before.

    Args:
        images: Images, ``(B, C, H, W)``.
    """
    import torch
    from mmpretrain.models.utils.sparse_modules import SparseHelper

    before = SparseHelper._cur_active
    SparseHelper._cur_active = images.new_ones(len(images), 1, 1, 1, dtype=torch.bool)
    try:
        yield
    finally:
        SparseHelper._cur_active = before


def copy_each_subset_afresh() -> None:
    """Let ``BaseDataset.get_subset``, and so ``KFoldDataset``, copy each data set by itself.

    Fault: MMEngine's ``_copy_without_annotation`` keeps the memory of ``copy.deepcopy`` from one
    call to the next (a mutable default argument). A later copy then gets what an earlier one made
    of an object at the same address: a second subset shares its pipeline with the first, and
    where a data set was freed, a transform can become that data set (TypeError: 'CustomDataset'
    object is not callable).
    """
    from mmengine.dataset import BaseDataset

    original = BaseDataset._copy_without_annotation
    if not isinstance((original.__defaults__ or (None,))[0], dict):
        return

    @functools.wraps(original)
    def _copy_without_annotation(self: Any, memo: dict[int, Any] | None = None) -> Any:
        return original(self, {} if memo is None else memo)

    BaseDataset._copy_without_annotation = _copy_without_annotation


def average_the_model_of_views() -> None:
    """Let ``EMAHook`` find the classifier within a model of test-time augmentation.

    Fault: the hook averages, and tests, the weights of the whole model. With test-time
    augmentation these are the classifier's under other names: none of the checkpoint's fits, and
    an average of random weights is tested, without a word.
    """
    from mmengine.hooks import EMAHook
    from mmengine.model import BaseTTAModel, is_model_wrapper

    original = EMAHook.before_run
    if getattr(original, 'finds_classifier', False):
        return

    @functools.wraps(original)
    def before_run(self: Any, runner: Any) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not isinstance(model, BaseTTAModel):
            return original(self, runner)
        runner.model, views = model.module, runner.model
        try:
            original(self, runner)
        finally:
            runner.model = views

    before_run.finds_classifier = True  # type: ignore[attr-defined]
    EMAHook.before_run = before_run


def prepare_cpu_distributed(cfg: Any) -> None:
    """Start distributed training without an accelerator, over gloo.

    Fault: MMEngine's ``init_dist`` calls ``torch.cuda.set_device`` for every backend, and its
    default wrapper passes ``device_ids`` to DDP, which DDP refuses on the CPU. This function
    initializes the process group before the runner does; the runner then keeps it. It does nothing
    if there is an accelerator, or if the launcher is not PyTorch's.

    Args:
        cfg: The config of the run. It is changed in place.
    """
    import torch
    from mmengine.device import get_device
    from torch import distributed

    if cfg.get('launcher', 'none') != 'pytorch' or get_device() != 'cpu':
        return
    cfg.setdefault('env_cfg', {}).setdefault('dist_cfg', {})
    cfg.env_cfg.dist_cfg['backend'] = 'gloo'
    # MMEngine ignores the top-level find_unused_parameters if there is a wrapper config.
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
