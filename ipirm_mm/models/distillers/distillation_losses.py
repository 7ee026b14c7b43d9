"""Distillation losses as modules: what of student and teacher they compare, and by which map."""

from __future__ import annotations

import math
import os
from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ipirm_mm.errors import UserError
from ipirm_mm.functional import (
    ClassIndex,
    crd_constants,
    crd_index,
    crd_loss,
    gather_batch,
    index_classes,
    kl_divergence,
    mean_teacher_logits,
    ofd_distance,
    ofd_margin,
)

from ..heads.base_ipirm_head import unit_rows
from .connectors import PointwiseConv
from .taps import find_stages


@dataclass
class Responses:
    """How a network responds to a batch.

    Attributes:
        logits: ``(N, C)``; None if it is no classifier.
        feature: Pooled feature before the classifier, ``(N, D)``.
        stages: Features before the last activation of each stage, ``(N, C_i, H_i, W_i)``; empty
            unless a loss asks for them.
    """

    logits: Tensor | None
    feature: Tensor
    stages: list[Tensor]


class DistillationLoss(BaseModule, metaclass=ABCMeta):
    """Base of the losses of a :class:`DistillingClassifier`.

    Args:
        loss_weight: Weight of the loss (report Eq. 5, beta). Defaults to 1.
        teacher: Which of several teachers it compares with. Defaults to 0, the first.

    Raises:
        UserError: If an option is out of range.
    """

    # Its name in the log, as loss_<key>.
    key = ''
    # Whether it needs `Responses.stages`.
    reads_stages = False
    # Whether it can compare mixed images, whose label is mixed as well.
    allows_mixing = True

    def __init__(self, loss_weight: float = 1.0, teacher: int = 0) -> None:
        super().__init__()
        if loss_weight < 0:
            raise UserError(
                f'{type(self).__name__}.loss_weight must not be negative, but is {loss_weight}'
            )
        self.loss_weight = loss_weight
        self.teacher = teacher

    def build(self, student: Responses, teachers: list[Responses]) -> None:
        """Make what depends on shapes, and check that they can be compared.

        Args:
            student: Responses of the student to a dry run.
            teachers: Those of each teacher.

        Raises:
            UserError: If they cannot be compared.
        """
        if not 0 <= self.teacher < len(teachers):
            raise UserError(
                f'{type(self).__name__}.teacher must be from 0 to {len(teachers) - 1}, but is '
                f'{self.teacher}'
            )

    def teacher_loaded(self, teacher: nn.Module) -> None:
        """Take what is needed from the weights of its teacher; called after they are loaded."""

    @abstractmethod
    def forward(
        self, student: Responses, teachers: list[Responses], sample_idx: Tensor | None
    ) -> Tensor:
        """Loss of a batch, a scalar, without its weight.

        Args:
            student: Responses of the student.
            teachers: Those of each teacher, without gradient.
            sample_idx: Indices of the images in the training set, ``(N,)``; None if unknown.
        """


