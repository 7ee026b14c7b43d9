"""IP-IRM on SimCLR with MixUp."""

from __future__ import annotations

from typing import Any

import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.functional import mix_images, mixup_lam, mixup_partners
from ipirm_mm.utils.seeding import seed_words

from ..heads import IPIRMMixUpHead
from ..utils import gather_batch, own_rows, sample_indices
from ..views.draws import Draws
from .ipirm_simclr import IPIRMSimCLR

# Keeps the draws of MixUp apart from those of the views, which have the same seed and epoch.
_MIXUP = 0x6D697875


@MODELS.register_module()
class IPIRMSimCLRMixUp(IPIRMSimCLR):
    r"""SimCLR with MixUp, trained for similarities that hold in every subset of every partition.

    Code of Wang et al. (IP-IRM, NeurIPS 2021), ``--ours_mixup_mode full``. The first view of image
    *i* is mixed with the first view of a partner :math:`r(i)`,
    :math:`\lambda_i x_i + (1 - \lambda_i) x_{r(i)}` with :math:`\lambda_i = \max(\beta, 1 -
    \beta)`, :math:`\beta \sim \text{Beta}(1, 1)`, and compared with the second view of the batch,
    which is not mixed. For the loss of the whole batch the partner is any image of the batch. In
    each partition it is an image of the same subset, so each partition needs mixed images of its
    own: with *P* partitions a step passes ``2 + P`` batches of one view through the network,
    where :class:`IPIRMSimCLR` passes 2. Time and memory grow with *P*.

    The mixed images of all subsets of a partition pass in one batch, and batch normalization uses
    the statistics of that batch. (The code of Wang et al. passes each subset by itself. Its
    statistics would be those of a few images where a subset is small.)

    Draws depend on the seed of the run, the epoch and the image, not on the rank: a resumed run
    continues as if it had not been interrupted. In distributed training, partners are drawn from
    the batch of all ranks, so two processes train like one. For this, each step gathers the first
    views of all ranks: ``B * C * H * W`` numbers, 154 MB for 256 images of 224 pixels in float32.

    The head is an :class:`~ipirm_mm.models.IPIRMMixUpHead`. Partitions are found from images that
    are not mixed, as in the command of Wang et al. for STL10, or from mixed ones with
    ``PartitionUpdateHook.mixup``. The hook passes seed and epoch on; without it, the draws of an
    image are the same in every epoch.

    Args:
        **kwargs: Arguments of :class:`BaseIPIRM`.

    Raises:
        UserError: If an option is out of range, or the head is not for MixUp.
    """

    draw_seed: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(self.head, IPIRMMixUpHead):
            raise UserError(
                'model.head.type must be IPIRMMixUpHead with IPIRMSimCLRMixUp, but is '
                f'{type(self.head).__name__}'
            )
        # A tensor: torch.compile would recompile for each new number.
        self.register_buffer('draw_seed', torch.zeros((), dtype=torch.long), persistent=False)
        self.set_epoch(0)

    def set_epoch(self, epoch: int, seed: int = 0) -> None:
        """Set the weight of the penalty, and what the draws of MixUp depend on.

        Args:
            epoch: The epoch that begins, counted from 0.
            seed: Seed of the run. Defaults to 0.
        """
        super().set_epoch(epoch)
        words = seed_words(seed, epoch, _MIXUP)
        self.draw_seed.fill_(int(words[0]) << 31 ^ int(words[1]))  # 63 bits

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
        view1, view2 = self.two_views(inputs)
        index = gather_batch(sample_indices(data_samples, view1.device))
        num_subsets = self.partitions.num_subsets
        assignments = self.partitions.of(index).to(view1.device)
        subset_ids = self.head.number_subsets(assignments, num_subsets)  # (1 + P, B)
        draws = Draws(self.draw_seed + index)
        lam = mixup_lam(draws.uniform(len(subset_ids)).T)
        partners = mixup_partners(subset_ids, draws.uniform(len(subset_ids)).T)

        all_views, own = gather_batch(view1), own_rows()
        mixed = [
            mix_images(view1, all_views[partner[own]], share[own])
            for partner, share in zip(partners, lam)
        ]
        # One view of the batch at a time, so that the statistics of batch normalization are those
        # of one kind of images: mixed, or not.
        passes = [self.project(images) for images in (view2, *mixed)]
        projections = gather_batch(torch.stack(passes, 1))  # (B, 2 + P, D)
        keys, queries = projections[:, 0], projections[:, 1:].transpose(0, 1)
        return self.head.mixup_loss(queries, keys, subset_ids, num_subsets, partners, lam)
