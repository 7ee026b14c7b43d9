"""Averaged models (``EMAHook``), which must not average what counts or looks up."""

from __future__ import annotations

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn


def unwrap(model: Any) -> Any:
    """The model within a wrapper for distributed training."""
    return model.module if is_model_wrapper(model) else model


def averaged_models(runner: Runner) -> list[nn.Module]:
    """The averaged copies of the model that hooks keep."""
    copies = [getattr(hook, 'ema_model', None) for hook in runner.hooks]
    return [copy.module for copy in copies if copy is not None]


def sync_averaged(runner: Runner, kind: type[nn.Module]) -> None:
    """Copy the buffers of modules of a class into the averaged copies of the model.

    Fault: with ``update_buffers=True``, MMEngine's averaged models leave buffers of integers as
    they were in the first step (a checkpoint would have the partitions of then), and average
    floating-point ones, also memories of images.

    Args:
        runner: The runner.
        kind: Class of the modules.
    """
    own = dict(unwrap(runner.model).named_modules())
    for averaged in averaged_models(runner):
        for name, module in averaged.named_modules():
            if isinstance(module, kind):
                buffers = dict(own[name].named_buffers())
                for key, buffer in module.named_buffers():
                    if buffer.shape == buffers[key].shape:
                        buffer.copy_(buffers[key])


def refresh_averaged(runner: Runner) -> None:
    """Let averaged models update the buffers that they have after a checkpoint was loaded.

    Fault: with ``update_buffers=True``, MMEngine's averaged models keep the buffers that they were
    built with, and modules that take the size of a checkpoint have replaced some of them.

    Args:
        runner: The runner.
    """
    for hook in runner.hooks:
        averaged = getattr(hook, 'ema_model', None)
        if averaged is not None and averaged.update_buffers:
            averaged.avg_parameters = averaged.module.state_dict()
