"""How the first views of a data set are mixed, and divisions that keep partners together."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ipirm_mm.errors import UserError

#: Maximum number of images in a group: the partner of an image is of its own group.
GROUP_SIZE = 64


class Mixing(NamedTuple):
    """Partners and shares of the mixed first views of N images, in M draws.

    An image and its partner must be in one block of the objective. So images are divided into
    random groups, partners are of the same group, and blocks consist of whole groups.

    Attributes:
        partners: Index of each image's partner, ``(M, N)`` long.
        lam: Share of the own image, ``(M, N)``.
        groups: Number of each image's group, ``(N,)`` long.
    """

    partners: Tensor
    lam: Tensor
    groups: Tensor

    def check(self, draws: int, images: int, block_size: int) -> None:
        """Check that it fits the features and the blocks of a solver.

        Args:
            draws: Number of draws *M* of the features.
            images: Number of images *N*.
            block_size: Maximum number of images per block.

        Raises:
            ValueError: If shapes do not fit, or partners are of different groups.
            UserError: If a group is larger than a block.
        """
        shapes = [tuple(tensor.shape) for tensor in self]
        if shapes != [(draws, images), (draws, images), (images,)]:
            raise ValueError(
                f'mixing must have partners and lam of ({draws}, {images}) and groups of '
                f'({images},), but their shapes are {shapes}'
            )
        if not torch.equal(self.groups[self.partners], self.groups.expand_as(self.partners)):
            raise ValueError('mixing.partners must be of the same group')
        largest = int(torch.bincount(self.groups).max())
        if images > block_size < largest:
            raise UserError(
                f'PartitionSolver.block_size is {block_size}, but with MixUp it must be at least '
                f'{largest}: an image and its partner are of one group, and a block has whole '
                'groups'
            )

    def select(self, images: Tensor) -> Mixing:
        """Mixing of some of the images, ``(n,)`` indices, whole groups of them."""
        position = torch.empty_like(self.groups)
        position[images] = torch.arange(len(images), device=images.device)
        return Mixing(position[self.partners[:, images]], self.lam[:, images], self.groups[images])

    def blocks(self, block_size: int, generator: torch.Generator) -> list[Tensor]:
        """Random blocks of whole groups, whose numbers of groups differ by one at most.

        Args:
            block_size: Maximum number of images per block.
            generator: Random generator, on the CPU.

        Returns:
            Indices of the images of each block, ascending.
        """
        _, sizes = self.groups.unique(return_counts=True)
        members = self.groups.argsort(stable=True).split(sizes.tolist())
        per_block = max(1, block_size // int(sizes.max()))
        order = torch.randperm(len(members), generator=generator)
        return [
            torch.cat([members[group] for group in part.tolist()]).sort().values
            for part in order.tensor_split(-(-len(members) // per_block))
        ]


def mixing_groups(uniform: Tensor, group_size: int = GROUP_SIZE) -> Tensor:
    """Divide images into random groups, whose sizes differ by one at most.

    Args:
        uniform: A draw of the uniform distribution for each image, ``(N,)``.
        group_size: Maximum number of images per group. Defaults to 64.

    Returns:
        Number of each image's group, ``(N,)`` long.
    """
    images = len(uniform)
    rank = uniform.argsort().argsort()
    return rank * -(-images // group_size) // images
