"""IP-IRM on SimSiam."""

from __future__ import annotations

from mmpretrain.registry import MODELS

from ..heads.base_ipirm_head import Views, unit_rows
from .base_ipirm import BaseIPIRM


@MODELS.register_module()
class IPIRMSimSiam(BaseIPIRM):
    """SimSiam trained for similarities that hold in every subset of every partition.

    Before the first partition, and without penalty, the loss is that of MMPretrain's ``SimSiam``.
    Its head is an ``IPIRMLatentHead``, which holds the predictor. Arguments are those of
    :class:`BaseIPIRM`. For a predictor whose learning rate stays, add MMPretrain's ``SimSiamHook``
    and ``paramwise_cfg=dict(custom_keys={'predictor': dict(fix_lr=True)})``.
    """

    def embed_views(self, inputs: Views) -> tuple[Views, Views]:
        """Predictions and projections; see :meth:`BaseIPIRM.embed_views`.

        One view after the other, as in MMPretrain's ``SimSiam``: the statistics of batch
        normalisation are those of one view.
        """
        projections = [self.neck(self.backbone(view))[0] for view in inputs]
        p1, p2 = (unit_rows(self.head.predictor([z])[0]) for z in projections)
        z1, z2 = (unit_rows(z.detach()) for z in projections)
        return (p1, p2), (z1, z2)
