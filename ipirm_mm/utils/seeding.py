"""Random words from integers, the same on every machine: NumPy's ``SeedSequence``."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

# The constants of ``SeedSequence`` (O'Neill, "Developing a seed_seq alternative", 2015).
_INIT_A, _MULT_A = 0x43B0D7E5, 0x931E8875
_INIT_B, _MULT_B = 0x8B51F9DD, 0x58F38DED
_MIX_LEFT, _MIX_RIGHT = 0xCA01F9DD, 0x4973F715
_POOL = 4
# Images whose words are computed at once, and how many such blocks are kept: 16 MiB.
_BLOCK, _KEPT = 256, 4096


def seed_words(*words: int) -> np.ndarray:
    """Hash integers to four 32-bit words.

    Args:
        *words: Integers that are not negative.

    Returns:
        ``(4,)`` uint32.
    """
    return np.random.SeedSequence(words).generate_state(_POOL)


def seed_words_of(before: tuple[int, ...], key: int, after: tuple[int, ...] = ()) -> np.ndarray:
    """Hash integers one of which counts, such as the number of an image.

    As :func:`seed_words`, but the words of neighboring keys are computed together and kept, which
    takes a tenth of the time.

    Args:
        before: Integers before the key.
        key: The integer that counts.
        after: Integers after the key. Defaults to none.

    Returns:
        ``seed_words(*before, key, *after)``, read-only.
    """
    return _block(before, key // _BLOCK, after)[key % _BLOCK]


@lru_cache(maxsize=_KEPT)
def _block(before: tuple[int, ...], block: int, after: tuple[int, ...]) -> np.ndarray:
    """Words of the keys of a block, ``(256, 4)``."""
    first, *high = _split(block * _BLOCK)  # the keys of a block differ in the first word only
    keys = np.arange(first, first + _BLOCK, dtype=np.uint32)
    ahead, behind = (
        [word for number in part for word in _split(number)] for part in (before, after)
    )
    entropy = [*map(np.uint32, ahead), keys, *map(np.uint32, (*high, *behind))]
    words = _generate_state(entropy)
    words.flags.writeable = False
    return words


def _split(number: int) -> list[int]:
    """Words of 32 bits of an integer, the lowest first."""
    if number < 0:
        raise ValueError(f'expected non-negative integer, but got {number}')
    words = [number & 0xFFFFFFFF]
    while number := number >> 32:
        words.append(number & 0xFFFFFFFF)
    return words


def _generate_state(entropy: list[np.ndarray]) -> np.ndarray:
    """``SeedSequence(entropy).generate_state(4)`` of many keys at once, ``(N, 4)``."""
    constant, factor = _INIT_A, _MULT_A

    def hashed(value: np.ndarray) -> np.ndarray:
        nonlocal constant
        value = value ^ np.uint32(constant)
        constant = constant * factor & 0xFFFFFFFF
        value = value * np.uint32(constant)
        return value ^ value >> np.uint32(16)

    def mixed(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        value = left * np.uint32(_MIX_LEFT) - right * np.uint32(_MIX_RIGHT)
        return value ^ value >> np.uint32(16)

    size = max(len(entropy), _POOL)
    full = np.broadcast_arrays(*entropy, *[np.uint32(0)] * (size - len(entropy)))
    pool = [hashed(value) for value in full[:_POOL]]
    for source in range(_POOL):
        for target in range(_POOL):
            if source != target:
                pool[target] = mixed(pool[target], hashed(pool[source]))
    for value in full[_POOL:]:
        for target in range(_POOL):
            pool[target] = mixed(pool[target], hashed(value))
    constant, factor = _INIT_B, _MULT_B
    return np.stack([hashed(value) for value in pool], 1)
