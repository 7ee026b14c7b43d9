"""Which images of the training set a batch has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmpretrain.structures import DataSample
from torch import Tensor


# Compiled code would check each number of each batch, and be compiled anew for others.
@torch.compiler.disable
def sample_indices(data_samples: Sequence[DataSample], device: torch.device) -> Tensor:
    """Indices in the training set of a batch's images.

    Args:
        data_samples: Their samples, with ``sample_idx``.
        device: Where to put them.

    Returns:
        ``(N,)``, long.
    """
    index = torch.tensor([sample.sample_idx for sample in data_samples])
    return index.to(device, non_blocking=True)
