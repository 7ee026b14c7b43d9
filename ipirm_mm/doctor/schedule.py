"""Batches against the data, and schedules against the length of the training."""

from __future__ import annotations

from ipirm_mm.engine.passes import check_batches
from ipirm_mm.engine.schedules import schedule_faults
from ipirm_mm.errors import UserError

from .building import Setup
from .findings import Findings, counted


def check_schedule(setup: Setup, findings: Findings) -> None:
    """Check batch size, processes and schedules of a training.

    Args:
        setup: What was built.
        findings: Gets the findings.
    """
    if not setup.trains:
        return
    with findings.check('batches'):
        _check_batches(setup, findings)
    with findings.check('schedule'):
        steps = setup.num_steps()
        faults = list(schedule_faults(setup.cfg.get('param_scheduler'), setup.loop, steps))
        for level, text in faults:
            findings.add(level, 'schedule', text)
        if steps is not None and not faults:
            epochs = setup.loop.get('max_epochs')
            length = f'{counted(steps[0], "step")} in all, {counted(steps[1], "step")} per epoch'
            if epochs:
                length = f'{counted(epochs, "epoch")}, {length}'
            findings.add('ok', 'schedule', length)


def _check_batches(setup: Setup, findings: Findings) -> None:
    """Check the batches of all processes, and the learning rate that they are for."""
    loader = setup.loaders.get('train_dataloader')
    if loader is None:
        return
    try:
        check_batches(loader, 1)
    except UserError:
        setup.can_train = False
        raise
    check_batches(loader, setup.gpus)
    size, images = loader.batch_size, len(loader.dataset)
    if size is None:
        return
    step = size * setup.gpus
    findings.add(
        'ok',
        'batches',
        f'{counted(size, "image")} on each of {setup.gpus} process(es), {step:,} per step, of '
        f'{counted(images, "training image")}',
    )
    scale = setup.cfg.get('auto_scale_lr') or {}
    base = scale.get('base_batch_size')
    if base and base != step and not scale.get('enable'):
        findings.add(
            'warning',
            'batches',
            f'the learning rate was chosen for auto_scale_lr.base_batch_size={base} images per '
            f'step, but {setup.gpus} process(es) of {size} make {step}: train with '
            f'--auto-scale-lr, or set train_dataloader.batch_size={max(1, base // setup.gpus)}',
        )