@MODELS.register_module()
class LogitKL(DistillationLoss):
    """Divergence of the classes' probabilities (report Eq. 4; Table 4, "KL loss, Logits").

    Of several teachers it takes the mean of their probabilities.

    Args:
        temperature: Temperature. Defaults to 1; the report does not give it.
        loss_weight: Weight. Defaults to 1.

    Raises:
        UserError: If an option is out of range, or the classes of a teacher are others.
    """

    key = 'kl'

    def __init__(self, temperature: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        self.temperature = _positive(self, 'temperature', temperature)

    def build(self, student: Responses, teachers: list[Responses]) -> None:
        """Check the classes."""
        assert student.logits is not None
        for number, teacher in enumerate(teachers):
            if teacher.logits is None:
                raise UserError(
                    f'LogitKL needs classes, but teacher {number} is an encoder without a '
                    'classifier: fine-tune it first, or use FeatureKL, OFD or CRD'
                )
            if teacher.logits.shape != student.logits.shape:
                raise UserError(
                    f'teacher {number} has {teacher.logits.shape[1]} classes, but the student '
                    f'{student.logits.shape[1]}: LogitKL needs the same classes'
                )

    def forward(
        self, student: Responses, teachers: list[Responses], sample_idx: Tensor | None = None
    ) -> Tensor:
        """See the base class."""
        logits = [teacher.logits for teacher in teachers if teacher.logits is not None]
        assert student.logits is not None
        return kl_divergence(
            student.logits, mean_teacher_logits(logits, self.temperature), self.temperature
        )


@MODELS.register_module()
class FeatureKL(DistillationLoss):
    """The same divergence of pooled features (report Table 4, "KL loss, Feature").

    Where widths differ, a linear map takes the student's features to the teacher's.

    Args:
        temperature: Temperature. Defaults to 1; the report does not give it.
        loss_weight: Weight. Defaults to 1.
        teacher: Which of several teachers. Defaults to 0.

    Raises:
        UserError: If an option is out of range.
    """

    key = 'feature_kl'

    def __init__(
        self, temperature: float = 1.0, loss_weight: float = 1.0, teacher: int = 0
    ) -> None:
        super().__init__(loss_weight, teacher)
        self.temperature = _positive(self, 'temperature', temperature)
        self.connector: nn.Module = nn.Identity()

    def build(self, student: Responses, teachers: list[Responses]) -> None:
        """Make the linear map."""
        super().build(student, teachers)
        narrow, wide = student.feature.shape[1], teachers[self.teacher].feature.shape[1]
        if narrow != wide:
            self.connector = nn.Linear(narrow, wide)

    def forward(
        self, student: Responses, teachers: list[Responses], sample_idx: Tensor | None = None
    ) -> Tensor:
        """See the base class."""
        mapped = self.connector(student.feature)
        return kl_divergence(mapped, teachers[self.teacher].feature, self.temperature)


@MODELS.register_module()
class OFD(DistillationLoss):
    r"""Overhaul of feature distillation (Heo et al., 2019; report Table 4, "OFD").

    The features before the last activation of each stage; the student's go through a connector (a
    convolution of 1x1 without bias, and batch normalisation), the teacher's are cut off at a
    margin. With :func:`~ipirm_mm.functional.ofd_distance` as :math:`d_i` of stage *i*,

    .. math:: \frac{1}{N \kappa} \sum_{i=1}^{n} d_i / 2^{n-i}

    Args:
        stages: ``'all'``, ``'last'`` (the two rows of the report), or a list of numbers from 0.
            Defaults to ``'all'``.
        kappa: What the sum is divided by, besides the batch: 10000 for ImageNet, 1000 for CIFAR
            (authors' code). Defaults to 10000.
        norm_cfg: Normalisation of the connectors. Defaults to ``dict(type='BN')`` (authors' code);
            ``SyncBN`` where a GPU has few images.
        loss_weight: Weight. Defaults to 1.
        teacher: Which of several teachers. Defaults to 0.

    Raises:
        UserError: If an option is out of range, stages do not match, a backbone cannot be read or
            the teacher's normalisation gives no margin.
    """

    key = 'ofd'
    reads_stages = True

    def __init__(
        self,
        stages: str | Sequence[int] = 'all',
        kappa: float = 10000.0,
        norm_cfg: dict | None = None,
        loss_weight: float = 1.0,
        teacher: int = 0,
    ) -> None:
        super().__init__(loss_weight, teacher)
        if isinstance(stages, str) and stages not in ('all', 'last') or not len(stages):
            raise UserError(
                f"OFD.stages must be 'all', 'last' or a list of numbers, but is {stages!r}"
            )
        self.stages: str | list[int] = stages if isinstance(stages, str) else list(stages)
        self.kappa = _positive(self, 'kappa', kappa)
        self.norm_cfg = norm_cfg or dict(type='BN')
        self.numbers: list[int] = []
        self.connectors = nn.ModuleList()

    def build(self, student: Responses, teachers: list[Responses]) -> None:
        """Make the connectors, and room for the margins."""
        super().build(student, teachers)
        ours, theirs = student.stages, teachers[self.teacher].stages
        self.numbers = self._chosen(len(ours))
        if len(ours) != len(theirs):
            raise UserError(
                f'OFD compares stage by stage, but the student has {len(ours)} and the teacher '
                f"{len(theirs)}: take backbones alike, or OFD.stages='last'"
                if self.stages != 'last'
                else f'OFD: the student has {len(ours)} stages and the teacher {len(theirs)}'
            )
        for number in self.numbers:
            s, t = ours[number], theirs[number]
            if s.shape[2:] != t.shape[2:]:
                raise UserError(
                    f'OFD: at stage {number} the student has {tuple(s.shape[2:])} positions and '
                    f'the teacher {tuple(t.shape[2:])}: their strides have to be the same, or '
                    'leave the stage out by OFD.stages'
                )
            convolution = PointwiseConv(s.shape[1], t.shape[1])
            nn.init.normal_(convolution.weight, 0.0, math.sqrt(2 / t.shape[1]))
            self.connectors.append(
                nn.Sequential(convolution, build_norm_layer(self.norm_cfg, t.shape[1])[1])
            )
            self.register_buffer(f'margin{number}', torch.zeros(t.shape[1]))

    def _chosen(self, count: int) -> list[int]:
        if self.stages == 'all':
            return list(range(count))
        if self.stages == 'last':
            return [count - 1]
        numbers = [int(number) for number in self.stages]
        if sorted(set(numbers)) != numbers or numbers[0] < 0 or numbers[-1] >= count:
            raise UserError(
                f'OFD.stages must be rising numbers from 0 to {count - 1}, but is {numbers}'
            )
        return numbers

    def teacher_loaded(self, teacher: nn.Module) -> None:
        """Compute the margins."""
        for number in self.numbers:
            norm = find_stages(teacher.backbone)[number].norm
            if not isinstance(norm, _BatchNorm) or norm.weight is None:
                raise UserError(
                    'OFD takes its margin from weight and bias of the batch normalisation at the '
                    f"end of a stage, but the teacher's is a {type(norm).__name__}: take a "
                    'teacher with batch normalisation, or another loss'
                )
            margin = getattr(self, f'margin{number}')
            margin.copy_(ofd_margin(norm.weight, norm.bias))

    def forward(
        self, student: Responses, teachers: list[Responses], sample_idx: Tensor | None = None
    ) -> Tensor:
        """See the base class."""
        targets = teachers[self.teacher].stages
        total = torch.zeros((), device=student.feature.device)
        for place, (number, connector) in enumerate(zip(self.numbers, self.connectors)):
            distance = ofd_distance(
                connector(student.stages[number]),
                targets[number],
                getattr(self, f'margin{number}'),
            )
            total = total + distance / 2 ** (len(self.numbers) - 1 - place)
        return total / (len(student.feature) * self.kappa)


@MODELS.register_module()
class CRD(DistillationLoss):
    """Contrastive representation distillation (Tian et al., 2020; report Table 4, "CRD").

    The report's row "with KL loss" is this and :class:`LogitKL` together. Needs
    ``custom_hooks=[dict(type='CRDMemoryHook')]``, by which it learns how many training images
    there are, and their classes.

    Args:
        feat_dim: Width of the embeddings. Defaults to 128 (authors' code, as all below).
        num_negatives: Negatives for each image. Defaults to 16384.
        temperature: Temperature. Defaults to 0.07.
        momentum: Weight of the old row when a memory is updated. Defaults to 0.5.
        relax: Whether the positive is any image of the class, rather than the image itself.
            Defaults to False.
        seed: Seed of the memories and of the negatives. Defaults to 0.
        loss_weight: Weight. Defaults to 0.8.
        teacher: Which of several teachers. Defaults to 0.

    Raises:
        UserError: If an option is out of range; before training, if the memories do not fit the
            device or the training set has no two classes.
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
        self.feat_dim = int(_positive(self, 'feat_dim', feat_dim))
        self.num_negatives = int(_positive(self, 'num_negatives', num_negatives))
        self.temperature = _positive(self, 'temperature', temperature)
        self.momentum = momentum
        self.relax = relax
        self.seed = seed
        self.register_buffer('memory_student', torch.zeros(0, feat_dim))
        self.register_buffer('memory_teacher', torch.zeros(0, feat_dim))
        self.register_buffer('constants', torch.zeros(2))
        self.register_buffer('labels', torch.zeros(0, dtype=torch.long))
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))
        self._classes: ClassIndex | None = None
        # Host copy of whether the constants are known: no step waits for the device.
        self._has_constants = False

    def build(self, student: Responses, teachers: list[Responses]) -> None:
        """Make the embeddings."""
        super().build(student, teachers)
        self.embed_student = nn.Linear(student.feature.shape[1], self.feat_dim)
        self.embed_teacher = nn.Linear(teachers[self.teacher].feature.shape[1], self.feat_dim)

    def allocate(self, labels: Tensor) -> None:
        """Make the memories, of random rows, the same on every rank.

        Args:
            labels: Class of every training image, ``(n,)``, long.

        Raises:
            UserError: If the memories do not fit, there is only one class, or memories of another
                training set are there already.
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
        """Sort the images by class, once."""
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

    # A compiler would compute the gradient again, from memories that are updated by then, rather
    # than keep it (https://github.com/pytorch/pytorch/pull/197039).
    @torch.compiler.disable
    def forward(
        self, student: Responses, teachers: list[Responses], sample_idx: Tensor | None
    ) -> Tensor:
        """See the base class; in training it also updates the memories."""
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
        """Fix the constants on the first batch, of all ranks; a resumed run has them."""
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
        """Move the rows of the batches of all ranks, alike on every rank."""
        everyone = gather_batch(sample_idx)
        # A sampler fills up its last batch with images that it has dealt out before: of rows that
        # are there twice all write what the first one does.
        first = (everyone[:, None] == everyone).to(torch.uint8).argmax(1)
        for memory, rows in ((self.memory_student, student), (self.memory_teacher, teacher)):
            rows = gather_batch(rows)[first].to(memory.dtype)
            mixed = self.momentum * memory[everyone] + (1 - self.momentum) * rows
            memory[everyone] = unit_rows(mixed)
        self.steps += 1

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # A network that is tested has no data set from which to learn the size of the memories.
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


def _positive(loss: DistillationLoss, name: str, value: float) -> float:
    if not value > 0:
        raise UserError(f'{type(loss).__name__}.{name} must be positive, but is {value}')
    return value


def _free_memory(device: torch.device) -> int:
    """Bytes that can be had on a device."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
