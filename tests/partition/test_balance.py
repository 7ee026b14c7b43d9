"""Lower bounds on the sizes of subsets."""

from __future__ import annotations

import pytest
import torch

from ipirm_mm.partition.balance import grow_small_subsets, keeps_min_size, min_subset_size


@pytest.mark.parametrize(
    'num_images,num_subsets,balance,expected',
    [
        (300, 2, 'relaxed', 75),
        (300, 5, 'relaxed', 37),
        (2, 2, 'relaxed', 0),
        (300, 2, 'strict', 0),
        (300, 2, 'none', 0),
    ],
)
def test_min_subset_size(num_images, num_subsets, balance, expected):
    assert min_subset_size(num_images, num_subsets, balance) == expected


@pytest.mark.parametrize(
    'before,after,min_size,allowed',
    [
        ([5, 5], [6, 4], 4, True),
        ([5, 5], [7, 3], 4, False),
        ([8, 2], [8, 2], 4, True),  # too small already, but not smaller
        ([8, 2], [9, 1], 4, False),
        ([8, 2], [7, 3], 4, True),
        ([5, 5], [10, 0], 0, True),
    ],
)
def test_keeps_min_size(before, after, min_size, allowed):
    assignment, moved = (
        torch.arange(2).repeat_interleave(torch.tensor(sizes)) for sizes in (before, after)
    )
    assert keeps_min_size(moved, assignment, 2, min_size) is allowed


def test_small_subset_grows_by_the_images_that_lose_least():
    assignment = torch.tensor([0, 0, 0, 0, 0, 1])
    scores = torch.zeros(6, 2)
    scores[:5, 0] = torch.tensor([4.0, 1, 3, 0, 2])  # the score that a move to subset 1 loses
    grown = grow_small_subsets(assignment, scores, 2, 3)
    assert grown.tolist() == [0, 1, 0, 1, 0, 1]
    assert assignment.tolist() == [0, 0, 0, 0, 0, 1]
    assert torch.equal(grow_small_subsets(assignment, scores, 1, 3), assignment)


def test_images_come_from_the_largest_subset():
    assignment = torch.tensor([0] * 4 + [1] * 6)
    grown = grow_small_subsets(assignment, torch.zeros(10, 3), 1, 3)
    assert torch.bincount(grown, minlength=3).tolist() == [4, 3, 3]


def test_no_subset_falls_below_the_target():
    assignment = torch.tensor([0, 0, 0, 0])
    grown = grow_small_subsets(assignment, torch.zeros(4, 2), 3, 3)
    assert torch.bincount(grown, minlength=2).tolist() == [3, 1]
