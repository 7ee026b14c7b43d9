"""IP-IRM on SimCLR."""

from __future__ import annotations

import torch
from mmpretrain.registry import MODELS

from ..heads.base_ipirm_head import Views
from .base_ipirm import BaseIPIRM


@MODELS.register_module()
class IPIRMSimCLR(BaseIPIRM):
    """SimCLR trained for similarities that hold in every subset of every partition.

    Before the first partition, and without penalty, the loss is that of MMPretrain's ``SimCLR``.
    Its head is an ``IPIRMContrastiveHead``. Arguments are those of :class:`BaseIPIRM`.
    """

    def embed_views(self, inputs: Views) -> tuple[Views, Views]:
        """Projections of both views, in one pass; see :meth:`BaseIPIRM.embed_views`."""
        z1, z2 = self.embed(torch.cat(inputs)).chunk(2)
        views = (z1, z2)
        return views, views
