"""Step 2 of IP-IRM as a hook: when to find a partition, and what to do with it."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.functional import normalized_mutual_information
from ipirm_mm.models import IPIRMSimCLRMixUp
from ipirm_mm.options import check_one_of, check_whole
from ipirm_mm.partition import PartitionSet, PartitionSolver
from ipirm_mm.utils import ProgressBar
from ipirm_mm.utils.deprecation import renamed_arguments
from ipirm_mm.visualization import report_partition

from ..averaging import refresh_averaged, sync_averaged, unwrap
from ..checkpoints import adapt_partitions
from ..partition_features import partition_features
from ..passes import (
    broadcast_epoch,
    check_steps,
    counts_iterations,
    current_pass,
    is_training,
    passes_before,
    prepare_images,
)
from ..positions import DONE, batches_done
from ..waiting import SharedWork

REPLACED = ('oldest', 'most_similar')


@HOOKS.register_module()
class PartitionUpdateHook(Hook):
    """Find a new partition every few epochs (report, Step 2 and Section 4.2).

    Before an epoch (or iteration) begins, all ranks extract the projections of all training
    images, two augmented views each. The ranks share the search out, and all store its result as a
    buffer of the model, so every checkpoint has it. Sizes, objective, seconds and the normalized
    mutual information (NMI) with earlier partitions go to the log and to TensorBoard, and to
    ``work_dir/partitions`` as a JSON file with a picture of sample images of each subset.

    The hook also passes epoch and seed of the run on to the model, and to the transforms of the
    training pipeline that have ``set_epoch``.

    .. code-block:: python

        custom_hooks = [
            dict(
                type='PartitionUpdateHook',
                interval=50,
                solver=dict(strategy='local', irm_weight=0.5),
            )
        ]

    Args:
        interval: Number of epochs between partitions; without ``by_epoch``, of iterations.
            Defaults to 50 (report).
        update_before_train: Whether to find a partition before the first epoch too, from the
            untrained encoder, as the code of Wang et al. does. Defaults to False: the report
            starts with the trivial partition.
        max_partitions: Maximum number of partitions to find; 0 for a control without partitions.
            Defaults to None: no limit.
        max_partitions_kept: Maximum number of partitions to keep. With 1, each new partition
            replaces the one before. Defaults to None: all are kept.
        replace: Which earlier partition a new one replaces once there are ``max_partitions_kept``:
            ``'oldest'``, or ``'most_similar'``, the one with the highest mean NMI with all others
            and the new one. Defaults to ``'oldest'``.
        num_augmentations: Number of augmentations per image from which a partition is found. (The
            code of Wang et al. uses one with ``--offline``, otherwise a new one per epoch of its
            optimizer.) Defaults to 1.
        solver: Arguments of :class:`ipirm_mm.partition.PartitionSolver`. ``num_subsets``,
            ``temperature``, ``irm_temperature`` and ``penalty`` are those of the model unless
            given. Defaults to None.
        batch_size: Number of images per batch when features are extracted. Defaults to None: that
            of the training.
        by_epoch: Whether ``interval`` counts epochs; in a loop of iterations, an epoch is a pass
            over the training data. Defaults to None: what the training loop counts.
        keep_loaded: What becomes of the partitions in a checkpoint that is not resumed but loaded
            (``load_from``): with False, the schedule starts without partitions; with True, they
            are kept if they divide as many images as the training set has. Defaults to False.
        mixup: Whether to mix the first views from which a partition is found, as Step 1 does with
            MixUp; for :class:`~ipirm_mm.models.IPIRMSimCLRMixUp`, and the strategies ``'local'``
            and ``'authors'``. Each augmentation has its own partners. Defaults to False, as in the
            command of Wang et al. for STL10; theirs for CIFAR-100 mixes.

    Raises:
        UserError: If an option is out of range. Before training, if the model has no partitions,
            ``sample_idx`` may stand for several images, or no step would be made. When a
            partition is found, if the solver refuses the features.
    """

    # Before EMAHook (NORMAL) copies the model, its partitions must have their size.
    priority = 'VERY_HIGH'

    @renamed_arguments(
        max_kept='max_partitions_kept',
        drop='replace',
        draws='num_augmentations',
        values=dict(replace=dict(most_alike='most_similar')),
    )
    def __init__(
        self,
        interval: int = 50,
        update_before_train: bool = False,
        max_partitions: int | None = None,
        max_partitions_kept: int | None = None,
        replace: str = 'oldest',
        num_augmentations: int = 1,
        solver: dict[str, Any] | None = None,
        batch_size: int | None = None,
        by_epoch: bool | None = None,
        keep_loaded: bool = False,
        mixup: bool = False,
    ) -> None:
        for name, value, least in (
            ('interval', interval, 1),
            ('max_partitions', max_partitions, 0),
            ('max_partitions_kept', max_partitions_kept, 1),
            ('num_augmentations', num_augmentations, 1),
            ('batch_size', batch_size, 1),
        ):
            if value is not None or name in ('interval', 'num_augmentations'):
                check_whole(f'PartitionUpdateHook.{name}', value, least)
        check_one_of('PartitionUpdateHook.replace', replace, REPLACED)
        self.interval = interval
        self.update_before_train = update_before_train
        self.max_partitions = max_partitions
        self.max_partitions_kept = max_partitions_kept
        self.replace = replace
        self.num_augmentations = num_augmentations
        self.solver_cfg = dict(solver or {})
        self.batch_size = batch_size
        self.by_epoch = by_epoch
        self.keep_loaded = keep_loaded
        # Epochs or iterations before which a partition is found; from `before_run` on.
        self.due: list[int] = []
        self.mixup = mixup

    def _is_due(self, time: int) -> bool:
        return self.update_before_train if time == 0 else time % self.interval == 0

    def schedule(self, runner: Runner) -> list[int]:
        """Epochs before which a partition is found, or iterations (see :meth:`_now`).

        Args:
            runner: The runner, whose training loop is built if it is not.
        """
        loop = runner.train_loop
        if not counts_iterations(runner) and self.by_epoch is not False:
            return [epoch for epoch in range(loop.max_epochs) if self._is_due(epoch)]
        if not self.by_epoch:
            return [i for i in range(loop.max_iters) if self._is_due(i)]
        # Before the first iteration in which a pass has been completed that is due; one iteration
        # completes several passes if there are fewer images than a batch.
        due, seen = [], -1
        for iteration in range(loop.max_iters):
            passes = passes_before(runner, iteration)
            if any(self._is_due(number) for number in range(seen + 1, passes + 1)):
                due.append(iteration)
            seen = passes
        return due

    def count(self, kept: int | None = None) -> int:
        """Number of partitions that the schedule will find, known before training begins.

        Args:
            kept: Count at most so many. Defaults to None: all.
        """
        limits = [limit for limit in (self.max_partitions, kept) if limit is not None]
        return min([len(self.due), *limits])

    def _now(self, runner: Runner) -> int:
        return runner.iter if self._counts_iterations else runner.epoch

    def before_run(self, runner: Runner) -> None:
        """Check the data set, build the solver, and make room for the partitions."""
        if not is_training(runner):
            return
        model = unwrap(runner.model)
        if not hasattr(model, 'partitions'):
            raise UserError(
                f'PartitionUpdateHook needs an IP-IRM model, but the model is a '
                f'{type(model).__name__}: set model.type to one, such as IPIRMSimCLR, or '
                'remove the hook'
            )
        numbers = prepare_images(runner)
        numbers.check_unique()
        num_images = numbers.num_images
        num_subsets = model.partitions.num_subsets
        if num_subsets > num_images:
            raise UserError(
                f'model.num_subsets is {num_subsets}, but the training set has only '
                f'{num_images} images: a partition needs at least one image per subset'
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
                f'model.num_subsets is {num_subsets}: remove the former'
            )
        if self.mixup:
            _check_mixup(model, self.solver.strategy)
        if counts_iterations(runner) and self.by_epoch is None:
            self.by_epoch = False
        self._counts_iterations = counts_iterations(runner) or self.by_epoch is False
        self.due = self.schedule(runner)
        model.partitions.allocate(self.count(self.max_partitions_kept), num_images)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Drop or keep the partitions of a checkpoint, before the model loads it."""
        if not is_training(runner):
            return
        found = None  # by the schedule until then, if it is resumed
        if runner._resume:
            meta = checkpoint.get('meta', {})
            now = meta.get('iter' if self._counts_iterations else 'epoch', 0)
            if not self._counts_iterations and meta.get(DONE, 0):
                now += 1  # saved within an epoch, before which a partition was found
            found = bisect_left(self.due, now)
            if self.max_partitions is not None:
                found = min(found, self.max_partitions)
        line = adapt_partitions(
            checkpoint,
            unwrap(runner.model).partitions,
            found,
            self.keep_loaded,
            self.max_partitions_kept,
        )
        if line:
            runner.logger.info(line)

    def before_train(self, runner: Runner) -> None:
        """Check that there is something to train."""
        check_steps(runner)
        refresh_averaged(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the partitions of averaged models up to date."""
        sync_averaged(runner, PartitionSet)

    def before_train_epoch(self, runner: Runner) -> None:
        """Pass the epoch on, and find a partition if one is due."""
        model = unwrap(runner.model)
        model.set_epoch(current_pass(runner), runner.seed)
        broadcast_epoch(runner)
        # Within an epoch that goes on, the checkpoint has the partition.
        if not self._counts_iterations and not batches_done(runner):
            self._update_if_due(runner, model)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None
    ) -> None:
        """In a loop or schedule of iterations, find a partition if one is due.

        Args:
            runner: The runner.
            batch_idx: Not used.
            data_batch: Not used.
        """
        if not self._counts_iterations:
            return
        model = unwrap(runner.model)
        model.set_epoch(current_pass(runner), runner.seed)
        self._update_if_due(runner, model)

    def _update_if_due(self, runner: Runner, model: Any) -> None:
        position = bisect_left(self.due, self._now(runner))
        full = self.max_partitions is not None and position >= self.max_partitions
        if position < len(self.due) and self.due[position] == self._now(runner) and not full:
            self._update(runner, model, position + 1)

    def _update(self, runner: Runner, model: Any, number: int) -> None:
        z1, z2, data, mixing = partition_features(
            runner,
            model,
            number,
            self._now(runner),
            self.num_augmentations,
            self.batch_size,
            self.mixup,
        )
        assignment = torch.zeros(model.partitions.num_images, dtype=torch.uint8, device=z1.device)
        # Images that the pipeline rejects have no features, and stay in subset 0.
        index = data['sample_idx']
        if len(index) < len(assignment):
            runner.logger.warning(
                f'Partition {number} is found from {len(index)} of {len(assignment)} images; the '
                'others count as subset 0, should the pipeline accept them later'
            )
        # The ranks share the search out, and all get all results: the same arithmetic on another
        # device, or in another order, can put a borderline image into another subset.
        with ProgressBar(f'partition {number}: solve') as bar:
            result = self.solver.solve(
                z1,
                z2,
                seed=runner.seed + self._now(runner),
                factor=data.get('factor'),
                previous=model.partitions.found[:, index.to(model.partitions.found.device)],
                progress=bar,
                mixing=mixing,
                share=SharedWork(z1.device),
            )
        assignment[index] = result.assignment.to(assignment)
        model.partitions.add(assignment, self._replaced(model.partitions.found, assignment))
        if is_main_process():
            time = f'iteration {runner.iter + 1}' if self._counts_iterations else None
            report_partition(runner, result, number, data, time)

    def _replaced(self, found: Tensor, assignment: Tensor) -> int | None:
        """Index of the partition of ``(P, N)`` that a new one replaces, equal on every rank."""
        if self.max_partitions_kept is None or len(found) < self.max_partitions_kept:
            return None
        if self.replace == 'oldest':
            return 0
        everything = torch.cat((found, assignment[None])).cpu().long()
        similarity = [
            sum(float(normalized_mutual_information(row, other)) for other in everything)
            for row in everything[:-1]
        ]
        return max(range(len(similarity)), key=similarity.__getitem__)


def _check_mixup(model: Any, strategy: str) -> None:
    """Check that partitions can be found from mixed views."""
    if not isinstance(model, IPIRMSimCLRMixUp):
        raise UserError(
            'PartitionUpdateHook.mixup=True needs a model that is trained with MixUp, but the '
            f'model is a {type(model).__name__}: set model.type to IPIRMSimCLRMixUp, or remove '
            'mixup'
        )
    if strategy not in ('local', 'authors'):
        raise UserError(
            f'PartitionUpdateHook.mixup=True has no effect with solver.strategy={strategy!r}, '
            "which does not use the objective: set it to 'local' or 'authors', or remove mixup"
        )
