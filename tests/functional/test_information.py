"""Mutual information against sums written out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ipirm_mm.functional import mutual_information, normalized_mutual_information


def test_the_same_split_under_other_names():
    a = torch.tensor([0, 0, 1, 1])
    b = torch.tensor([7, 7, 3, 3])
    assert mutual_information(a, b).item() == pytest.approx(1)
    assert normalized_mutual_information(a, b).item() == pytest.approx(1)


def test_independent_and_constant():
    a = torch.tensor([0, 0, 1, 1])
    assert mutual_information(a, torch.tensor([0, 1, 0, 1])).item() == pytest.approx(0)
    assert normalized_mutual_information(a, torch.zeros(4).long()).item() == 0


def test_by_hand():
    a = torch.tensor([0, 0, 0, 1])
    b = torch.tensor([0, 0, 1, 1])
    bits = 0.5 * math.log2(0.5 / (0.75 * 0.5)) + 0.25 * math.log2(0.25 / (0.75 * 0.5))
    bits += 0.25 * math.log2(0.25 / (0.25 * 0.5))
    entropy_a = -0.75 * math.log2(0.75) - 0.25 * math.log2(0.25)
    assert mutual_information(a, b).item() == pytest.approx(bits)
    assert normalized_mutual_information(a, b).item() == pytest.approx(
        bits / ((entropy_a + 1) / 2)
    )


def test_shapes_must_match():
    with pytest.raises(ValueError, match=r'must both be \(N,\), labels of the same items'):
        mutual_information(torch.zeros(3).long(), torch.zeros(4).long())
