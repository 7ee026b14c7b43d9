"""Contrastive distillation of embeddings, with memories of all training images."""

from __future__ import annotations

import math
import os
from typing import Any

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ipirm_mm.errors import UserError
from ipirm_mm.functional import (
    ClassIndex,
    crd_constants,
    crd_index,
    crd_loss,
    index_classes,
    unit_rows,
)
from ipirm_mm.options import check_positive, check_whole

from ..utils import gather_batch
from .base import DistillationLoss
from .outputs import NetworkOutputs


@MODELS.register_module()
class CRD(DistillationLoss):
    """Contrastive representation distillation (Tian et al., 2020; report Table 4, rows "CRD").

    The report's row "with KL loss" is this loss together with ``LogitKL``. It needs
    ``custom_hooks=[dict(type='CRDMemoryHook')]``, which tells it the number of training images
    and their classes. The defaults are those of the code of Tian et al.

    Args:
        feat_dim: Width of the embeddings. Defaults to 128.
        num_negatives: Number of negatives per image. Defaults to 16384.
        temperature: Temperature. Defaults to 0.07.
        momentum: Weight of the old row when a row of a memory is updated. Defaults to 0.5.
        relax: Whether the positive is a random image of the same class. Defaults to False: the
            image itself.
        seed: Seed of the memories and of the negatives. Defaults to 0.
        loss_weight: Weight of the loss. Defaults to 0.8.
        teacher: Number of the teacher to compare with, counted from 0. Defaults to 0.

    Raises:
        UserError: If an option is out of range. Before training, if the memories do not fit into
            the device's memory, or the training set has only one class.
    """

    key = 'crd'
    allows_mixing = False

    memory_student: Tensor
    memory_teacher: Tensor
    constants: Tensor
    labels: Tensor
    steps: Tensor

    def __init__(
        self,
        feat_dim: int = 128,
        num_negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
        relax: bool = False,
        seed: int = 0,
        loss_weight: float = 0.8,
        teacher: int = 0,
    ) -> None:
        super().__init__(loss_weight, teacher)
        if not 0 <= momentum < 1:
            raise UserError(f'CRD.momentum must be in [0, 1), but is {momentum}')
        check_whole('CRD.feat_dim', feat_dim)
        check_whole('CRD.num_negatives', num_negatives)
        self.feat_dim = feat_dim
        self.num_negatives = num_negatives
        check_positive('CRD.temperature', temperature)
        self.temperature = temperature
        self.momentum = momentum
        self.relax = relax
        self.seed = seed
        self.register_buffer('memory_student', torch.zeros(0, feat_dim))
        self.register_buffer('memory_teacher', torch.zeros(0, feat_dim))
        self.register_buffer('constants', torch.zeros(2))
        self.register_buffer('labels', torch.zeros(0, dtype=torch.long))
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))
        self._classes: ClassIndex | None = None
        # Host copy of whether the constants are known, so that no step waits for the device.
        self._has_constants = False

    def build(self, student: NetworkOutputs, teachers: list[NetworkOutputs]) -> None:
        """Build the two embedding layers; see the base class."""
        super().build(student, teachers)
        self.embed_student = nn.Linear(student.feature.shape[1], self.feat_dim)
        self.embed_teacher = nn.Linear(teachers[self.teacher].feature.shape[1], self.feat_dim)

    def allocate(self, labels: Tensor) -> None:
        """Make the memories: random rows, the same on every rank.

        Args:
            labels: Class of every training image, ``(n,)``, long.

        Raises:
            UserError: If the memories do not fit into the device's memory, there is only one
                class, or there are memories of another training set.
        """
        device, n = self.steps.device, len(labels)
        if len(self.labels):
            if not torch.equal(self.labels.cpu(), labels.cpu()):
                raise UserError(
                    f'the memories of CRD are of {len(self.labels)} images, but the training set '
                    f'has {n} or other classes: resume with the data set of the checkpoint'
                )
            return
        size = 2 * n * self.feat_dim * self.memory_student.element_size()
        room = _free_memory(device)
        if size > room:
            raise UserError(
                f'the memories of CRD need {size / 2**30:.1f} GiB for {n:,} images of width '
                f'{self.feat_dim}, but {device} has {room / 2**30:.1f} GiB: lower CRD.feat_dim'
            )
        bound = math.sqrt(3 / self.feat_dim)
        generator = torch.Generator().manual_seed(self.seed)
        for name in ('memory_student', 'memory_teacher'):
            old = getattr(self, name)
            rows = torch.empty(n, self.feat_dim).uniform_(-bound, bound, generator=generator)
            setattr(self, name, rows.to(old))
        self.labels = labels.to(device)
        self._classes = None
        self._prepare()

    def _prepare(self) -> ClassIndex:
        """Sort the training images by class, once."""
        if self._classes is None or self._classes.labels.device != self.labels.device:
            if not len(self.labels):
                raise UserError(
                    'CRD does not know the training images: put '
                    "dict(type='CRDMemoryHook') into custom_hooks"
                )
            try:
                self._classes = index_classes(self.labels)
            except ValueError as error:
                raise UserError(f'CRD: {error}') from error
        return self._classes

    # A compiler would recompute the gradient in the backward pass, from memories that are updated
    # by then (https://github.com/pytorch/pytorch/pull/197039).
    @torch.compiler.disable
    def forward(
        self, student: NetworkOutputs, teachers: list[NetworkOutputs], sample_idx: Tensor | None
    ) -> Tensor:
        """Compute the loss, and update the memories in training; see the base class."""
        classes = self._prepare()
        if sample_idx is None:
            raise UserError(
                'CRD needs sample_idx of each image: let PackInputs keep it (it does by default)'
            )
        index = crd_index(
            sample_idx, classes, self.num_negatives, self.steps, self.seed, self.relax
        )
        s = unit_rows(self.embed_student(student.feature))
        t = unit_rows(self.embed_teacher(teachers[self.teacher].feature))
        memories = self.memory_student, self.memory_teacher
        if not self._has_constants:
            self._set_constants(s, t, index)
        z_student, z_teacher = self.constants
        losses = crd_loss(s, t, *memories, index, z_student, z_teacher, self.temperature)
        if self.training:
            self._update(s.detach(), t.detach(), sample_idx)
        return losses[0] + losses[1]

    @torch.no_grad()
    def _set_constants(self, student: Tensor, teacher: Tensor, index: Tensor) -> None:
        """Set the constants from the first batch of all ranks; a resumed run has them."""
        if not bool(self.constants.all()):
            local = crd_constants(
                student,
                teacher,
                self.memory_student,
                self.memory_teacher,
                index,
                self.temperature,
            )
            self.constants.copy_(gather_batch(local[None]).mean(0))
        self._has_constants = True

    @torch.no_grad()
    def _update(self, student: Tensor, teacher: Tensor, sample_idx: Tensor) -> None:
        """Update the memories by the batches of all ranks, equally on every rank."""
        everyone = gather_batch(sample_idx)
        # A sampler fills its last batch with images of earlier batches. Where an image occurs
        # twice, both write the row of its first occurrence.
        first = (everyone[:, None] == everyone).to(torch.uint8).argmax(1)
        for memory, rows in ((self.memory_student, student), (self.memory_teacher, teacher)):
            rows = gather_batch(rows)[first].to(memory.dtype)
            mixed = self.momentum * memory[everyone] + (1 - self.momentum) * rows
            memory[everyone] = unit_rows(mixed)
        self.steps += 1

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # A network under test has no training set, so the checkpoint gives the memories' size.
        saved = state_dict.get(f'{prefix}labels')
        if isinstance(saved, Tensor):
            if len(self.labels) and not torch.equal(saved.cpu(), self.labels.cpu()):
                raise UserError(
                    f'the memories of CRD in the checkpoint are of {len(saved)} images, but the '
                    f'training set has {len(self.labels)} or other classes: resume with the data '
                    'set of the checkpoint'
                )
            for name in ('memory_student', 'memory_teacher', 'labels'):
                shape = state_dict[prefix + name].shape
                if getattr(self, name).shape != shape:
                    setattr(self, name, getattr(self, name).new_zeros(shape))
            self._classes = None
            self._has_constants = False
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _free_memory(device: torch.device) -> int:
    """Bytes that a device has free (of a processor: bytes that it has)."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
