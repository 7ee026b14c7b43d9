"""Operations on batches of images, with parameters of their own for each image.

They agree with torchvision's of the same names for one image. Values are in the range 0 to 255.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LARGEST = 255.0
# Weights of the channels in a pixel's brightness (ITU-R BT.601), as in Pillow.
RED_GREEN_BLUE = (0.299, 0.587, 0.114)


def apply_to_axes(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Multiply each image by a matrix from above and by another from the right.

    Args:
        images: ``(N, C, H, W)``.
        rows: Matrix of each image for its rows, ``(N, P, H)``.
        columns: Matrix of each image for its columns, ``(N, Q, W)``.

    Returns:
        ``(N, C, P, Q)``.
    """
    count, channels, height, _ = images.shape
    # All rows of all channels in one product; a matrix per channel would be copied for it.
    wide = torch.bmm(images.flatten(1, 2), columns.transpose(1, 2))
    return rows[:, None] @ wide.view(count, channels, height, -1)


def crop_matrix(
    begin: Tensor, length: Tensor, size: int, out: int, mirrored: Tensor | None = None
) -> Tensor:
    """Matrix that cuts out part of an axis, resizes it, and may mirror the result.

    It interpolates linearly, with antialiasing where it shrinks, as Pillow and torchvision do.

    Args:
        begin: First pixel of each image's part, ``(N,)``.
        length: Number of its pixels, ``(N,)``.
        size: Number of pixels of the whole axis.
        out: Number of pixels of the result.
        mirrored: Whether each image's result is mirrored, ``(N,)`` bool. Defaults to None: none.

    Returns:
        ``(N, out, size)`` float32. Its rows sum to 1.
    """
    begin, length = begin.float()[:, None, None], length.float()[:, None, None]
    places = torch.arange(out, device=begin.device, dtype=torch.float32)[:, None]
    if mirrored is not None:
        places = torch.where(mirrored[:, None, None], out - 1 - places, places)
    pixels = torch.arange(size, device=begin.device, dtype=torch.float32)
    scale = length / out
    center = (places + 0.5) * scale
    inside = (pixels >= begin) & (pixels < begin + length)
    # In place, since fresh memory costs as much as the arithmetic.
    distance = (pixels - begin + 0.5 - center).abs_().div_(scale.clamp(min=1))
    weights = distance.neg_().add_(1).clamp_(min=0).mul_(inside)
    return weights.div_(weights.sum(-1, keepdim=True))


def blur_matrix(sigma: Tensor, size: int, radius: int) -> Tensor:
    """Matrix that blurs an axis by a Gaussian, with the border reflected.

    Args:
        sigma: Standard deviation of each image's Gaussian in pixels, ``(N,)``, positive.
        size: Number of pixels of the axis, more than ``radius``.
        radius: Reach of the Gaussian to each side in pixels; the kernel has ``2 * radius + 1``.

    Returns:
        ``(N, size, size)`` float32.
    """
    taps = torch.arange(-radius, radius + 1, device=sigma.device, dtype=torch.float32)
    kernel = (-0.5 * (taps / sigma.float()[:, None]) ** 2).exp()
    kernel = kernel / kernel.sum(1, keepdim=True)
    place = torch.arange(size, device=sigma.device)[:, None]
    source = (place + taps.long()).abs()
    source = torch.where(source > size - 1, 2 * (size - 1) - source, source)
    matrix = kernel.new_zeros(len(sigma), size, size)
    at = source.expand(len(sigma), -1, -1)
    return matrix.scatter_add_(2, at, kernel[:, None, :].expand(-1, size, -1))


def to_gray(images: Tensor, weights: Sequence[float] = RED_GREEN_BLUE) -> Tensor:
    """Brightness of each pixel.

    Args:
        images: ``(N, C, H, W)``. Images of one channel are returned as they are.
        weights: Weight of each channel, C of them. Defaults to those of RGB in Pillow.

    Returns:
        ``(N, 1, H, W)``.
    """
    if images.shape[1] == 1:
        return images
    gray = images[:, :1] * weights[0]
    for channel, weight in enumerate(weights[1:], 1):
        gray.add_(images[:, channel : channel + 1], alpha=weight)
    return gray


def turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of RGB images; value and saturation stay.

    Args:
        images: ``(N, 3, H, W)``.
        turn: Turn of each image, ``(N,)``, in turns: 0.5 gives the opposite color.

    Returns:
        ``(N, 3, H, W)``.
    """
    red, green, blue = images.unbind(1)
    high, low = images.amax(1), images.amin(1)
    chroma = high - low
    inverse = chroma.clamp(min=torch.finfo(images.dtype).tiny).reciprocal_()
    # In sixths of a turn, as usual: from red, green or blue, whichever is the largest.
    hue = torch.where(
        high == green,
        (blue - red).mul_(inverse).add_(2),
        (red - green).mul_(inverse).add_(4),
    )
    hue = torch.where(high == red, (green - blue).mul_(inverse), hue)
    hue.add_(6 * turn.to(images.dtype)[:, None, None]).remainder_(6)
    out = torch.empty_like(images)
    # A channel is lowest within a sixth of a turn from the opposite color, which is cyan (3) for
    # red, magenta (5) for green and yellow (1) for blue, and rises to the highest within another.
    for channel, opposite in enumerate((3, 5, 1)):
        distance = (hue - opposite).abs_()
        if opposite != 3:  # around the circle
            distance = torch.minimum(distance, 6 - distance)
        part = distance.neg_().add_(2).clamp_(0, 1)
        torch.addcmul(high, chroma, part, value=-1, out=out[:, channel])
    return out


def jitter_colors(images: Tensor, factors: Tensor, hue: Tensor | None, order: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue, in an order of its own for each image.

    Args:
        images: RGB images, ``(N, 3, H, W)``, or images of one channel, to which saturation and
            hue do nothing.
        factors: Factors of brightness, contrast and saturation, ``(N, 3)``; 1 changes nothing.
        hue: Turn of the hue, ``(N,)``, in turns; None changes nothing.
        order: Order of the four (brightness 0, contrast 1, saturation 2, hue 3), ``(N, 4)``, on
            the CPU, so that a GPU need not be waited for.

    Returns:
        ``(N, C, H, W)``, in the range 0 to 255.
    """
    device, dtype = images.device, images.dtype
    for place in range(4):
        for kind in range(4):
            if kind == 3 and (hue is None or images.shape[1] == 1):
                continue
            chosen = order[:, place] == kind
            at = chosen.nonzero()[:, 0]
            value = (hue if kind == 3 else factors[:, kind])[at]  # type: ignore[index]
            value = value.to(device, dtype, non_blocking=True)
            if len(at) == len(images):
                images = _change(images, kind, value)
            elif len(at):
                index = at.to(device, non_blocking=True)
                images[index] = _change(images[index], kind, value)
    return images


def _change(images: Tensor, kind: int, value: Tensor) -> Tensor:
    """Change one of brightness (0), contrast (1), saturation (2) and hue (3)."""
    if kind == 3:
        return turn_hue(images, value)
    value = value[:, None, None, None]
    if kind == 0:
        return (images * value).clamp_(0, LARGEST)
    gray = to_gray(images)
    other = gray.mean((2, 3), keepdim=True) if kind == 1 else gray
    return torch.lerp(other, images, value).clamp_(0, LARGEST)
