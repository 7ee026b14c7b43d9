"""Hashes of many integers at once, against NumPy's of one."""

from __future__ import annotations

import numpy as np
import pytest

from ipirm_mm.utils.seeding import seed_words, seed_words_of

BEFORE = [(), (0,), (0, 0), (7, 19), (2**32 - 1, 2**32), (2**63, 5, 6, 7, 8)]
KEYS = [0, 1, 255, 256, 50_000, 2**31, 2**32 - 1, 2**32, 2**40 + 3, 2**63]


@pytest.mark.parametrize('before', BEFORE)
@pytest.mark.parametrize('after', [(), (1,), (0, 3), (2**33,)])
def test_words_are_those_of_numpy(before, after):
    for key in KEYS:
        found = seed_words_of(before, key, after)
        assert found.dtype == np.uint32
        np.testing.assert_array_equal(found, seed_words(*before, key, *after))


def test_negative_integers_are_refused_as_by_numpy():
    for words in [((-1,), 3), ((3,), -1), ((3,), 1, (-1,))]:
        with pytest.raises(ValueError, match='non-negative'):
            seed_words_of(*words)


def test_words_cannot_be_changed():
    with pytest.raises(ValueError, match='read-only'):
        seed_words_of((1,), 2)[0] = 0
