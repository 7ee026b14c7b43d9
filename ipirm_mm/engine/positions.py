"""Where in an epoch a run is: saved with a checkpoint, and gone on from."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader, IterableDataset

from ipirm_mm.errors import UserError

# In the meta data of a checkpoint: batches of the epoch that are done, and how many it has.
DONE, BATCHES = 'batches_done', 'batches_per_epoch'


def batches_done(runner: Runner) -> int:
    """Batches of the epoch that begins which were done before the run was stopped."""
    return getattr(runner.train_loop, DONE, 0)


def can_stop_within_epoch(loop: Any) -> bool:
    """Whether a loop of epochs goes on within an epoch: MMEngine's, not one of its own kind."""
    return (
        isinstance(loop, EpochBasedTrainLoop)
        and type(loop).run_epoch is EpochBasedTrainLoop.run_epoch
    )


def note_position(runner: Runner, meta: dict[str, Any], batch_idx: int) -> None:
    """Note in a checkpoint that is saved after a step how much of the epoch is done.

    Args:
        runner: The runner.
        meta: Meta data of the checkpoint, changed in place.
        batch_idx: Number of the last batch of the epoch that began.
    """
    loop = runner.train_loop
    # At the end of an epoch, the checkpoint counts it; after a step, the step.
    after_step = meta['epoch'] == loop.epoch and meta['iter'] == loop.iter + 1
    if can_stop_within_epoch(loop) and after_step:
        meta.update({DONE: batch_idx + 1, BATCHES: len(loop.dataloader)})


def go_on_within_epochs() -> None:
    """Let a run go on after the last batch of its checkpoint, not at the beginning of the epoch.

    Fault: MMEngine begins the epoch again, with the numbers of iterations going on, so that the
    first batches are trained on twice, and the run ends with more steps than an undisturbed one.
    """
    load_checkpoint, run_epoch = Runner.load_checkpoint, EpochBasedTrainLoop.run_epoch
    if getattr(run_epoch, 'goes_on', False):
        return

    @functools.wraps(load_checkpoint)
    def load_checkpoint_and_position(self: Any, filename: str, *args: Any, **kwargs: Any) -> Any:
        checkpoint = load_checkpoint(self, filename, *args, **kwargs)
        if not self._resume or not isinstance(self._train_loop, EpochBasedTrainLoop):
            return checkpoint
        meta = checkpoint.get('meta', {})
        done, batches = meta.get(DONE, 0), len(self.train_loop.dataloader)
        if done and meta[BATCHES] != batches:
            raise UserError(
                f'the checkpoint {filename} was saved after {done} of the {meta[BATCHES]} batches '
                f'of an epoch, but an epoch has {batches} now: resume with the batch size, number '
                'of processes and data set of the checkpoint, or from one saved after an epoch'
            )
        setattr(self.train_loop, DONE, done)
        return checkpoint

    @functools.wraps(run_epoch)
    def run_rest_of_epoch(self: Any) -> None:
        done = getattr(self, DONE, 0)
        if not done:
            return run_epoch(self)
        batches = len(self.dataloader)
        self.runner.logger.info(f'The epoch goes on after {done} of {batches} batches')
        self.runner.call_hook('before_train_epoch')
        setattr(self, DONE, 0)
        self.runner.model.train()
        if done < batches:
            for idx, data_batch in enumerate(_batches_after(self.dataloader, done), done):
                self.run_iter(idx, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    run_rest_of_epoch.goes_on = True  # type: ignore[attr-defined]
    Runner.load_checkpoint = load_checkpoint_and_position
    EpochBasedTrainLoop.run_epoch = run_rest_of_epoch


def _batches_after(loader: DataLoader, done: int) -> Iterable[Any]:
    """The batches of an epoch without the first ones, whose images are not loaded."""
    if loader.batch_sampler is None or isinstance(loader.dataset, IterableDataset):
        return islice(loader, done, None)
    # DataLoader refuses a new batch sampler, because its other settings may not fit. Here they do.
    object.__setattr__(loader, 'batch_sampler', _SkippingOnce(loader.batch_sampler, done))
    return loader


class _SkippingOnce:
    """A batch sampler that leaves out its first batches in its first pass.

    Args:
        batches: The batch sampler.
        count: How many are left out.
    """

    def __init__(self, batches: Any, count: int) -> None:
        self.batches = batches
        self.count = count

    def __getattr__(self, name: str) -> Any:
        if name == 'batches':  # not yet there, in a copy
            raise AttributeError(name)
        return getattr(self.batches, name)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        # Counted when the first batch is asked for: loaders also make iterators they never use.
        count, self.count = self.count, 0
        yield from islice(self.batches, count, None)
