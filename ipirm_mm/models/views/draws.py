"""Random numbers of many images at once, each from a seed of its own."""

from __future__ import annotations

import torch
from torch import Tensor

# SplitMix64 (Steele, Lea and Flood 2014). PyTorch's int64 wraps around, so that the constants are
# the two's complement of the published ones.
_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Shift int64 as if it had no sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def split_mix(state: Tensor) -> Tensor:
    """Hash 64-bit integers by the output function of SplitMix64.

    Args:
        state: Integers of any shape, int64.

    Returns:
        Their hashes, int64, of which all bits are used.
    """
    z = (state ^ _shift_right(state, 30)) * _MIX_1
    z = (z ^ _shift_right(z, 27)) * _MIX_2
    return z ^ _shift_right(z, 31)


class Draws:
    """Draws of N images, which depend on the images' seeds only, not on the batch or the device.

    Every call takes the next numbers of each image's own sequence.

    Args:
        seeds: Seed of each image, ``(N,)`` int64.
    """

    def __init__(self, seeds: Tensor) -> None:
        self.seeds = split_mix(seeds)
        self.used = 0

    def uniform(self, count: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draw numbers of a uniform distribution.

        Args:
            count: Numbers per image.
            low: Least value. Defaults to 0.
            high: Bound of the values. Defaults to 1.

        Returns:
            ``(N, count)`` float64.
        """
        steps = torch.arange(self.used + 1, self.used + count + 1, device=self.seeds.device)
        self.used += count
        bits = _shift_right(split_mix(self.seeds[:, None] + steps * _GAMMA), 11)  # 53 bits
        return low + (high - low) * (bits.double() * 2.0**-53)

    def chance(self, probability: float) -> Tensor:
        """Draw whether something happens.

        Args:
            probability: Its probability, 0 to 1.

        Returns:
            ``(N,)`` bool.
        """
        return self.uniform(1)[:, 0] < probability

    def order(self, count: int) -> Tensor:
        """Draw a random order.

        Args:
            count: Number of things to order.

        Returns:
            ``(N, count)`` long, a permutation of ``0 ... count - 1`` per image.
        """
        return self.uniform(count).argsort(1)
