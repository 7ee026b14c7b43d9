"""IP-IRM on Barlow Twins."""

from __future__ import annotations

from mmpretrain.registry import MODELS

from ..heads.base_ipirm_head import TwoViews
from .base_ipirm import BaseIPIRM


@MODELS.register_module()
class IPIRMBarlowTwins(BaseIPIRM):
    """Barlow Twins trained for similarities that hold in every subset of every partition.

    Before the first partition, and without a penalty, the loss is that of MMPretrain's
    ``BarlowTwins``. The head is an ``IPIRMCrossCorrelationHead``. The arguments are those of
    :class:`BaseIPIRM`.
    """

    def project_views(self, inputs: TwoViews) -> tuple[TwoViews, None]:
        """Project both views, not in unit rows, which the head does without.

        The views pass one after the other, as in MMPretrain's ``BarlowTwins``: batch normalization
        uses the statistics of one view.
        """
        z1, z2 = (self.neck(self.backbone(view))[0] for view in inputs)
        return (z1, z2), None
