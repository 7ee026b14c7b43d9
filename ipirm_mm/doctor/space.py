"""Check 5: room for what a run writes, on the disk and in shared memory."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import EMAHook
from torch import Tensor

from ipirm_mm.engine.hooks.partition_update_hook import PartitionUpdateHook
from ipirm_mm.visualization import partition_grid

from .building import Setup, work_dir_of
from .findings import Findings, counted, in_units

SHARED = '/dev/shm'
# Data workers of PyTorch load so many batches in advance.
PREFETCHED = 2


def check_space(setup: Setup, findings: Findings) -> None:
    """Check permissions and room in the work folder, and shared memory.

    Args:
        setup: What was built.
        findings: Gets the findings.
    """
    folder = work_dir_of(setup.cfg)
    with findings.check('disk'):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if not existing.is_dir():
            findings.add(
                'error',
                'disk',
                f'work_dir is {folder}, but {existing} is a file: give a folder by --cfg-options '
                'work_dir=FOLDER',
            )
        elif _can_write(existing, findings) and setup.trains:
            _check_disk(setup, findings, existing)
    with findings.check('/dev/shm'):
        _check_shared(setup, findings)


def _can_write(folder: Path, findings: Findings) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:  # it has no name, and leaves nothing
            stream.write(b'0')
        return True
    except OSError as error:
        findings.add(
            'error',
            'disk',
            f'nothing can be written to {folder} ({error.strerror}), where work_dir is: change '
            'its permissions, or give another folder by --cfg-options work_dir=FOLDER',
        )
        return False


def _check_disk(setup: Setup, findings: Findings, folder: Path) -> None:
    """Compare free space with what the run will write at most."""
    free = shutil.disk_usage(folder).free
    if setup.model is None:
        findings.add('ok', 'disk', f'{in_units(free)} free; without a model its need is unknown')
        return
    size, kept = checkpoint_bytes(setup), kept_checkpoints(setup)
    pictures = picture_bytes(setup)
    need = size * kept + pictures
    text = (
        f'{in_units(free)} free in {folder}; the run writes up to {in_units(need)}: '
        f'{counted(kept, "checkpoint")} of {in_units(size)}'
        + (f', pictures of partitions {in_units(pictures)}' if pictures else '')
    )
    if need > free:
        findings.add(
            'error',
            'disk',
            f'{text}: free space, write to another disk by --cfg-options work_dir=FOLDER, or '
            'keep fewer by default_hooks.checkpoint.max_keep_ckpts=1',
        )
    else:
        findings.add('ok', 'disk', text)


def checkpoint_bytes(setup: Setup) -> int:
    """Size of a checkpoint: weights, averaged weights, state of the optimizer, partitions.

    Args:
        setup: What was built.
    """
    model = setup.model
    weights = _bytes(list(model.state_dict().values()))
    trained = _bytes([weight for weight in model.parameters() if weight.requires_grad])
    averaged = sum(isinstance(hook, EMAHook) for hook in setup.runner.hooks)
    loader = setup.loaders.get('train_dataloader')
    images = 0 if loader is None else len(loader.dataset)
    kept = 0
    for hook in setup.partition_hooks:
        planned(hook, setup)
        kept += hook.count(hook.max_partitions_kept)
    partitions = kept * images  # a byte each
    return int((weights + partitions) * (1 + averaged) + trained * setup.optimizer_states)


def planned(hook: PartitionUpdateHook, setup: Setup) -> int:
    """Number of partitions that a training will find; 0 if its data cannot be loaded.

    Args:
        hook: The hook that finds them.
        setup: What was built.
    """
    if not hook.due and setup.can_train:
        hook.due = hook.schedule(setup.runner)
    return hook.count()


def kept_checkpoints(setup: Setup) -> int:
    """Number of checkpoints on the disk at one time: those kept, the best, and one being written.

    Args:
        setup: What was built.
    """
    steps = setup.num_steps()
    total = 0
    for hook in setup.checkpoint_hooks:
        end = setup.loop.get('max_epochs') if hook.by_epoch else (steps or (0,))[0]
        made = math.ceil((end or 1) / hook.interval) if hook.interval > 0 else 1
        limit = getattr(hook, 'max_keep_ckpts', -1)
        best = getattr(hook, 'save_best', None)
        best = [best] if isinstance(best, str) else best or []
        total += min(made, limit + 1 if limit > 0 else made) + len(best)
    return total


def picture_bytes(setup: Setup) -> int:
    """Size of the pictures of partitions if nothing of them could be compressed.

    Each is written twice, as a file and for TensorBoard.

    Args:
        setup: What was built.
    """
    if not setup.partition_hooks:
        return 0
    subsets = setup.model.partitions.num_subsets
    black = [np.zeros((1, 1, 3), np.uint8)] * subsets
    one = partition_grid(black, torch.arange(subsets)).nbytes
    return 2 * one * sum(planned(hook, setup) for hook in setup.partition_hooks)


def _check_shared(setup: Setup, findings: Findings) -> None:
    """Compare shared memory with the batches that data workers hold there."""
    loader: Any = setup.loaders.get('train_dataloader')
    if loader is None or not os.path.isdir(SHARED):
        return
    workers = loader.num_workers
    if not workers:
        findings.add('ok', SHARED, 'not used: the train loader has no workers')
        return
    batch = setup.sample_bytes * (loader.batch_size or 1)
    prefetched = loader.prefetch_factor or PREFETCHED
    need = batch * prefetched * workers * setup.gpus
    free = shutil.disk_usage(SHARED).free
    text = (
        f'{in_units(free)} free; {workers} workers of {setup.gpus} process(es), with {prefetched} '
        f'batches of {in_units(batch)} each, take up to {in_units(need)}'
    )
    if need > free:
        findings.add(
            'error',
            SHARED,
            f'{text}: start the container with more (docker run --shm-size), or set '
            f'train_dataloader.num_workers={max(0, int(workers * free / need))}',
        )
    else:
        findings.add('ok', SHARED, text)


def _bytes(tensors: list[Any]) -> int:
    return sum(one.numel() * one.element_size() for one in tensors if isinstance(one, Tensor))
