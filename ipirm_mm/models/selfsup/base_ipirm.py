"""Base of the self-supervised methods that IP-IRM builds on."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from typing import Any

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ipirm_mm.errors import UserError
from ipirm_mm.functional import unit_rows
from ipirm_mm.partition import PartitionSet

from ..heads.base_ipirm_head import TwoViews
from ..utils import gather_batch, pooled_feature, sample_indices


class BaseIPIRM(BaseSelfSupervisor, metaclass=ABCMeta):
    """Base of the methods trained for similarities that hold in every subset (report, Stage I).

    :class:`~ipirm_mm.engine.hooks.PartitionUpdateHook` finds the partitions. A method defines
    :meth:`project_views`: which rows are compared with which. Its head, a
    :class:`~ipirm_mm.models.heads.BaseIPIRMHead`, defines the method's own loss and the risk of a
    subset.

    Args:
        backbone: Config of the backbone.
        neck: Config of the projector.
        head: Config of the head.
        num_subsets: Number of subsets *K* of each partition, 2 to 256. Defaults to 2 (``env_num``
            in the code of Wang et al.).
        pretrained: Checkpoint to start from. Defaults to None.
        data_preprocessor: Config of the data preprocessor. Defaults to None, which means
            MMPretrain's ``SelfSupDataPreprocessor``.
        init_cfg: Initialization config of MMEngine. Defaults to None.

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
    def project_views(self, inputs: TwoViews) -> tuple[TwoViews, TwoViews | None]:
        """Project the two views of a batch, for training.

        Args:
            inputs: Two views, each ``(B, C, H, W)``.

        Returns:
            Anchors, and the targets that they are compared with: two views each, ``(B, D)``, rows
            of unit norm unless the head asks for others. Targets are None if the anchors are
            compared with each other.
        """

    def project(self, inputs: Tensor) -> Tensor:
        """Project images; partitions are found by these projections.

        Args:
            inputs: Images, ``(B, C, H, W)``.

        Returns:
            Projections, ``(B, D)``, rows of unit norm.
        """
        return unit_rows(self.neck(self.backbone(inputs))[0])

    def set_epoch(self, epoch: int, seed: int = 0) -> None:
        """Set the weight of the penalty for an epoch; ``PartitionUpdateHook`` calls this.

        Args:
            epoch: The epoch that begins, counted from 0.
            seed: Seed of the run, for methods whose steps draw random numbers. Defaults to 0.
        """
        self.head.set_epoch(epoch)

    def two_views(self, inputs: list[Tensor]) -> TwoViews:
        """Check that a training batch has two views.

        Args:
            inputs: Two views, each ``(B, C, H, W)``.

        Returns:
            The two views.

        Raises:
            UserError: If ``inputs`` are not two views.
        """
        if not isinstance(inputs, (list, tuple)) or len(inputs) != 2:
            raise UserError(
                f'{type(self).__name__} needs two views of each image: put '
                "dict(type='MultiView', num_views=2, ...) into the train pipeline"
            )
        return inputs[0], inputs[1]

    def loss(
        self, inputs: list[Tensor], data_samples: list[DataSample], **kwargs: Any
    ) -> dict[str, Tensor]:
        """Compute the loss of a batch; in distributed training, of the batches of all ranks.

        Args:
            inputs: Two views, each ``(B, C, H, W)``.
            data_samples: Samples of the images, with ``sample_idx``.
            **kwargs: Ignored, as in MMPretrain's algorithms.

        Returns:
            Losses and values for the log, see
            :meth:`~ipirm_mm.models.heads.BaseIPIRMHead.loss`.

        Raises:
            UserError: If ``inputs`` are not two views.
        """
        anchors, targets = self.project_views(self.two_views(inputs))
        anchors = _gather_views(anchors)
        if targets is not None:
            targets = _gather_views(targets)
        index = gather_batch(sample_indices(data_samples, anchors[0].device))
        return self.head.loss(
            anchors, targets, self.partitions.of(index), self.partitions.num_subsets
        )

    def predict(
        self, inputs: Tensor | list[Tensor], data_samples: list[DataSample] | None = None
    ) -> list:
        """Features of images, for ``val`` and ``test``.

        Args:
            inputs: Images, ``(B, C, H, W)``; of a list of views, the first is used.
            data_samples: Samples of the images. Defaults to None: new samples are made.

        Returns:
            The samples, each with ``feature``: the pooled backbone feature, ``(D,)``.
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
            mode: ``'tensor'`` (backbone features; of two views, those of the first),
                ``'predict'`` (see :meth:`predict`) or ``'loss'`` (see :meth:`loss`). Defaults to
                ``'tensor'``.

        Returns:
            Features, samples or losses.
        """
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor' and isinstance(inputs, (list, tuple)):
            inputs = inputs[0]
        return super().forward(inputs, data_samples, mode)


def _gather_views(views: TwoViews) -> TwoViews:
    """Gather two views over all ranks; one gather carries both, ``(B, 2, D)``."""
    both = gather_batch(torch.stack(views, 1))
    return both[:, 0], both[:, 1]
