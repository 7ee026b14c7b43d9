"""How long a training will take, from the time of a step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from mmengine.runner import BaseLoop

from ipirm_mm.engine import KNNHook
from ipirm_mm.utils import available_processors, duration

from .building import Setup, first_batch
from .findings import Findings, counted

# Images of the problem on which Step 2 is timed; its cost on more is extrapolated.
TRIED = 512
CLUSTERS = 20


def say_time(setup: Setup, findings: Findings, seconds: float, partitions: int) -> None:
    """Estimate the hours of a training from the seconds of a step.

    Args:
        setup: What was built, after a training has begun.
        findings: Gets the estimate.
        seconds: Seconds per step.
        partitions: Number of partitions that the training will find.
    """
    steps = setup.num_steps()
    passes = len(setup.loaders['train_dataloader'].dataset) / setup.images_per_step
    loading = loading_seconds(setup)
    # The batches of the first steps were loaded before these.
    bound = f' (the data workers need that; the step itself {seconds:.3f} s)'
    bound = bound if loading > seconds else ''
    seconds = max(seconds, loading)
    parts: dict[str, float] = {}
    if steps is not None:
        parts['steps'] = steps[0] * seconds
    if partitions:
        hook = setup.partition_hooks[0]
        # Features need no backward pass: a step is an upper bound of a batch.
        features = hook.num_augmentations * passes * seconds
        parts[counted(partitions, 'partition')] = partitions * (features + solve_seconds(setup))
    for value, name in _evaluations(setup, findings, seconds):
        parts[name] = parts.get(name, 0.0) + value
    total = sum(parts.values())
    shares = ', '.join(f'{name} {duration(value)}' for name, value in parts.items())
    findings.add(
        'ok',
        'time',
        f'{seconds:.3f} s per step{bound}, timed on one process; about {duration(total)} in all '
        f'on {setup.gpus} process(es) ({shares})',
    )


def loading_seconds(setup: Setup) -> float:
    """Seconds in which the data workers of a process load a batch; 0 if there are none.

    Args:
        setup: What was built, after its images have been read.
    """
    loader = setup.loaders['train_dataloader']
    workers = min(loader.num_workers, max(1, available_processors() // setup.gpus))
    return (loader.batch_size or 1) * setup.image_seconds / workers if workers else 0.0


def _evaluations(setup: Setup, findings: Findings, seconds: float) -> Iterator[tuple[float, str]]:
    """Seconds of all evaluations of a kind during the training, and its name."""
    runner, end = setup.runner, setup.loop
    steps = setup.num_steps()
    if steps is None:
        return
    epochs = end.get('max_epochs') or steps[0] / steps[1]
    for hook in runner.hooks:
        if isinstance(hook, KNNHook):
            by_epoch = hook.by_epoch if hook.by_epoch is not None else 'max_epochs' in end
            times = math.ceil((epochs if by_epoch else steps[0]) / hook.interval)
            loaders = [one for name, one in setup.loaders.items() if name.startswith('KNNHook')]
            # An image costs no more than one of a training step.
            images = sum(len(one.dataset) for one in loaders)
            yield times * images * seconds / setup.images_per_step, 'k-NN'
    if isinstance(runner._val_loop, BaseLoop) and 'val_dataloader' in setup.loaders:
        length = epochs if 'max_epochs' in end else steps[0]
        batches = len(setup.loaders['val_dataloader']) / setup.gpus
        times = math.ceil(length / end.get('val_interval', 1))
        one = []
        with findings.check('validation'):
            one.append(_validation_seconds(setup))
        for value in one:
            yield times * batches * value, 'validation'


def _validation_seconds(setup: Setup) -> float:
    """Seconds of a batch of the validation, which is tried once."""
    runner = setup.runner
    loop = runner.val_loop
    runner.model.eval()
    batch = first_batch(loop.dataloader)
    with torch.no_grad():
        began = time.perf_counter()
        outputs = runner.model.val_step(batch)
        loop.evaluator.process(data_samples=outputs, data_batch=batch)
        return time.perf_counter() - began


def solve_seconds(setup: Setup) -> float:
    """Seconds of Step 2 on all images, extrapolated from few that lie in clusters.

    The similarities within a block grow with the square of its images, but most of the time goes
    into searches whose steps do not: in all it grows about as the number of images.

    Args:
        setup: What was built, after a training has begun.
    """
    hook, model = setup.partition_hooks[0], setup.model
    solver, images = hook.solver, model.partitions.num_images
    tried = min(images, TRIED)
    width = (setup.cfg.model.get('neck') or {}).get('out_channels') or 128
    generator = torch.Generator().manual_seed(0)
    clusters = torch.arange(tried) % CLUSTERS
    centers = 2 * torch.randn(CLUSTERS, width, generator=generator)
    views = torch.randn(2, tried, width, generator=generator) + centers[clusters]
    z1, z2 = F.normalize(views, dim=2).to(next(model.parameters()).device)
    began = time.perf_counter()
    solver.solve(z1, z2, factor=clusters % solver.num_subsets)
    return (time.perf_counter() - began) * images / tried
