"""The set of partitions, stored as buffers of the model that is trained with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ipirm_mm.errors import UserError
from ipirm_mm.options import check_whole

# A partition takes one byte per image.
MAX_SUBSETS = 256


class PartitionSet(nn.Module):
    r"""The partitions found so far (the report's :math:`\mathcal{P}`).

    The trivial partition, with all images in one subset, is not stored: it is the loss over the
    whole batch. The partitions are buffers, so that checkpoints, resumed runs, EMA and
    ``deepcopy`` include them:

    * ``assignments``: ``(capacity, N)`` uint8, the subset of each image;
    * ``count``: number of partitions in use, long scalar;
    * ``num_subsets_saved``: *K*, long scalar, to refuse a checkpoint with another *K*.

    A new set has capacity 0. :meth:`allocate` makes room once the data set is known. A set of
    capacity 0 that loads a checkpoint (to test, or to extract features) takes the size of the
    saved set.

    Args:
        num_subsets: Number of subsets *K* of each partition, 2 to 256. Defaults to 2.

    Raises:
        UserError: If ``num_subsets`` is out of range.
    """

    assignments: Tensor
    count: Tensor
    num_subsets_saved: Tensor

    def __init__(self, num_subsets: int = 2) -> None:
        super().__init__()
        # One subset is the trivial partition, which is always part of the loss.
        check_whole('num_subsets', num_subsets, 2, MAX_SUBSETS)
        self.num_subsets = num_subsets
        # Copy of `count` on the CPU, so that a training step does not wait for the GPU.
        self._count = 0
        self.register_buffer('assignments', torch.zeros(0, 0, dtype=torch.uint8))
        self.register_buffer('count', torch.zeros((), dtype=torch.long))
        self.register_buffer('num_subsets_saved', torch.tensor(num_subsets))

    def __len__(self) -> int:
        """Number of partitions found so far."""
        return self._count

    @property
    def capacity(self) -> int:
        """Maximum number of partitions."""
        return self.assignments.shape[0]

    @property
    def num_images(self) -> int:
        """Number of images that each partition divides; 0 before :meth:`allocate`."""
        return self.assignments.shape[1]

    @property
    def found(self) -> Tensor:
        """The partitions found so far, ``(P, N)`` uint8."""
        return self.assignments[: self._count]

    def allocate(self, capacity: int, num_images: int) -> None:
        """Make room for partitions; those found so far stay.

        Args:
            capacity: Maximum number of partitions.
            num_images: Number of training images *N*.

        Raises:
            UserError: If the set has partitions of another number of images.
        """
        if self._count and num_images != self.num_images:
            raise UserError(_length_message(self.num_images, num_images))
        if self.assignments.shape == (max(capacity, self._count), num_images):
            return  # averaged models hold on to the tensor
        room = self.assignments.new_zeros(max(capacity, self._count), num_images)
        if self._count:
            room[: self._count] = self.found
        self.assignments = room

    def add(self, assignment: Tensor, removed_index: int | None = None) -> None:
        """Add a partition at the end; the first one is the oldest.

        Args:
            assignment: Subset of each image, ``(N,)``, integers in ``[0, num_subsets)``; the same
                on every rank.
            removed_index: Index of a partition to remove first. Defaults to None: remove none.

        Raises:
            ValueError: If the set is full, the length is wrong, or a subset or the partition to
                remove does not exist.
        """
        if removed_index is not None and not 0 <= removed_index < self._count:
            raise ValueError(
                f'there is no partition {removed_index} to remove: there are {self._count}'
            )
        if removed_index is None and self._count == self.capacity:
            raise ValueError(f'no room for another partition: capacity is {self.capacity}')
        if tuple(assignment.shape) != (self.num_images,):
            raise ValueError(
                f'assignment must be ({self.num_images},), but is {tuple(assignment.shape)}'
            )
        low, high = int(assignment.min()), int(assignment.max())
        if low < 0 or high >= self.num_subsets:
            raise ValueError(
                f'assignment must be in [0, {self.num_subsets}), but has values {low} to {high}'
            )
        if removed_index is not None:
            later = self.found[removed_index + 1 :].clone()
            self.assignments[removed_index : self._count - 1] = later
            self._count -= 1
        self.assignments[self._count] = assignment.to(self.assignments)
        self._count += 1
        self.count.fill_(self._count)

    # torch.compile would recompile the model for each number of partitions.
    @torch.compiler.disable
    def of(self, sample_idx: Tensor) -> Tensor:
        """Subsets of the images of a batch.

        Args:
            sample_idx: Indices of the images in the training set, ``(B,)`` long.

        Returns:
            ``(P, B)`` long.
        """
        if not self._count:
            return sample_idx.new_zeros(0, len(sample_idx))
        return self.found[:, sample_idx.to(self.assignments.device)].long()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # The runner loads with strict=False, which turns a mismatch into a warning, and training
        # would continue without its partitions. So a mismatch raises an error here.
        saved = state_dict.get(prefix + 'assignments')
        if saved is not None:
            count = int(state_dict[prefix + 'count'])
            num_subsets = int(state_dict[prefix + 'num_subsets_saved'])
            if num_subsets != self.num_subsets:
                raise UserError(
                    f'the checkpoint holds partitions into {num_subsets} subsets, but the config '
                    f'asks for num_subsets={self.num_subsets}: set model.num_subsets={num_subsets}'
                )
            if not 0 <= count <= saved.shape[0] or (
                count and int(saved[:count].max()) >= num_subsets
            ):
                raise UserError(
                    'the partitions in the checkpoint are damaged: resume from an earlier '
                    'checkpoint, or train again in another --work-dir'
                )
            if self.num_images and saved.shape[1] and saved.shape[1] != self.num_images:
                raise UserError(_length_message(saved.shape[1], self.num_images))
            self._count = 0
            if saved.shape[1]:
                # A run that was started with partitions has room for them and its own.
                found = saved[:count].to(self.assignments, copy=True)
                self.allocate(max(self.capacity, saved.shape[0]), saved.shape[1])
                self.assignments.zero_()
                self.assignments[:count] = found
            self._count = count
            state_dict = {**state_dict, prefix + 'assignments': self.assignments}
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _length_message(saved: int, now: int) -> str:
    return (
        f'the partitions in the checkpoint divide {saved} images, but the training set has {now}: '
        'resume with the data set of the first run, or train again in another --work-dir'
    )
