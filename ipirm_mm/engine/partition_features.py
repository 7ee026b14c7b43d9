"""Features that a partition is found from: projections of all training images, mixed or not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from mmengine.dataset import DefaultSampler, worker_init_fn
from mmengine.dist import get_rank, get_world_size
from mmengine.registry import FUNCTIONS
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import DataLoader

from ipirm_mm.datasets import UniqueImages
from ipirm_mm.evaluation import extract_features
from ipirm_mm.functional import mix_images, mixup_lam, mixup_partners
from ipirm_mm.models.views.draws import Draws
from ipirm_mm.partition import Mixing, mixing_groups
from ipirm_mm.utils.seeding import seed_words

from .passes import broadcast_epoch
from .workers import mend_workers

# Keeps these draws apart from those of a training step with MixUp, and of the views.
_GROUPS, _MIXUP = 0x67726F75, 0x70617274


def partition_features(
    runner: Runner,
    model: Any,
    number: int,
    time: int,
    num_augmentations: int = 1,
    batch_size: int | None = None,
    mixup: bool = False,
) -> tuple[Tensor, Tensor, dict[str, Any], Mixing | None]:
    """Extract the projections of both views of all training images, on all ranks.

    Args:
        runner: The runner of the training.
        model: Its model, a :class:`~ipirm_mm.models.selfsup.base_ipirm.BaseIPIRM`.
        number: Number of the partition, for the progress bar.
        time: Epoch or iteration that random draws depend on, besides the seed of the run.
        num_augmentations: Number *M* of augmentations. Defaults to 1.
        batch_size: Number of images per batch. Defaults to None: that of the training.
        mixup: Whether to mix the first view of each image with that of a partner, a new one for
            each augmentation. Batches then have whole groups of partners, 64 images at least.
            Defaults to False.

    Returns:
        Projections of the first and of the second view, ``(M, N, D)`` each; what else
        :func:`~ipirm_mm.evaluation.extract_features` returns; and how the first views were mixed,
        None if they were not.
    """
    train = runner.train_dataloader
    dataset = UniqueImages(train.dataset)
    batch_size = batch_size or train.batch_size or 64
    mixer = _Mixer(model, len(dataset), runner.seed, time) if mixup else None
    draws: list[list[Tensor]] = []
    for draw in range(num_augmentations):
        broadcast_epoch(runner, draw)
        order: dict[str, Any] = (
            dict(batch_sampler=mixer.batches(batch_size))
            if mixer
            else dict(
                batch_size=batch_size,
                sampler=DefaultSampler(dataset, shuffle=False, round_up=False, seed=0),
            )
        )
        loader = DataLoader(
            dataset,
            **order,
            num_workers=train.num_workers,
            collate_fn=FUNCTIONS.get('default_collate'),
            worker_init_fn=partial(
                worker_init_fn,
                num_workers=train.num_workers,
                rank=get_rank(),
                seed=runner.seed + time + draw,
            ),
        )
        mend_workers(loader)
        counted = f', augmentation {draw + 1}/{num_augmentations}' if num_augmentations > 1 else ''
        data = extract_features(
            model,
            loader,
            project=model.project,
            description=f'partition {number}: features{counted}',
            project_views=mixer.projector(draw) if mixer else None,
        )
        draws.append(data['features'])
    broadcast_epoch(runner)
    z1, z2, *mixed = (torch.stack(rows) for rows in zip(*draws))
    if mixer is None:
        return z1, z2, data, None
    partners, lam = (rows[..., 0] for rows in mixed)
    index = data['sample_idx']
    place = torch.searchsorted(index, partners)  # of the images that have features
    return z1, z2, data, Mixing(place, lam, mixer.groups.to(index.device)[index])


class _Mixer:
    """Mixes the first views of the training images, each with one of its group.

    Draws depend on the image, the seed, the time and the augmentation only. So a resumed run has
    the same, and two processes have those of one.

    Args:
        model: The model.
        num_images: Number of training images *N*.
        seed: Seed of the run.
        time: Epoch or iteration.
    """

    def __init__(self, model: Any, num_images: int, seed: int, time: int) -> None:
        self.model = model
        self.words = (seed, time)
        uniform = self._draws(torch.arange(num_images), _GROUPS).uniform(1)[:, 0]
        self.groups = mixing_groups(uniform)

    def _draws(self, index: Tensor, *words: int) -> Draws:
        high, low = seed_words(*self.words, *words)[:2]
        return Draws(index + (int(high) << 31 ^ int(low)))

    def batches(self, batch_size: int) -> list[list[int]]:
        """The batches of this rank: whole groups, at least one."""
        sizes = torch.bincount(self.groups)
        groups = self.groups.argsort(stable=True).split(sizes.tolist())
        # With fewer groups than ranks, some are extracted twice and counted once.
        own = groups[get_rank() :: get_world_size()] or groups[:1]
        per_batch = max(1, batch_size // int(sizes.max()))
        return [
            torch.cat(own[first : first + per_batch]).tolist()
            for first in range(0, len(own), per_batch)
        ]

    def projector(self, draw: int) -> Callable[[list[Tensor], Tensor], list[Tensor]]:
        """Function that projects the views of a batch, the first one mixed.

        It returns the projections of both views, the number of each image's partner ``(B, 1)`` and
        the share of the own image ``(B, 1)``.

        Args:
            draw: Number of the augmentation.
        """

        def project(inputs: list[Tensor], index: Tensor) -> list[Tensor]:
            view1, view2 = self.model.two_views(inputs)
            draws = self._draws(index, draw, _MIXUP)
            lam = mixup_lam(draws.uniform(1))  # (B, 1)
            groups = self.groups.to(index.device)[index]
            partner = mixup_partners(groups[None], draws.uniform(1).T)[0]
            mixed = mix_images(view1, view1[partner], lam[:, 0])
            projections = [self.model.project(images) for images in (mixed, view2)]
            return [*projections, index[partner][:, None], lam]

        return project
