"""Check 1: packages, processors, cards, and the processes that a config would run with."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

import torch
from mmengine.device import get_device
from torch import distributed

from ipirm_mm.compat import REQUIRED
from ipirm_mm.utils import available_processors
from ipirm_mm.utils.safe_checkpoints import CAN_ALLOW_TYPES

from .findings import Findings, counted, in_units

# Functions of the installed packages that compat.py replaces where they have a fault.
BRIDGED = (
    ('mmcv.image.photometric', 'adjust_hue', 'hue on NumPy 2'),
    ('mmpretrain.structures.utils', 'format_label', 'labels of NumPy'),
    ('mmengine.dataset', 'BaseDataset._copy_without_annotation', 'copies of subsets'),
    ('mmpretrain.models', 'TwoNormDataPreprocessor.forward', 'one view of BEiT and its kind'),
    ('mmpretrain.models', 'SparK.extract_feat', 'SparK without a mask'),
    ('mmengine.runner.activation_checkpointing', 'wrap_forward', 'recomputed activations'),
    ('mmengine.hooks', 'EMAHook.before_run', 'averaged weights under test-time augmentation'),
)


def check_packages(findings: Findings) -> None:
    """Find the versions of the packages, and which of their faults are bridged.

    Args:
        findings: Gets the findings.
    """
    found = []
    for name, _, distributions in (*REQUIRED, ('numpy', '', ('numpy',))):
        installed = {}
        for one in distributions:
            try:
                installed[one] = importlib.metadata.version(one)
            except importlib.metadata.PackageNotFoundError:
                continue
        # mmcv and mmcv-lite are one project; the fork is another with the same files.
        forks = [one for one in installed if one.startswith('onedl-')]
        if forks and name != 'mmcv' and len(installed) > len(forks):
            both = ' and '.join(installed)
            findings.add(
                'error',
                'packages',
                f'{both} are both installed and overwrite each other: keep one, as by `pip '
                f'uninstall {both.replace(" and ", " ")}` and `pip install '
                "'ipirm_mm[openmmlab]'`",
            )
        version = next(iter(installed.items()), None)
        if version is None:
            module = importlib.import_module(name)
            version = (name, getattr(module, '__version__', 'of unknown version'))
        found.append(' '.join(version))
    findings.add('ok', 'packages', ', '.join(found))
    bridged = [what for module, path, what in BRIDGED if _is_ours(module, path)]
    if CAN_ALLOW_TYPES:
        bridged.append('checkpoints since torch 2.6')
    findings.add('ok', 'packages', f'their faults that are bridged: {", ".join(bridged)}')


def _is_ours(module: str, path: str) -> bool:
    """Whether a function is one that compat.py put into the place of another."""
    found: Any = importlib.import_module(module)
    for part in path.split('.'):
        found = getattr(found, part, None)
    code = getattr(found, '__code__', None)
    file = code.co_filename if code is not None else getattr(found, '__module__', '')
    return 'ipirm_mm' in str(file)


def check_machine(findings: Findings, cfg: Any, gpus: int) -> None:
    """Check processors and cards against the processes and data workers of a config.

    Args:
        findings: Gets the findings.
        cfg: The config.
        gpus: Number of processes.
    """
    cores, cards, device = available_processors(), torch.cuda.device_count(), get_device()
    names = [torch.cuda.get_device_properties(card) for card in range(cards)]
    said = ', '.join(f'{card.name} ({in_units(card.total_memory)})' for card in names)
    backend = (cfg.get('env_cfg') or {}).get('dist_cfg', {}).get('backend', 'nccl')
    if device == 'cpu':
        backend = 'gloo'  # compat.prepare_cpu_distributed
    talk = f', talking by {backend}' if gpus > 1 else ''
    findings.add(
        'ok',
        'machine',
        f'{counted(cores, "processor")}; {said or "no GPU"}; training runs on {device}, in '
        f'{counted(gpus, "process")}{talk}',
    )
    if cards and gpus > cards:
        findings.add(
            'error',
            'machine',
            f'--gpus is {gpus}, but this machine has {counted(cards, "GPU")}: give at most '
            f'{cards}, or check the setup of each of several machines',
        )
    available = dict(
        nccl=distributed.is_available() and distributed.is_nccl_available(),
        gloo=distributed.is_available() and distributed.is_gloo_available(),
        mpi=distributed.is_available() and distributed.is_mpi_available(),
    )
    if gpus > 1 and not available.get(backend, True):
        findings.add(
            'error',
            'machine',
            f'env_cfg.dist_cfg.backend is {backend}, which this PyTorch does not have: set it to '
            'gloo by --cfg-options env_cfg.dist_cfg.backend=gloo',
        )
    if not cards and gpus > cores:
        findings.add(
            'warning',
            'machine',
            f'--gpus is {gpus}, and without GPUs the processes share {cores} processors: more '
            f'than {cores} gain nothing',
        )
    loader = cfg.get('train_dataloader')
    workers = loader.get('num_workers', 0) if isinstance(loader, dict) else 0
    if isinstance(workers, int) and workers > 1 and workers * gpus > max(cores, 1):
        findings.add(
            'warning',
            'machine',
            f'train_dataloader.num_workers is {workers} for each of {gpus} process(es), on '
            f'{cores} processors: set it to {max(1, cores // gpus)} by --cfg-options '
            f'train_dataloader.num_workers={max(1, cores // gpus)}',
        )
