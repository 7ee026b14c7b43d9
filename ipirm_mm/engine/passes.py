"""How often a run has passed its training data, in loops of epochs and of iterations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import get_world_size
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import DataLoader

from ipirm_mm.datasets import (
    ImageNumbers,
    SeenIndex,
    check_slice,
    number_images,
    tell_epoch,
)
from ipirm_mm.errors import UserError


def is_training(runner: Runner) -> bool:
    """Whether a run trains."""
    # Not `runner.train_loop`: that would build the loop, with its data set, in a test too.
    return isinstance(runner._train_loop, BaseLoop)


def counts_iterations(runner: Runner) -> bool:
    """Whether the training loop counts iterations."""
    return isinstance(runner._train_loop, IterBasedTrainLoop)


class PassSampler:
    """A sampler that says with each index how often the data was passed before.

    Data workers load some batches in advance, so the number of the iteration does not tell them
    which pass a batch is of.

    Args:
        sampler: The sampler of a data loader.
        size: Number of items of the data set.
        by_epoch: Whether the loop counts epochs, which tells the pass.
    """

    def __init__(self, sampler: Any, size: int, by_epoch: bool) -> None:
        self.sampler = sampler
        self.size = size
        self.by_epoch = by_epoch
        self.passes = 0

    def __getattr__(self, name: str) -> Any:
        if name == 'sampler':  # not yet there, in a copy
            raise AttributeError(name)
        return getattr(self.sampler, name)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        passes, self.passes = self.passes, self.passes + 1
        rank, world = getattr(self.sampler, 'rank', 0), getattr(self.sampler, 'world_size', 1)
        repeats = getattr(self.sampler, 'num_repeats', 1)
        endless = isinstance(self.sampler, InfiniteSampler)
        seen: Counter[int] = Counter()
        for count, index in enumerate(self.sampler):
            position = rank + count * world
            number = position // self.size if endless else passes
            repeat = position % repeats
            if not shows_once(self.sampler) and repeats == 1:
                repeat = seen[index]
                seen[index] += 1
            yield SeenIndex(index, None if self.by_epoch else number, repeat)


def shows_once(sampler: Any) -> bool:
    """Whether a sampler shows each item once per pass.

    Others, such as weighted ones, may show one several times, each time with draws of its own.
    (What a sampler repeats so that all ranks have the same number, other ranks do not count.)
    """
    return type(sampler) in (DefaultSampler, InfiniteSampler)


def prepare_images(runner: Runner) -> ImageNumbers:
    """Number the training images, and tell seeded transforms seed and pass of the run.

    Under a loop of epochs :func:`broadcast_epoch` tells the pass before each epoch. Under a loop
    of iterations each index has it. A second call does nothing more.

    Args:
        runner: The runner, whose training loop is built.

    Returns:
        The numbers of the training images.
    """
    loop = runner.train_loop
    loader: DataLoader = loop.dataloader
    numbers = number_images(loader.dataset)
    batches = loader.batch_sampler
    sampler: Any = getattr(batches, 'sampler', None)
    if sampler is None or isinstance(sampler, PassSampler):
        return numbers
    by_epoch = not counts_iterations(runner)
    if by_epoch and shows_once(sampler):
        return numbers
    batches.sampler = PassSampler(sampler, len(loader.dataset), by_epoch)  # type: ignore
    if not by_epoch:
        broadcast_epoch(runner)
        # The loop's iterator exists since it was built, and its workers already load.
        loader._iterator = None
        if isinstance(sampler, InfiniteSampler):
            sampler.indices = sampler._indices_of_rank()
        with torch.random.fork_rng(devices=[]):  # the initial weights are drawn afterwards
            loop.dataloader_iterator = _InfiniteDataloaderIterator(loader)
    return numbers


def _sampler(loader: DataLoader) -> Any:
    """The sampler of a loader, as its config names it."""
    sampler = getattr(loader.batch_sampler, 'sampler', getattr(loader, 'sampler', None))
    return sampler.sampler if isinstance(sampler, PassSampler) else sampler


def passes_before(runner: Runner, iteration: int) -> int:
    """Number of passes over the data that a run completes before an iteration."""
    loader = runner.train_dataloader
    if isinstance(_sampler(loader), InfiniteSampler) and loader.batch_size is not None:
        return iteration * loader.batch_size * get_world_size() // len(loader.dataset)
    return iteration // max(1, len(loader))


def current_pass(runner: Runner) -> int:
    """Number of passes before the current iteration; in a loop of epochs, the epoch."""
    return passes_before(runner, runner.iter) if counts_iterations(runner) else runner.epoch


def broadcast_epoch(runner: Runner, draw: int = 0) -> None:
    """Pass epoch and seed of a run on to the transforms of its training pipeline.

    Args:
        runner: The runner.
        draw: Number of the augmentation within the epoch. Defaults to 0, that of the training.
    """
    tell_epoch(runner.train_dataloader.dataset, current_pass(runner), runner.seed, draw)


def check_steps(runner: Runner) -> None:
    """Check that a training that is about to begin makes at least one step, and ends.

    Raises:
        UserError: If it makes none, or an epoch would never end.
    """
    loop = runner.train_loop
    loader = loop.dataloader
    if isinstance(_sampler(loader), InfiniteSampler) and not counts_iterations(runner):
        raise UserError(
            'the first epoch would never end: train_dataloader.sampler is InfiniteSampler, which '
            'gives images without end, and train_cfg counts epochs: use DefaultSampler, or '
            'train_cfg=dict(by_epoch=False, max_iters=...)'
        )
    check_batches(loader, get_world_size())
    if counts_iterations(runner):
        done, end, name = loop.iter, loop.max_iters, 'max_iters'
    else:
        done, end, name = loop.epoch, loop.max_epochs, 'max_epochs'
    check_end(done, end, name)


def check_batches(loader: Any, world: int) -> None:
    """Check that a training loader gives each process a whole batch.

    Args:
        loader: The data loader, of this process.
        world: Number of processes.

    Raises:
        UserError: If there are too few images.
    """
    check_slice(loader.dataset)
    message = no_step_message(len(loader.dataset), loader.batch_size, loader.drop_last, world)
    endless = isinstance(_sampler(loader), InfiniteSampler)
    if len(loader.dataset) == 0 or ((message or len(loader) == 0) and not endless):
        raise UserError(message or 'train_dataloader gives no batch: nothing would be trained')
    batch_size = loader.batch_size
    own = -(-len(loader.dataset) // world)
    if batch_size is not None and batch_size > own and not endless:
        raise UserError(
            f'train_dataloader.batch_size is {batch_size}, but there are only {own} training '
            f'images for each of {world} process(es): set it to at most {own}'
        )


def say_lost_gradients(runner: Runner) -> None:
    """Warn if a run is resumed between two steps of an optimizer that accumulates gradients.

    Fault: MMEngine's checkpoints do not have the gradients of ``accumulative_counts`` that wait
    for their step, and the first step after a resume goes on without them.

    Args:
        runner: The runner, about to train.
    """
    counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    lost = runner.iter % counts
    if lost:
        runner.logger.warning(
            f'The checkpoint was saved after {runner.iter} iterations, {lost} after the last step '
            f'of optim_wrapper.accumulative_counts={counts}: their gradients are lost, and the '
            f'run will not be that without an interruption. Save after a multiple of {counts} '
            'iterations'
        )


def check_end(done: int, end: int, name: str) -> None:
    """Check that a training has not reached its end before it begins.

    Args:
        done: Epochs or iterations that are done.
        end: Epochs or iterations to do.
        name: Name of the option for the latter.

    Raises:
        UserError: If nothing is left.
    """
    if end <= 0:
        raise UserError(f'train_cfg.{name} must be at least 1, but is {end}')
    if done >= end:
        raise UserError(
            f'nothing is left to train: the checkpoint was saved after {done} of '
            f'train_cfg.{name}={end}: raise it, or leave out --resume'
        )


def no_step_message(
    images: int, batch_size: int | None, drop_last: bool, world: int = 1
) -> str | None:
    """Why a data loader would give no batch on some rank; None if it gives one.

    Args:
        images: Number of images of the data set.
        batch_size: Number of images per batch and process; None if a batch sampler decides.
        drop_last: Whether an incomplete batch is left out.
        world: Number of processes. Defaults to 1.
    """
    if images == 0:
        return 'the training set is empty: check train_dataloader.dataset'
    own = -(-images // world)
    if not drop_last or batch_size is None or own >= batch_size:
        return None
    processes = f' on each of {world} processes' if world > 1 else ''
    return (
        f'train_dataloader.batch_size is {batch_size}, but there are only {own} training images'
        f'{processes}, and drop_last leaves out an incomplete batch, so that no step would be '
        f'made: set train_dataloader.batch_size to at most {own}, or train_dataloader.drop_last='
        'False'
    )
