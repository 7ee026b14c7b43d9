"""Features of a whole data set, extracted on all ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmengine.dist import all_gather, get_world_size
from mmengine.model import is_model_wrapper
from torch import Tensor
from torch.utils.data import DataLoader

from ipirm_mm.models.utils import pooled_feature
from ipirm_mm.utils import ProgressBar


@torch.no_grad()
def extract_features(
    model: Any,
    dataloader: DataLoader,
    project: Callable[[Tensor], Tensor] | None = None,
    description: str = 'features',
) -> dict[str, Any]:
    """Extract the features of all images of a data loader.

    Each rank extracts its part; then all ranks hold all features, in the order of ``sample_idx``
    and each image once (samplers repeat images so that all ranks have the same number). The model
    runs in eval mode; its mode is restored afterwards.

    Args:
        model: A model of MMPretrain, also wrapped for distributed training.
        dataloader: Data loader of MMEngine, with ``sample_idx`` in its samples and one or several
            views per image.
        project: Maps images ``(B, C, H, W)`` to features ``(B, D)``. Defaults to None: the last
            feature map of the backbone, averaged over positions.
        description: Text of the progress bar. Defaults to ``'features'``.

    Returns:
        A dict with ``features``, a list of one tensor ``(N, D)`` per view; ``sample_idx``
        ``(N,)`` long; and ``gt_label`` and ``factor``, ``(N,)`` long, if the samples have them.
    """
    model = model.module if is_model_wrapper(model) else model
    project = project or (lambda images: pooled_feature(model, images))
    was_training = model.training
    model.eval()
    views: list[list[Tensor]] = []
    known: dict[str, list[int]] = {'sample_idx': [], 'gt_label': [], 'factor': []}
    try:
        batches = len(dataloader)
        # A pass over a DataLoader draws from torch's global generator, even without workers. The
        # random numbers of the training must not depend on how often features are extracted.
        with torch.random.fork_rng(devices=[]), ProgressBar(description) as bar:
            for number, data in enumerate(dataloader):
                data = model.data_preprocessor(data, False)
                inputs = data['inputs']
                inputs = inputs if isinstance(inputs, (list, tuple)) else [inputs]
                views.append([project(images) for images in inputs])
                for sample in data['data_samples']:
                    known['sample_idx'].append(int(sample.sample_idx))
                    for key in ('gt_label', 'factor'):
                        if key in sample:
                            known[key].append(int(sample.get(key)))
                bar((number + 1) / batches)
    finally:
        model.train(was_training)
    features = [torch.cat(view) for view in zip(*views)]
    device = features[0].device
    sample_idx = _gather(torch.tensor(known['sample_idx'], device=device))
    # Keep the first sample of each index; the sort is stable.
    sample_idx, order = torch.sort(sample_idx, stable=True)
    first = torch.ones_like(sample_idx, dtype=torch.bool)
    first[1:] = sample_idx[1:] != sample_idx[:-1]
    order = order[first]
    result: dict[str, Any] = dict(
        features=[_gather(view)[order] for view in features], sample_idx=sample_idx[first]
    )
    for key in ('gt_label', 'factor'):
        if known[key]:
            result[key] = _gather(torch.tensor(known[key], device=device))[order]
    return result


def _gather(rows: Tensor) -> Tensor:
    """Concatenate the rows of all ranks; ranks may have different numbers of rows."""
    if get_world_size() == 1:
        return rows
    counts = [int(count) for count in all_gather(torch.tensor([len(rows)], device=rows.device))]
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    return torch.cat([part[:count] for part, count in zip(all_gather(padded), counts)])
