"""What MMEngine and PyTorch do wrong when a data loader is built."""

from __future__ import annotations

import functools
from typing import Any

from mmengine.dataset import DefaultSampler
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ipirm_mm.errors import UserError

from .workers import mend_workers


def mend_loaders() -> None:
    """Mend what ``Runner.build_dataloader`` makes: the faults of this file and of ``workers``."""
    original = Runner.build_dataloader
    if getattr(original, 'is_mended', False):
        return

    @functools.wraps(original)
    def build_dataloader(dataloader: Any, *args: Any, **kwargs: Any) -> DataLoader:
        if isinstance(dataloader, dict):
            _check_workers(dataloader)
        loader = original(dataloader, *args, **kwargs)
        _drop_as_one_process(loader)
        mend_workers(loader)
        return loader

    build_dataloader.is_mended = True  # type: ignore[attr-defined]
    Runner.build_dataloader = staticmethod(build_dataloader)


def _check_workers(options: dict[str, Any]) -> None:
    """Refuse a number of workers that is no whole number.

    Fault: ``DataLoader`` takes ``num_workers=1.5``, and the first batch ends in a traceback.
    """
    workers = options.get('num_workers', 0)
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 0:
        dataset = options.get('dataset')
        name = dataset.get('type') if isinstance(dataset, dict) else type(dataset).__name__
        raise UserError(
            f'num_workers of the data loader of {name} is {workers!r}, but must be a '
            'whole number from 0 on: set train_dataloader.num_workers (or that of '
            'val_dataloader or test_dataloader) to one, such as 2'
        )


def _drop_as_one_process(loader: Any) -> None:
    """Let ``drop_last`` leave out the same images on any number of processes.

    Fault: MMEngine's ``DefaultSampler`` repeats images until all ranks have the same number, and
    each rank then drops its own incomplete batch. Where repeated images complete a batch, an epoch
    has one step more than on one process.
    """
    sampler = loader.sampler
    if loader.drop_last and type(sampler) is DefaultSampler:
        batches = len(loader.dataset) // (loader.batch_size * sampler.world_size)
        if 0 < batches < len(loader):
            sampler.num_samples = batches * loader.batch_size
            sampler.total_size = sampler.num_samples * sampler.world_size
