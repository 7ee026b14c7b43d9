"""IP-IRM on SimCLR."""

from __future__ import annotations

import torch
from mmpretrain.registry import MODELS

from ..heads.base_ipirm_head import TwoViews
from .base_ipirm import BaseIPIRM


@MODELS.register_module()
class IPIRMSimCLR(BaseIPIRM):
    """SimCLR trained for similarities that hold in every subset of every partition.

    Before the first partition, and without a penalty, the loss is that of MMPretrain's ``SimCLR``.
    The head is an ``IPIRMContrastiveHead``. The arguments are those of :class:`BaseIPIRM`.
    """

    def project_views(self, inputs: TwoViews) -> tuple[TwoViews, None]:
        """Project both views in one pass; see :meth:`BaseIPIRM.project_views`."""
        z1, z2 = self.project(torch.cat(inputs)).chunk(2)
        return (z1, z2), None
