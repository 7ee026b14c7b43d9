"""The contrastive head with MixUp and the invariance penalty."""

from __future__ import annotations

from typing import Any, NoReturn

from mmpretrain.registry import MODELS
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.functional import SubsetRisks, mean_lam, mixup_risks
from ipirm_mm.options import check_one_of

from .base_ipirm_head import BaseIPIRMHead, TwoViews

LAMS = ('sample', 'mean')


@MODELS.register_module()
class IPIRMMixUpHead(BaseIPIRMHead):
    r"""Contrastive loss of mixed queries in the batch and its subsets, with invariance penalty.

    The risk of a subset is that of :func:`ipirm_mm.functional.mixup_risks`. The method's own loss
    is the risk of the whole batch. The model is an
    :class:`~ipirm_mm.models.IPIRMSimCLRMixUp`, which mixes the images.

    ``objective='authors'`` follows the MixUp code of Wang et al. (IP-IRM, NeurIPS 2021): the
    method's own loss, plus **the sum over partitions** of the mean of
    :math:`L + \lambda_1 \Omega` over subsets. Their code without MixUp, and
    :class:`IPIRMContrastiveHead`, have the mean over partitions there. ``objective='report'`` is
    that of :class:`BaseIPIRMHead`.

    Args:
        temperature: Temperature of the loss. Defaults to 0.2 (commands of Wang et al. with MixUp).
        lam: Which weight a query's own image has in its targets. ``'sample'``: the share that this
            query was mixed with. ``'mean'``: the mean share over the subset, as in the code of
            Wang et al., see :func:`ipirm_mm.functional.mean_lam`. Defaults to ``'sample'``.
        **kwargs: Further arguments of :class:`BaseIPIRMHead`.

    Raises:
        UserError: If an option has a value that is unknown or out of range.
    """

    sums_partitions = True

    def __init__(self, temperature: float = 0.2, lam: str = 'sample', **kwargs: Any) -> None:
        super().__init__(temperature=temperature, **kwargs)
        check_one_of('model.head.lam', lam, LAMS)
        self.lam = lam

    def mixup_loss(
        self,
        queries: Tensor,
        keys: Tensor,
        subset_ids: Tensor,
        num_subsets: int,
        partners: Tensor,
        lam: Tensor,
    ) -> dict[str, Tensor]:
        """Compute the loss of a (global) batch.

        Args:
            queries: Projections of the mixed first views, for the batch as a whole and for each
                partition, ``(1 + P, B, D)``, rows of unit norm.
            keys: Projections of the second view, ``(B, D)``, rows of unit norm.
            subset_ids: What :meth:`number_subsets` returned, ``(1 + P, B)`` long.
            num_subsets: Number of subsets *K* of each partition.
            partners: Place of each image's partner in the batch, ``(1 + P, B)`` long.
            lam: Share of the own image in each query, ``(1 + P, B)``.

        Returns:
            What :meth:`BaseIPIRMHead.loss` returns.
        """
        partitions = len(queries) - 1
        total = 1 + partitions * num_subsets
        if self.lam == 'mean':
            lam = mean_lam(lam, subset_ids, total)
        risks = mixup_risks(
            queries,
            keys,
            subset_ids,
            total,
            partners,
            lam,
            self.temperature,
            self.irm_temperature,
            self.current_penalty,
        )
        return self.total_loss(risks, risks.loss[0], partitions)

    def risks(
        self, anchors: TwoViews, targets: TwoViews | None, subset_ids: Tensor, num_subsets: int
    ) -> NoReturn:
        """Refuse: images must be mixed before they are projected.

        Args:
            anchors: Not used.
            targets: Not used.
            subset_ids: Not used.
            num_subsets: Not used.

        Raises:
            UserError: Always.
        """
        raise UserError(
            'IPIRMMixUpHead needs mixed images: set model.type to IPIRMSimCLRMixUp, or '
            'model.head.type to IPIRMContrastiveHead'
        )

    def base_loss(self, anchors: TwoViews, targets: TwoViews | None, risks: SubsetRisks) -> Tensor:
        """Return the risk of the whole batch; see :meth:`BaseIPIRMHead.base_loss`."""
        return risks.loss[0]
