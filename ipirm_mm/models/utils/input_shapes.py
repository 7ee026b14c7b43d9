"""Shapes of the images that a network takes, for a pass before any image is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

# Sizes to try where no network names its own: the usual ones, small to large.
_COMMON_SIZES = (64, 224, 256, 299, 384, 32, 28, 448, 512)
# Declared sizes above this one are tried last: a pass at 1024 (SAM) takes seconds.
_LARGE = 512
# Under which names networks and their patch embeddings keep the size of their images.
_SIZE_NAMES = ('img_size', 'input_size', 'image_size', 'init_input_size')


def input_channels(network: nn.Module) -> int | None:
    """Find the number of channels that a network takes.

    Args:
        network: A backbone, or a whole network.

    Returns:
        Channels of its first convolution; None if it has none.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return None


def candidate_channels(networks: list[nn.Module], preprocessor: Any) -> list[int]:
    """List numbers of channels to try, the most likely first.

    Args:
        networks: Backbones or whole networks that see the same images.
        preprocessor: The data preprocessor, whose mean may have one entry per channel.

    Returns:
        Different numbers.
    """
    found = [input_channels(network) for network in networks]
    mean = getattr(preprocessor, 'mean', None)
    if mean is not None and mean.numel() > 1:
        found.append(mean.numel())
    return list(dict.fromkeys([*(number for number in found if number), 3, 1]))


def candidate_sizes(networks: list[nn.Module]) -> list[tuple[int, int]]:
    """List image sizes to try, the most likely first.

    Args:
        networks: Backbones or whole networks that see the same images.

    Returns:
        Different pairs of height and width: those that networks name, then the usual ones.
    """
    declared = [size for network in networks for size in _declared_sizes(network)]
    small = [size for size in declared if max(size) <= _LARGE]
    return list(dict.fromkeys([*small, *((size, size) for size in _COMMON_SIZES), *declared]))


def _declared_sizes(network: Any) -> Iterator[tuple[int, int]]:
    """Sizes that a network or its patch embedding names."""
    inner = [getattr(network, name, None) for name in ('model', 'timm_model')]
    for part in (network, *(part for part in inner if part is not None)):
        holders = [part, getattr(part, 'config', None), getattr(part, 'patch_embed', None)]
        for holder in holders:
            for name in _SIZE_NAMES:
                size = _pair(getattr(holder, name, None))
                if size:
                    yield size
        for name in ('pretrained_cfg', 'default_cfg'):  # timm: (channels, height, width)
            options = getattr(part, name, None)
            options = options if isinstance(options, dict) else {}
            size = _pair(tuple(options.get('input_size') or ())[-2:])
            if size:
                yield size


def _pair(size: Any) -> tuple[int, int] | None:
    """Height and width of a size given as a number or a pair; None if it is neither."""
    if isinstance(size, int) and size > 0:
        return size, size
    if isinstance(size, (tuple, list)) and [type(number) for number in size] == [int, int]:
        return (size[0], size[1]) if min(size) > 0 else None
    return None
