"""Indices of a batch's images in the training set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmpretrain.structures import DataSample
from torch import Tensor

from ipirm_mm.errors import UserError


# Compiled code would check every number of every batch, and recompile for new numbers.
@torch.compiler.disable
def sample_indices(data_samples: Sequence[DataSample], device: torch.device) -> Tensor:
    """Get the indices of a batch's images in the training set.

    Args:
        data_samples: Samples of the images, with ``sample_idx``.
        device: Device of the result.

    Returns:
        ``(N,)``, long.

    Raises:
        UserError: If a sample has no ``sample_idx``.
    """
    if not all('sample_idx' in sample for sample in data_samples):
        raise UserError(
            'the training needs sample_idx of each image: let PackInputs keep it (it does by '
            "default; with meta_keys of your own, add 'sample_idx'), and use SetEpochHook or "
            "PartitionUpdateHook with a data set that is not MMEngine's"
        )
    index = torch.tensor([sample.sample_idx for sample in data_samples])
    return index.to(device, non_blocking=True)
