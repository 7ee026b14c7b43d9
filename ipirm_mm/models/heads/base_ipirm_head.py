"""What the heads of IP-IRM have in common: groups, weights and their sum."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.functional import SubsetRisks
from ipirm_mm.functional.contrastive import PENALTIES, at_least_float32

REDUCTIONS = ('mean', 'sum')
# Two views of the (global) batch, each (B, D), rows of unit norm.
Views = tuple[Tensor, Tensor]


def unit_rows(features: Tensor) -> Tensor:
    """Rows of unit norm, in float32 at least."""
    return F.normalize(at_least_float32(features), dim=1, eps=1e-10)


class BaseIPIRMHead(BaseModule, metaclass=ABCMeta):
    r"""Loss of a method over the batch, and its risks and penalties over the subsets.

    A head gives two things, see :meth:`own_loss` and :meth:`risks`. With :math:`L` the risk and
    :math:`\Omega` the penalty of a subset:

    * ``reduction='mean'`` (the authors' code): the method's own loss over the batch plus the mean
      over partitions and subsets of :math:`L + \lambda_1 \Omega`. The batch as a whole is not
      penalised.
    * ``reduction='sum'`` (report Eq. 2): the sum over partitions and subsets of
      :math:`L + \lambda_1 \Omega`; the trivial partition, whose one subset is the batch, is among
      them, penalty and all, with the method's own loss as its :math:`L`.

    Args:
        temperature: Temperature of the loss. Defaults to 0.5 (report).
        irm_weight: :math:`\lambda_1`. Defaults to 0.2 (report).
        irm_temperature: Temperature of the penalty; None means ``temperature``. Defaults to None.
        penalty: ``'vector'`` (authors' code) or ``'scalar'`` (report Eq. 2). Defaults to
            ``'vector'``, to which the published weights belong.
        reduction: ``'mean'`` or ``'sum'``. Defaults to ``'mean'``.
        penalise_batch: Whether ``reduction='mean'`` treats the batch as a whole like a subset too:
            its penalty counts and, where the risk of a subset is not the method's own loss, its
            risk, from ``irm_begin`` on. With no partition this is the control that tells the
            effect of the subsets' loss and penalty from that of the partitions. Defaults to False.
        irm_begin: Epochs of training before the penalty is applied. Defaults to 0.
        irm_growth: Epochs over which its weight then grows, in equal steps, to ``irm_weight``.
            Defaults to 0, at once.
        init_cfg: Initialisation config. Defaults to None.

    Raises:
        UserError: If an option has a value that does not exist.
    """

    # Whether the risk of the batch is the method's own loss, up to a constant.
    risk_is_own_loss = True

    def __init__(
        self,
        temperature: float = 0.5,
        irm_weight: float = 0.2,
        irm_temperature: float | None = None,
        penalty: str = 'vector',
        reduction: str = 'mean',
        penalise_batch: bool = False,
        irm_begin: int = 0,
        irm_growth: int = 0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        for name, value, allowed in (
            ('penalty', penalty, PENALTIES),
            ('reduction', reduction, REDUCTIONS),
        ):
            if value not in allowed:
                raise UserError(f'model.head.{name} must be one of {allowed}, but is {value!r}')
        for name, number in (('temperature', temperature), ('irm_temperature', irm_temperature)):
            if number is not None and number <= 0:
                raise UserError(f'model.head.{name} must be positive, but is {number}')
        for name, number in (
            ('irm_weight', irm_weight),
            ('irm_begin', irm_begin),
            ('irm_growth', irm_growth),
        ):
            if number < 0:
                raise UserError(f'model.head.{name} must not be negative, but is {number}')
        self.temperature = temperature
        self.irm_weight = irm_weight
        self.irm_temperature = irm_temperature
        self.penalty = penalty
        self.reduction = reduction
        self.penalise_batch = penalise_batch
        self.irm_begin = irm_begin
        self.irm_growth = irm_growth
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        r"""Tell the epoch that begins, counted from 0: it gives the weight of the penalty.

        The epoch itself is not kept, since ``torch.compile`` compiles anew for any other number
        that a step reads.
        """
        passed = epoch - self.irm_begin + 1
        self._begun = passed > 0
        #: :math:`\lambda_1` in the current epoch.
        self.current_weight = self.irm_weight * min(1.0, max(0, passed) / (self.irm_growth or 1))

    @abstractmethod
    def risks(
        self, anchors: Views, targets: Views, groups: Tensor, num_groups: int
    ) -> SubsetRisks:
        """Risk and penalty of each group of the batch.

        Args:
            anchors: Two views of the batch, each ``(B, D)``, rows of unit norm.
            targets: What they are compared with, alike.
            groups: Group of each image in each partition, ``(1 + P, B)`` long; the first row is
                the trivial partition, group 0 for all.
            num_groups: Number of groups *G*.

        Returns:
            Fields of shape ``(G,)``.
        """

    @abstractmethod
    def own_loss(self, anchors: Views, targets: Views, risks: SubsetRisks) -> Tensor:
        """The method's loss over the whole batch, a scalar; ``risks[0]`` is the batch's."""

    def loss(
        self, anchors: Views, targets: Views, assignments: Tensor, num_subsets: int
    ) -> dict[str, Tensor]:
        """Loss of a (global) batch.

        Args:
            anchors: Two views of the batch, each ``(B, D)``, rows of unit norm.
            targets: What they are compared with, alike; of a method whose sides are the same, the
                same two tensors.
            assignments: Subset of each image in each partition found so far, ``(P, B)`` long.
            num_subsets: Number of subsets *K* of each partition.

        Returns:
            ``loss``, and detached for the log: ``risk_batch`` (the method's own loss),
            ``risk_subsets`` and ``penalty`` (means over what is penalised; without the weight).
            The names of the latter avoid "loss", since MMEngine adds up all that have it.
        """
        partitions, device = assignments.shape[0], anchors[0].device
        # Group 0 is the whole batch, the subsets of the partitions follow.
        offsets = 1 + num_subsets * torch.arange(partitions, device=device)
        trivial = torch.zeros(1, len(anchors[0]), dtype=torch.long, device=device)
        groups = torch.cat((trivial, assignments.to(device, torch.long) + offsets[:, None]))
        risks = self.risks(anchors, targets, groups, 1 + partitions * num_subsets)
        own = self.own_loss(anchors, targets, risks)
        batch_penalty = risks.penalty[0]
        subset_risks, subset_penalties = risks.loss[1:], risks.penalty[1:]
        weight = self.current_weight
        loss = own
        if self.reduction == 'sum':
            loss = loss + subset_risks.sum() + weight * risks.penalty.sum()
        else:
            if partitions:
                loss = loss + subset_risks.mean() + weight * subset_penalties.mean()
            if self.penalise_batch and self._begun:
                loss = loss + weight * batch_penalty
                if not self.risk_is_own_loss:
                    loss = loss + risks.loss[0]
        logged = {'risk_batch': own}
        if partitions:
            logged['risk_subsets'] = subset_risks.mean()
            logged['penalty'] = subset_penalties.mean()
        elif self.penalise_batch or self.reduction == 'sum':
            logged['penalty'] = batch_penalty
        return dict(loss=loss, **{name: value.detach() for name, value in logged.items()})
