"""IP-IRM on SimSiam."""

from __future__ import annotations

from mmpretrain.registry import MODELS

from ..heads.base_ipirm_head import TwoViews
from .base_ipirm import BaseIPIRM


@MODELS.register_module()
class IPIRMSimSiam(BaseIPIRM):
    """SimSiam trained for similarities that hold in every subset of every partition.

    Before the first partition, and without a penalty, the loss is that of MMPretrain's
    ``SimSiam``. The head is an ``IPIRMLatentHead``, which holds the predictor. The arguments are
    those of :class:`BaseIPIRM`. To keep the learning rate of the predictor constant, add
    MMPretrain's ``SimSiamHook`` and
    ``paramwise_cfg=dict(custom_keys={'predictor': dict(fix_lr=True)})``.
    """

    def project_views(self, inputs: TwoViews) -> tuple[TwoViews, TwoViews]:
        """Predict and project both views; see :meth:`BaseIPIRM.project_views`.

        The views pass one after the other, as in MMPretrain's ``SimSiam``: batch normalization
        uses the statistics of one view.
        """
        projections = [self.neck(self.backbone(view))[0] for view in inputs]
        return self.head.predict_views(projections)
