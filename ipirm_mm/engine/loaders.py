"""Options of data loaders that PyTorch accepts when a loader is built, and fails on later."""

from __future__ import annotations

import functools
from typing import Any

from mmengine.runner import Runner

from ipirm_mm.errors import UserError


def check_workers() -> None:
    """Let ``Runner.build_dataloader`` refuse a number of workers that is no whole number.

    Fault: ``DataLoader`` takes ``num_workers=1.5``, and the first batch ends in a traceback.
    """
    original = Runner.build_dataloader
    if getattr(original, 'checks_workers', False):
        return

    @functools.wraps(original)
    def build_dataloader(dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(dataloader, dict):
            workers = dataloader.get('num_workers', 0)
            whole = isinstance(workers, int) and not isinstance(workers, bool)
            if not whole or workers < 0:
                dataset = dataloader.get('dataset')
                name = dataset.get('type') if isinstance(dataset, dict) else type(dataset).__name__
                raise UserError(
                    f'num_workers of the data loader of {name} is {workers!r}, but must be a '
                    'whole number from 0 on: set train_dataloader.num_workers (or that of '
                    'val_dataloader or test_dataloader) to one, such as 2'
                )
        return original(dataloader, *args, **kwargs)

    build_dataloader.checks_workers = True  # type: ignore[attr-defined]
    Runner.build_dataloader = staticmethod(build_dataloader)
