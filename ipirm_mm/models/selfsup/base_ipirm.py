"""What lies between a self-supervised method and IP-IRM."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from typing import Any

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import pooled_feature
from ipirm_mm.functional import gather_batch
from ipirm_mm.partition import PartitionSet

from ..heads.base_ipirm_head import Views, unit_rows
from ..sample_indices import sample_indices


class BaseIPIRM(BaseSelfSupervisor, metaclass=ABCMeta):
    """A self-supervised method trained for similarities that hold in every subset.

    Report, Stage I. :class:`~ipirm_mm.engine.hooks.PartitionUpdateHook` finds the partitions.
    A method gives :meth:`embed_views`, what is compared with what, and its head (a
    :class:`~ipirm_mm.models.heads.BaseIPIRMHead`) gives its own loss and the risk of a subset.

    Args:
        backbone: Config of the backbone.
        neck: Config of the projector.
        head: Config of the head.
        num_subsets: Number of subsets *K* of each partition, 2 to 256. Defaults to 2 (the
            authors' ``env_num``).
        pretrained: Checkpoint to start from. Defaults to None.
        data_preprocessor: Config of the data preprocessor. Defaults to None, which means
            MMPretrain's ``SelfSupDataPreprocessor``.
        init_cfg: Initialisation config. Defaults to None.

    Raises:
        UserError: If ``num_subsets`` is out of range.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        head: dict,
        num_subsets: int = 2,
        pretrained: str | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            backbone=backbone,
            neck=neck,
            head=head,
            pretrained=pretrained,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        self.partitions = PartitionSet(num_subsets)

    @abstractmethod
    def embed_views(self, inputs: Views) -> tuple[Views, Views]:
        """Embed the two views of a batch, for training.

        Args:
            inputs: Two views, each ``(B, C, H, W)``.

        Returns:
            Anchors and targets, each of two views ``(B, D)``, rows of unit norm; a method whose
            sides are the same returns the same tuple twice.
        """

    def embed(self, inputs: Tensor) -> Tensor:
        """Projections of unit norm, which partitions are found by.

        Args:
            inputs: Images, ``(B, C, H, W)``.

        Returns:
            ``(B, D)``.
        """
        return unit_rows(self.neck(self.backbone(inputs))[0])

    def set_epoch(self, epoch: int) -> None:
        """Tell the epoch that begins, counted from 0; ``PartitionUpdateHook`` does."""
        self.head.set_epoch(epoch)

    def loss(
        self, inputs: list[Tensor], data_samples: list[DataSample], **kwargs: Any
    ) -> dict[str, Tensor]:
        """Loss of a batch; in distributed training of the batches of all ranks together.

        Args:
            inputs: Two views, each ``(B, C, H, W)``.
            data_samples: Samples of the images, with ``sample_idx``.
            **kwargs: Ignored, as in MMPretrain's algorithms.

        Returns:
            See :meth:`~ipirm_mm.models.heads.BaseIPIRMHead.loss`.
        """
        if not isinstance(inputs, (list, tuple)) or len(inputs) != 2:
            raise UserError(
                f'{type(self).__name__} needs two views of each image: put '
                "dict(type='MultiView', num_views=2, ...) into the train pipeline"
            )
        anchors, targets = self.embed_views((inputs[0], inputs[1]))
        same = targets is anchors
        anchors = _gather_views(anchors)
        targets = anchors if same else _gather_views(targets)
        index = gather_batch(sample_indices(data_samples, anchors[0].device))
        return self.head.loss(
            anchors, targets, self.partitions.of(index), self.partitions.num_subsets
        )

    def predict(
        self, inputs: Tensor | list[Tensor], data_samples: list[DataSample] | None = None
    ) -> list:
        """Features of images, for ``val`` and ``test``.

        Args:
            inputs: Images, ``(B, C, H, W)``; of several views, the first is taken.
            data_samples: Samples of the images. Defaults to None, which makes new ones.

        Returns:
            The samples, each with ``feature``: the pooled backbone feature, ``(C,)``.
        """
        if isinstance(inputs, (list, tuple)):
            inputs = inputs[0]
        feature = pooled_feature(self, inputs)
        if data_samples is None:
            data_samples = [DataSample() for _ in range(len(feature))]
        for sample, row in zip(data_samples, feature):
            sample.set_field(row, 'feature', dtype=Tensor)
        return data_samples

    def forward(
        self,
        inputs: Tensor | list[Tensor],
        data_samples: list[DataSample] | None = None,
        mode: str = 'tensor',
    ) -> Any:
        """Run in one of three modes.

        Args:
            inputs: Images, ``(B, C, H, W)``, or a list of two views of that shape.
            data_samples: Samples of the images. Defaults to None.
            mode: ``'tensor'`` (backbone features, of two views the first's), ``'predict'``
                (see :meth:`predict`) or ``'loss'`` (see :meth:`loss`). Defaults to ``'tensor'``.

        Returns:
            Features, samples or losses.
        """
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor' and isinstance(inputs, (list, tuple)):
            inputs = inputs[0]
        return super().forward(inputs, data_samples, mode)


def _gather_views(views: Views) -> Views:
    """The views of the batches of all ranks; one gather carries both, ``(B, 2, D)``."""
    both = gather_batch(torch.stack(views, 1))
    return both[:, 0], both[:, 1]
