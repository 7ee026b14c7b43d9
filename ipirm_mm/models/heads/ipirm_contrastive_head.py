"""The IRM-penalised contrastive head."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.functional.contrastive import PENALTIES, group_contrastive_risks

REDUCTIONS = ('mean', 'sum')


@MODELS.register_module()
class IPIRMContrastiveHead(BaseModule):
    r"""Contrastive loss over the batch and its subsets, with the invariance penalty.

    With :math:`L` the loss and :math:`\Omega` the penalty of a subset (see
    :func:`ipirm_mm.functional.subset_contrastive_risks`):

    * ``reduction='mean'`` (the authors' code): :math:`L_{batch}` plus the mean over partitions and
      subsets of :math:`L + \lambda_1 \Omega`. The batch as a whole is not penalised.
    * ``reduction='sum'`` (report Eq. 2): the sum over partitions and subsets of
      :math:`L + \lambda_1 \Omega`; the trivial partition, whose one subset is the batch, is among
      them, penalty and all.

    Args:
        temperature: Temperature of the loss. Defaults to 0.5 (report).
        irm_weight: :math:`\lambda_1`. Defaults to 0.2 (report).
        irm_temperature: Temperature of the penalty; None means ``temperature``. Defaults to None.
        penalty: ``'vector'`` (authors' code) or ``'scalar'`` (report Eq. 2). Defaults to
            ``'vector'``, to which the published weights belong.
        reduction: ``'mean'`` or ``'sum'``. Defaults to ``'mean'``.
        penalise_batch: Whether ``reduction='mean'`` penalises the batch as a whole too. With no
            partition this is the control that tells the penalty's effect from the partitions'.
            Defaults to False.
        irm_begin: Epochs of training before the penalty is applied. Defaults to 0.
        init_cfg: Initialisation config. Defaults to None.

    Raises:
        UserError: If an option has a value that does not exist.
    """

    def __init__(
        self,
        temperature: float = 0.5,
        irm_weight: float = 0.2,
        irm_temperature: float | None = None,
        penalty: str = 'vector',
        reduction: str = 'mean',
        penalise_batch: bool = False,
        irm_begin: int = 0,
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
        if irm_weight < 0:
            raise UserError(f'model.head.irm_weight must not be negative, but is {irm_weight}')
        self.temperature = temperature
        self.irm_weight = irm_weight
        self.irm_temperature = irm_temperature
        self.penalty = penalty
        self.reduction = reduction
        self.penalise_batch = penalise_batch
        self.irm_begin = irm_begin
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Tell the epoch that begins, counted from 0 (for ``irm_begin``)."""
        self._epoch = epoch

    def loss(
        self, z1: Tensor, z2: Tensor, assignments: Tensor, num_subsets: int
    ) -> dict[str, Any]:
        """Loss of a (global) batch.

        Args:
            z1: Projections of the first view, ``(B, D)``, rows of unit norm.
            z2: Projections of the second view, ``(B, D)``, rows of unit norm.
            assignments: Subset of each image in each partition found so far, ``(P, B)`` long.
            num_subsets: Number of subsets *K* of each partition.

        Returns:
            ``loss``, and detached for the log: ``risk_batch`` (the loss of the trivial partition),
            ``risk_subsets`` and ``penalty`` (means over what is penalised; without the weight).
            The names of the latter avoid "loss", since MMEngine adds up all that have it.
        """
        partitions = assignments.shape[0]
        # Group 0 is the whole batch, the subsets of the partitions follow.
        offsets = 1 + num_subsets * torch.arange(partitions, device=z1.device)
        groups = torch.cat(
            (
                torch.zeros(1, z1.shape[0], dtype=torch.long, device=z1.device),
                assignments.to(z1.device, torch.long) + offsets[:, None],
            )
        )
        risks = group_contrastive_risks(
            z1,
            z2,
            groups,
            1 + partitions * num_subsets,
            self.temperature,
            self.irm_temperature,
            self.penalty,
        )
        weight = self.irm_weight if self._epoch >= self.irm_begin else 0.0
        batch_risk, subset_risks = risks.loss[0], risks.loss[1:]
        batch_penalty, subset_penalties = risks.penalty[0], risks.penalty[1:]
        if self.reduction == 'sum':
            loss = risks.loss.sum() + weight * risks.penalty.sum()
        else:
            loss = batch_risk
            if partitions:
                loss = loss + subset_risks.mean() + weight * subset_penalties.mean()
            if self.penalise_batch:
                loss = loss + weight * batch_penalty
        logged = {'risk_batch': batch_risk}
        if partitions:
            logged['risk_subsets'] = subset_risks.mean()
            logged['penalty'] = subset_penalties.mean()
        elif self.penalise_batch or self.reduction == 'sum':
            logged['penalty'] = batch_penalty
        return dict(loss=loss, **{name: value.detach() for name, value in logged.items()})
