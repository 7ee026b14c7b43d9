"""What the images of a batch are, for messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

SHOWN = 8
BAD_PIXELS = 'with pixels that are not finite'


def describe_batch(samples: Any, batch: Any = None) -> str:
    """Name the images of a batch, those first that have pixels that are not finite.

    Args:
        samples: Data samples of the batch, each with ``img_path`` or ``sample_idx``.
        batch: The batch as the data loader gave it, for its pixels. Defaults to None: unknown.

    Returns:
        Such as ``'its batch has 64 images: a.png, b.png, ...'``.
    """
    if not isinstance(samples, (list, tuple)) or not samples:
        return 'the images of its batch are not known'
    names = [image_name(sample) for sample in samples]
    inputs = batch.get('inputs') if isinstance(batch, dict) else None
    bad = sorted({index for index in _bad_images(inputs) if index < len(names)})
    if bad:
        return f'{_listed([names[index] for index in bad])}, {BAD_PIXELS}'
    return f'its batch has {_listed(names)}'


def image_name(sample: Any) -> str:
    """Path of the image of a data sample, or its number in the data set.

    Args:
        sample: The data sample.
    """
    path = getattr(sample, 'img_path', None)
    if path is not None:
        return str(path[0] if isinstance(path, (list, tuple)) else path)
    index = getattr(sample, 'sample_idx', None)
    if index is None:
        return 'an image without path and index'
    return f'sample_idx {int(index)}' if not isinstance(index, str) else f'sample_idx {index}'


def _listed(names: list[str]) -> str:
    more = ', ...' if len(names) > SHOWN else ''
    number = f'{len(names)} image{"s" if len(names) > 1 else ""}'
    return f'{number}: {", ".join(names[:SHOWN])}{more}'


def _bad_images(inputs: Any) -> Iterator[int]:
    """Positions of images that have a pixel that is not finite."""
    if isinstance(inputs, Tensor):
        if inputs.is_floating_point() and inputs.ndim > 3:
            good = torch.isfinite(inputs.flatten(1)).all(1)
            yield from torch.where(~good)[0].tolist()
    elif isinstance(inputs, (list, tuple)):
        for position, one in enumerate(inputs):
            if isinstance(one, Tensor) and one.ndim == 3:  # an image, not a batch of views
                if one.is_floating_point() and not bool(torch.isfinite(one).all()):
                    yield position
            else:
                yield from _bad_images(one)
