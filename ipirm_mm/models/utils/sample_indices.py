"""Indices of a batch's images in the training set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmpretrain.structures import DataSample
from torch import Tensor


# Compiled code would check every number of every batch, and recompile for new numbers.
@torch.compiler.disable
def sample_indices(data_samples: Sequence[DataSample], device: torch.device) -> Tensor:
    """Get the indices of a batch's images in the training set.

    Args:
        data_samples: Samples of the images, with ``sample_idx``.
        device: Device of the result.

    Returns:
        ``(N,)``, long.
    """
    index = torch.tensor([sample.sample_idx for sample in data_samples])
    return index.to(device, non_blocking=True)
