"""Distillation of the features before the last activation of each stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ipirm_mm.errors import UserError
from ipirm_mm.functional import ofd_distance, ofd_margin
from ipirm_mm.options import check_positive

from .base import DistillationLoss
from .outputs import NetworkOutputs
from .recorders import find_stages


@MODELS.register_module()
class OFD(DistillationLoss):
    r"""Overhaul of feature distillation (Heo et al., 2019; report Table 4, rows "OFD").

    It compares the features before the last activation of each stage. Connectors project the
    student's feature maps to the teacher's channel width: a 1x1 convolution without bias, then
    batch normalization. The teacher's features are cut off below a margin per channel. With
    :math:`d_i` the :func:`~ipirm_mm.functional.ofd_distance` of stage *i*, the loss is

    .. math:: \frac{1}{N \kappa} \sum_{i=1}^{n} d_i / 2^{n-i}

    Args:
        stages: ``'all'`` or ``'last'`` (the two rows of the report), or a list of stage numbers
            counted from 0. Defaults to ``'all'``.
        kappa: Divisor of the sum, besides the batch size. Heo et al. use 10000 for ImageNet and
            1000 for CIFAR. Defaults to 10000.
        norm_cfg: Normalization of the connectors. Defaults to ``dict(type='BN')`` (code of Heo et
            al.). Use ``SyncBN`` if a GPU has few images.
        loss_weight: Weight of the loss. Defaults to 1.
        teacher: Number of the teacher to compare with, counted from 0. Defaults to 0.

    Raises:
        UserError: If an option is out of range, the stages do not match, a backbone cannot be
            read, or the teacher has no batch normalization to take the margin from.
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
        check_positive('OFD.kappa', kappa)
        self.kappa = kappa
        self.norm_cfg = norm_cfg or dict(type='BN')
        self.numbers: list[int] = []
        self.connectors = nn.ModuleList()
        self._has_margins = False

    def build(self, student: NetworkOutputs, teachers: list[NetworkOutputs]) -> None:
        """Build the connectors and the buffers of the margins; see the base class."""
        super().build(student, teachers)
        ours, theirs = student.stages, teachers[self.teacher].stages
        self.numbers = self._chosen(len(ours))
        if len(ours) != len(theirs):
            raise UserError(
                f'OFD compares stage by stage, but the student has {len(ours)} and the teacher '
                f"{len(theirs)}: use backbones with equal stages, or set OFD.stages='last'"
                if self.stages != 'last'
                else f'OFD: the student has {len(ours)} stages and the teacher {len(theirs)}'
            )
        for number in self.numbers:
            s, t = ours[number], theirs[number]
            if s.shape[2:] != t.shape[2:]:
                raise UserError(
                    f'OFD: at stage {number} the student has {tuple(s.shape[2:])} positions and '
                    f'the teacher {tuple(t.shape[2:])}: their strides must be equal. Change them, '
                    'or leave the stage out of OFD.stages'
                )
            convolution = nn.Conv2d(s.shape[1], t.shape[1], 1, bias=False)
            nn.init.normal_(convolution.weight, 0.0, math.sqrt(2 / t.shape[1]))
            self.connectors.append(
                nn.Sequential(convolution, build_norm_layer(self.norm_cfg, t.shape[1])[1])
            )
            self.register_buffer(f'margin{number}', torch.zeros(t.shape[1]))

    def _chosen(self, count: int) -> list[int]:
        """Numbers of the stages to compare, of ``count`` stages."""
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
        """Compute the margins from the teacher's batch normalization; see the base class."""
        for number in self.numbers:
            norm = find_stages(teacher.backbone)[number].norm
            if not isinstance(norm, _BatchNorm) or norm.weight is None:
                raise UserError(
                    'OFD takes its margin from weight and bias of the batch normalization at the '
                    f"end of a stage, but the teacher's is a {type(norm).__name__}: use a "
                    'teacher with batch normalization, or another loss'
                )
            margin = getattr(self, f'margin{number}')
            margin.copy_(ofd_margin(norm.weight, norm.bias))
        self._has_margins = True

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # The margins are those of the teacher that is there, not of the one that a student was
        # trained with from whose checkpoint the run starts.
        for number in self.numbers if self._has_margins else ():
            if f'{prefix}margin{number}' in state_dict:
                state_dict[f'{prefix}margin{number}'] = getattr(self, f'margin{number}').clone()
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def compared(self, student: NetworkOutputs) -> dict[str, Tensor]:
        """Name the stages that are compared; see the base class."""
        return {f'stage {number}': student.stages[number] for number in self.numbers}

    def check_reach(self, student: NetworkOutputs) -> None:
        """Check every stage that is trained, too; see the base class."""
        lost = sorted(set(student.lost) & set(self.numbers))
        if lost:
            raise UserError(
                f"OFD cannot reach the student's weights: the features of stage {lost[0]} are "
                'computed without gradient, although the stage is trained. Activation '
                'checkpointing of the reentrant kind does so: use with_cp=True of the backbone, '
                'the activation_checkpointing of the config, or use_reentrant=False'
            )
        super().check_reach(student)

    def forward(
        self,
        student: NetworkOutputs,
        teachers: list[NetworkOutputs],
        sample_idx: Tensor | None = None,
    ) -> Tensor:
        """Compute the distance of the chosen stages; see the base class."""
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
