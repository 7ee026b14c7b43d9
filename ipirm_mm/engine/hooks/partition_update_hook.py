"""Step 2 of IP-IRM as a hook: when to look for a partition, and what to do with it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from mmengine.dataset import DefaultSampler, worker_init_fn
from mmengine.dist import broadcast, get_rank, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import FUNCTIONS
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS
from torch import Tensor
from torch.utils.data import DataLoader

from ipirm_mm.datasets import base_dataset
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import extract_features
from ipirm_mm.functional import normalized_mutual_information
from ipirm_mm.partition import PartitionResult, PartitionSolver
from ipirm_mm.utils import ProgressBar
from ipirm_mm.visualization import report_partition

from .set_epoch_hook import tell_epoch

DROPS = ('oldest', 'most_alike')


@HOOKS.register_module()
class PartitionUpdateHook(Hook):
    """Find a new partition every few epochs (report, Step 2 and Section 4.2).

    Before an epoch begins, the features of all training images, two augmented views each, are
    extracted over all ranks, one rank maximises the objective, and all keep the same partition as
    a buffer of the model, so that it is part of each checkpoint. Sizes, objective, seconds and the
    normalised mutual information with earlier partitions go to the log and to TensorBoard, and to
    ``work_dir/partitions`` as JSON with a picture of samples of each subset.

    The hook also tells the epoch to the model and, with the seed of the run, to the transforms of
    the training pipeline that ask for it (``set_epoch``).

    .. code-block:: python

        custom_hooks = [
            dict(
                type='PartitionUpdateHook',
                interval=50,
                solver=dict(strategy='local', irm_weight=0.5),
            )
        ]

    Args:
        interval: Epochs between partitions. Defaults to 50 (report).
        update_before_train: Whether to find one before the first epoch too, on the untrained
            encoder. Defaults to False (the report starts with the trivial partition); the authors'
            code does.
        max_partitions: Most partitions to find; 0 for a control without any. Defaults to None,
            no limit.
        max_kept: Most partitions to keep: 1 replaces the earlier one by each new one. Defaults to
            None, all are kept.
        drop: Which of the earlier ones goes for a new one when there are ``max_kept``:
            ``'oldest'``, or ``'most_alike'``, the one with the highest mean normalised mutual
            information with the others. Defaults to ``'oldest'``.
        draws: Draws of the augmentation that a partition is found by (the authors' code: one with
            ``--offline``, otherwise a new one for each epoch of its optimiser). Defaults to 1.
        solver: Arguments of :class:`ipirm_mm.partition.PartitionSolver`. Its ``num_subsets``,
            ``temperature``, ``irm_temperature`` and ``penalty`` are the model's unless given.
            Defaults to None.
        batch_size: Images a batch of the feature extraction. Defaults to None, which means the
            training batch.

    Raises:
        UserError: If an option is out of range; before training, if the model, the data set or the
            loop is of a kind that cannot serve.
    """

    # Before EMAHook (NORMAL) copies the model, its partitions must have their size.
    priority = 'VERY_HIGH'

    def __init__(
        self,
        interval: int = 50,
        update_before_train: bool = False,
        max_partitions: int | None = None,
        max_kept: int | None = None,
        drop: str = 'oldest',
        draws: int = 1,
        solver: dict[str, Any] | None = None,
        batch_size: int | None = None,
    ) -> None:
        for name, value in (('interval', interval), ('max_kept', max_kept), ('draws', draws)):
            if value is not None and value < 1:
                raise UserError(f'PartitionUpdateHook.{name} must be at least 1, but is {value}')
        if drop not in DROPS:
            raise UserError(f'PartitionUpdateHook.drop must be one of {DROPS}, but is {drop!r}')
        if max_partitions is not None and max_partitions < 0:
            raise UserError(
                f'PartitionUpdateHook.max_partitions must not be negative, but is {max_partitions}'
            )
        self.interval = interval
        self.update_before_train = update_before_train
        self.max_partitions = max_partitions
        self.max_kept = max_kept
        self.drop = drop
        self.draws = draws
        self.solver_cfg = dict(solver or {})
        self.batch_size = batch_size

    def _is_due(self, epoch: int) -> bool:
        return self.update_before_train if epoch == 0 else epoch % self.interval == 0

    def _due_before(self, epoch: int) -> int:
        """How many partitions are found before an epoch, so that a resumed run counts on."""
        return sum(self._is_due(earlier) for earlier in range(epoch))

    def before_run(self, runner: Runner) -> None:
        """Check the data set, build the solver, and make room for the partitions."""
        # Not `runner.train_loop`, which would build it, with its data set, in a test as well.
        if not isinstance(runner._train_loop, BaseLoop):
            return
        if isinstance(runner._train_loop, IterBasedTrainLoop):
            raise UserError(
                'PartitionUpdateHook counts epochs, but train_cfg asks for a loop of iterations: '
                'set train_cfg=dict(by_epoch=True, max_epochs=...)'
            )
        model = _unwrap(runner.model)
        if not hasattr(model, 'partitions'):
            raise UserError(
                f'PartitionUpdateHook needs an IP-IRM model, but the model is a '
                f'{type(model).__name__}: set model.type to IPIRMSimCLR or IPIRMSimSiam, or '
                'remove the hook'
            )
        num_images = len(base_dataset(runner.train_dataloader.dataset))
        num_subsets = model.partitions.num_subsets
        if num_subsets > num_images:
            raise UserError(
                f'model.num_subsets is {num_subsets}, but the training set has only '
                f'{num_images} images: a partition needs at least one image a subset'
            )
        defaults = dict(
            num_subsets=num_subsets,
            temperature=model.head.temperature,
            irm_temperature=model.head.irm_temperature,
            penalty=model.head.penalty,
        )
        self.solver = PartitionSolver(**{**defaults, **self.solver_cfg})
        if self.solver.num_subsets != num_subsets:
            raise UserError(
                f'PartitionUpdateHook.solver.num_subsets is {self.solver.num_subsets}, but '
                f'model.num_subsets is {num_subsets}: leave the former out'
            )
        room = self._due_before(runner.train_loop.max_epochs)
        for limit in (self.max_partitions, self.max_kept):
            room = room if limit is None else min(room, limit)
        model.partitions.allocate(room, num_images)

    def before_train_epoch(self, runner: Runner) -> None:
        """Tell the epoch, and find a partition if one is due."""
        model = _unwrap(runner.model)
        model.set_epoch(runner.epoch)
        tell_epoch(runner, runner.seed)
        number = self._due_before(runner.epoch) + 1
        full = self.max_partitions is not None and number > self.max_partitions
        if self._is_due(runner.epoch) and not full:
            self._update(runner, model, number)

    def _update(self, runner: Runner, model: Any, number: int) -> None:
        z1, z2, data = self._features(runner, model, number)
        assignment = torch.zeros(model.partitions.num_images, dtype=torch.uint8, device=z1.device)
        result: PartitionResult | None = None
        error = ''
        # One rank decides: the same arithmetic on another device, or in another order, can put an
        # image that lies on the border into another subset.
        if is_main_process():
            try:
                with ProgressBar(f'partition {number}: solve') as bar:
                    result = self.solver.solve(
                        z1,
                        z2,
                        seed=runner.seed + runner.epoch,
                        factor=data.get('factor'),
                        previous=model.partitions.found,
                        progress=bar,
                    )
                assignment = result.assignment.to(assignment)
            except UserError as exception:
                error = str(exception)
        failed = torch.tensor(int(bool(error)), device=z1.device)
        broadcast(failed)
        if failed:
            raise UserError(error or 'rank 0 found no partition; its message says why')
        broadcast(assignment)
        model.partitions.add(assignment, self._dropped(model.partitions.found, assignment))
        if result is not None:
            report_partition(runner, result, number, data)

    def _dropped(self, found: Tensor, assignment: Tensor) -> int | None:
        """Which of the partitions ``(P, N)`` goes for a new one; the same on every rank."""
        if self.max_kept is None or len(found) < self.max_kept:
            return None
        if self.drop == 'oldest':
            return 0
        everything = torch.cat((found, assignment[None])).cpu().long()
        alike = [
            sum(float(normalized_mutual_information(row, other)) for other in everything)
            for row in everything[:-1]
        ]
        return max(range(len(alike)), key=alike.__getitem__)

    def _features(
        self, runner: Runner, model: Any, number: int
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Projections of both views, ``(draws, N, D)`` each, and what is known of the images."""
        views = []
        for draw in range(self.draws):
            tell_epoch(runner, runner.seed + draw)
            data = extract_features(
                model,
                self._feature_dataloader(runner, draw),
                project=model.embed,
                description=f'partition {number}: features'
                + (f', draw {draw + 1}/{self.draws}' if self.draws > 1 else ''),
            )
            views.append(torch.stack(data['features']))
        tell_epoch(runner, runner.seed)
        z1, z2 = torch.stack(views, 1)
        return z1, z2, data

    def _feature_dataloader(self, runner: Runner, draw: int) -> DataLoader:
        """The training data in order, each image once, through the training pipeline."""
        train = runner.train_dataloader
        dataset = base_dataset(train.dataset)
        return DataLoader(
            dataset,
            batch_size=self.batch_size or train.batch_size,
            sampler=DefaultSampler(dataset, shuffle=False, round_up=False, seed=0),
            num_workers=train.num_workers,
            collate_fn=FUNCTIONS.get('default_collate'),
            worker_init_fn=partial(
                worker_init_fn,
                num_workers=train.num_workers,
                rank=get_rank(),
                seed=runner.seed + runner.epoch + draw,
            ),
        )


def _unwrap(model: Any) -> Any:
    return model.module if is_model_wrapper(model) else model
