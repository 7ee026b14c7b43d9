"""What the heads of IP-IRM share: the subsets of a batch, weights, and the total loss."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod

import torch
from mmengine.model import BaseModule
from torch import Tensor

from ipirm_mm.functional import SubsetRisks, contrastive_risks
from ipirm_mm.functional._common import PENALTIES
from ipirm_mm.options import check_not_negative, check_one_of, check_positive
from ipirm_mm.utils.deprecation import renamed_arguments

OBJECTIVES = ('authors', 'report')
#: Two views of the (global) batch, each ``(B, D)``, rows of unit norm.
TwoViews = tuple[Tensor, Tensor]


class BaseIPIRMHead(BaseModule, metaclass=ABCMeta):
    r"""Base of the heads of IP-IRM: the loss of the batch, and risks and penalties of subsets.

    A head defines :meth:`base_loss`, and :meth:`risks` if they are not contrastive. Let
    :math:`L` be the risk and :math:`\Omega` the penalty of a subset:

    * ``objective='authors'`` (the code of Wang et al.): the method's own loss of the batch, plus
      the mean of :math:`L + \lambda_1 \Omega` over partitions and subsets. The batch as a whole
      has no penalty.
    * ``objective='report'`` (report Eq. 2): the sum of :math:`L + \lambda_1 \Omega` over
      partitions and subsets. The trivial partition, whose one subset is the batch, is one of the
      partitions and has a penalty. Its :math:`L` is the method's own loss.

    Args:
        temperature: Temperature of the loss. Defaults to 0.5 (report).
        irm_weight: Weight :math:`\lambda_1` of the penalty. Defaults to 0.2 (report).
        irm_temperature: Temperature of the penalty. Defaults to None, which means ``temperature``.
        penalty: ``'vector'`` (code of Wang et al.) or ``'scalar'`` (report Eq. 2). Defaults to
            ``'vector'``, to which the published weights belong.
        objective: Which terms the loss sums, ``'authors'`` or ``'report'``; see above. Defaults to
            ``'authors'``.
        penalize_batch: Whether ``objective='authors'`` also treats the whole batch as a subset.
            From ``irm_warmup_epochs`` on, its penalty is added and, where the risk of a subset is
            another than the method's own loss, its risk. Without partitions this is the control
            that separates the effect of the penalty from the effect of the partitions. Defaults to
            False.
        irm_warmup_epochs: Number of epochs before the penalty is applied. Defaults to 0.
        irm_rampup_epochs: Number of epochs after the warm-up over which the weight of the penalty
            grows, in equal steps, to ``irm_weight``. Defaults to 0: at once.
        init_cfg: Initialization config of MMEngine. Defaults to None.

    Raises:
        UserError: If an option has a value that is unknown or out of range.
    """

    # Whether the risk of the whole batch equals the method's own loss, up to a constant.
    risk_equals_base_loss = True
    # Whether `objective='authors'` sums the partitions (the code of Wang et al. for MixUp) instead
    # of averaging them (their code without MixUp).
    sums_partitions = False
    # Which views have the negatives of contrastive risks.
    negatives = 'both_views'

    @renamed_arguments(
        reduction='objective',
        penalise_batch='penalize_batch',
        irm_begin='irm_warmup_epochs',
        irm_growth='irm_rampup_epochs',
        values=dict(objective=dict(mean='authors', sum='report')),
    )
    def __init__(
        self,
        temperature: float = 0.5,
        irm_weight: float = 0.2,
        irm_temperature: float | None = None,
        penalty: str = 'vector',
        objective: str = 'authors',
        penalize_batch: bool = False,
        irm_warmup_epochs: int = 0,
        irm_rampup_epochs: int = 0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        for name, value, allowed in (
            ('penalty', penalty, PENALTIES),
            ('objective', objective, OBJECTIVES),
        ):
            check_one_of(f'model.head.{name}', value, allowed)
        check_positive('model.head.temperature', temperature)
        if irm_temperature is not None:
            check_positive('model.head.irm_temperature', irm_temperature)
        for name, number in (
            ('irm_weight', irm_weight),
            ('irm_warmup_epochs', irm_warmup_epochs),
            ('irm_rampup_epochs', irm_rampup_epochs),
        ):
            check_not_negative(f'model.head.{name}', number)
        self.temperature = temperature
        self.irm_weight = irm_weight
        self.irm_temperature = irm_temperature
        self.penalty = penalty
        self.objective = objective
        self.penalize_batch = penalize_batch
        self.irm_warmup_epochs = irm_warmup_epochs
        self.irm_rampup_epochs = irm_rampup_epochs
        #: ``penalty``, or None in a step in which nothing is penalized.
        self.current_penalty: str | None = penalty
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        r"""Set the weight of the penalty for an epoch.

        The epoch itself is not stored: ``torch.compile`` recompiles for each new number that a
        step reads.

        Args:
            epoch: The epoch that begins, counted from 0.
        """
        passed = epoch - self.irm_warmup_epochs + 1
        self._warmed_up = passed > 0
        #: :math:`\lambda_1` in the current epoch.
        self.current_weight = self.irm_weight * min(
            1.0, max(0, passed) / (self.irm_rampup_epochs or 1)
        )

    def risks(
        self, anchors: TwoViews, targets: TwoViews | None, subset_ids: Tensor, num_subsets: int
    ) -> SubsetRisks:
        """Compute the risk and penalty of each subset of the batch; here, the contrastive ones.

        Args:
            anchors: Two views of the batch, each ``(B, D)``, rows of unit norm.
            targets: Two views to compare the anchors with, each ``(B, D)``, rows of unit norm;
                None if they are the anchors.
            subset_ids: Number of each image's subset in each partition, ``(1 + P, B)`` long. The
                first row is the trivial partition, subset 0 for all images.
            num_subsets: Number *S* of subsets of all partitions together.

        Returns:
            :class:`~ipirm_mm.functional.SubsetRisks` with fields of shape ``(S,)``.
        """
        return contrastive_risks(
            *anchors,
            subset_ids,
            num_subsets,
            self.temperature,
            self.irm_temperature,
            self.current_penalty,
            targets=targets,
            negatives=self.negatives,
        )

    @abstractmethod
    def base_loss(self, anchors: TwoViews, targets: TwoViews | None, risks: SubsetRisks) -> Tensor:
        """Compute the method's own loss of the whole batch.

        Args:
            anchors: Two views of the batch, each ``(B, D)``, rows of unit norm.
            targets: Two views to compare the anchors with, as for :meth:`risks`.
            risks: What :meth:`risks` returned; entry 0 is that of the whole batch.

        Returns:
            Scalar.
        """

    def loss(
        self,
        anchors: TwoViews,
        targets: TwoViews | None,
        assignments: Tensor,
        num_subsets: int,
    ) -> dict[str, Tensor]:
        """Compute the loss of a (global) batch.

        Args:
            anchors: Two views of the batch, each ``(B, D)``, rows of unit norm.
            targets: Two views to compare the anchors with, each ``(B, D)``, rows of unit norm;
                None if they are the anchors.
            assignments: Subset of each image in each partition found so far, ``(P, B)`` long.
            num_subsets: Number of subsets *K* of each partition.

        Returns:
            ``loss``, and for the log, without gradient: ``risk_batch`` (the method's own loss),
            ``risk_subsets`` and ``penalty`` (means over what is penalized, before the weight).
            These names avoid the word "loss", because MMEngine adds up all entries that have it.
        """
        partitions = len(assignments)
        subset_ids = self.number_subsets(assignments.to(anchors[0].device), num_subsets)
        risks = self.risks(anchors, targets, subset_ids, 1 + partitions * num_subsets)
        return self.total_loss(risks, self.base_loss(anchors, targets, risks), partitions)

    def number_subsets(self, assignments: Tensor, num_subsets: int) -> Tensor:
        """Number the subsets of all partitions, and choose what this step penalizes.

        Args:
            assignments: Subset of each image in each partition found so far, ``(P, B)``.
            num_subsets: Number of subsets *K* of each partition.

        Returns:
            Number of each image's subset, ``(1 + P, B)`` long. The first row is the trivial
            partition, number 0; the subsets of the partitions follow.
        """
        partitions = len(assignments)
        offsets = 1 + num_subsets * torch.arange(partitions, device=assignments.device)
        trivial = assignments.new_zeros(1, assignments.shape[1], dtype=torch.long)
        # Before the first partition there may be nothing to penalize.
        penalized = partitions or self.penalize_batch or self.objective == 'report'
        self.current_penalty = self.penalty if penalized else None
        return torch.cat((trivial, assignments.long() + offsets[:, None]))

    def total_loss(self, risks: SubsetRisks, base: Tensor, partitions: int) -> dict[str, Tensor]:
        """Assemble the loss from the risks and penalties of the subsets.

        Args:
            risks: Risks and penalties of the subsets, in the order of :meth:`number_subsets`.
            base: The method's own loss of the whole batch, a scalar.
            partitions: Number of partitions *P*.

        Returns:
            What :meth:`loss` returns.
        """
        batch_penalty = risks.penalty[0]
        subset_risks, subset_penalties = risks.loss[1:], risks.penalty[1:]
        weight = self.current_weight
        # A copy: base may be a view of risks.loss, and so is its entry in the log. A compiler
        # confuses two outputs that are views of one tensor.
        loss = base.clone()
        if self.objective == 'report':
            loss = loss + subset_risks.sum() + weight * risks.penalty.sum()
        else:
            if partitions:
                times = partitions if self.sums_partitions else 1
                loss = loss + times * (subset_risks.mean() + weight * subset_penalties.mean())
            if self.penalize_batch and self._warmed_up:
                loss = loss + weight * batch_penalty
                if not self.risk_equals_base_loss:
                    loss = loss + risks.loss[0]
        logged = {'risk_batch': base}
        if partitions:
            logged['risk_subsets'] = subset_risks.mean()
            logged['penalty'] = subset_penalties.mean()
        elif self.penalize_batch or self.objective == 'report':
            logged['penalty'] = batch_penalty
        return dict(loss=loss, **{name: value.detach() for name, value in logged.items()})
