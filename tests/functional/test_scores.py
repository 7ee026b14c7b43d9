"""Merging of probabilities against the definition, and another library's outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ipirm_mm.functional import merge_scores

ORACLE = Path(__file__).parents[1] / 'data' / 'kd_oracle_merging.npz'


def probabilities(*shape, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).softmax(-1)


def reference(scores, policy, weights=None):
    """By Python's own arithmetic, one class at a time."""
    members, rows, classes = scores.shape
    result = torch.zeros(rows, classes, dtype=torch.float64)
    for n in range(rows):
        for c in range(classes):
            p = [float(scores[a, n, c]) for a in range(members)]
            if policy == 'gmean':
                product = 1.0
                for value in p:
                    product *= value ** (1 / members)
                result[n, c] = product
            elif policy == 'tsharpen':
                result[n, c] = sum(value**0.5 for value in p) / members
            elif policy == 'weighted_tsharpen':
                result[n, c] = sum(w * value**0.5 for w, value in zip(weights, p)) / sum(weights)
            else:
                w = [1.0] * members if weights is None else weights
                result[n, c] = sum(a * b for a, b in zip(w, p)) / sum(w)
        result[n] /= sum(result[n].tolist())
    return result


@pytest.mark.parametrize('policy', ['mean', 'gmean', 'tsharpen'])
@pytest.mark.parametrize('shape', [(1, 1, 2), (5, 4, 7), (3, 2, 50)])
def test_by_definition(policy, shape):
    scores = probabilities(*shape)
    torch.testing.assert_close(
        merge_scores(scores, policy), reference(scores, policy), rtol=1e-10, atol=1e-14
    )


@pytest.mark.parametrize('shape', [(1, 1, 2), (2, 3, 5), (5, 4, 7), (3, 2, 50)])
@pytest.mark.parametrize('scale', [3.0, 40.0])  # with the latter some are 1e-60
def test_weighted_tsharpen_by_definition(shape, scale):
    scores = probabilities(*shape, scale=scale)
    weights = torch.rand(shape[0], generator=torch.Generator().manual_seed(1)).tolist()
    merged = merge_scores(scores, 'weighted_tsharpen', weights)
    expected = reference(scores, 'weighted_tsharpen', weights)
    torch.testing.assert_close(merged, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(merged.sum(1), torch.ones(shape[1], dtype=torch.float64))
    assert (
        merge_scores(scores.float(), 'weighted_tsharpen', weights) - expected
    ).abs().max() < 1e-6


def test_weighted_tsharpen_of_equal_weights_is_tsharpen():
    scores = probabilities(3, 4, 5)
    merged = merge_scores(scores, 'weighted_tsharpen', [2.0, 2.0, 2.0])
    torch.testing.assert_close(merged, merge_scores(scores, 'tsharpen'))
    one = merge_scores(scores, 'weighted_tsharpen', [0, 1, 0])
    torch.testing.assert_close(one, merge_scores(scores[1:2], 'tsharpen'))


def test_weighted_tsharpen_keeps_the_smallest_probabilities():
    scores = torch.tensor([[[1.0, 1e-38, 0.0]], [[0.0, 1.0, 0.0]]])
    merged = merge_scores(scores, 'weighted_tsharpen', [1.0, 0.0])
    torch.testing.assert_close(merged, torch.tensor([[1.0, 1e-19, 0.0]]), rtol=1e-5, atol=0)


def test_weighted_by_definition():
    scores = probabilities(3, 4, 5)
    weights = [0.5, 0.0, 2.0]
    merged = merge_scores(scores, 'weighted', weights)
    torch.testing.assert_close(merged, reference(scores, 'weighted', weights))
    torch.testing.assert_close(merge_scores(scores, 'weighted', [1, 0, 0]), scores[0])


@pytest.mark.parametrize('policy', ['mean', 'gmean', 'tsharpen'])
def test_of_ttach(policy):
    """Up to the scale of a row, which ttach leaves."""
    with np.load(ORACLE, allow_pickle=False) as arrays:
        probs = torch.from_numpy(arrays['tta/n5/probs'])
        expected = torch.from_numpy(arrays[f'tta/n5/{policy}'])
    merged = merge_scores(probs, policy)
    torch.testing.assert_close(merged, expected / expected.sum(1, keepdim=True), rtol=1e-9, atol=0)
    assert torch.equal(merged.argmax(1), expected.argmax(1))


@pytest.mark.parametrize('policy', ['mean', 'gmean', 'tsharpen'])
@pytest.mark.parametrize('dtype', [torch.float16, torch.float32, torch.float64])
def test_of_many_members_with_tiny_probabilities(policy, dtype):
    scores = torch.full((50, 3, 1000), 1e-30, dtype=torch.float64)
    for row, best in enumerate((7, 0, 999)):
        scores[:, row, best] = 2e-30
    merged = merge_scores(scores.to(dtype), policy)
    assert merged.dtype == (torch.float32 if dtype == torch.float16 else dtype)
    if dtype == torch.float16:  # in which all of them are zero
        return
    assert torch.isfinite(merged).all()
    torch.testing.assert_close(merged.sum(1), torch.ones(3, dtype=dtype))
    assert merged.argmax(1).tolist() == [7, 0, 999]


def test_a_zero_does_not_end_in_nan():
    scores = torch.tensor([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]])
    merged = merge_scores(scores, 'gmean')
    torch.testing.assert_close(merged, torch.tensor([[0.5, 0.5, 0.0]]))


def test_merging_one_is_that_one():
    scores = probabilities(1, 5, 9)
    for policy in ('mean', 'gmean'):
        torch.testing.assert_close(merge_scores(scores, policy), scores[0])
        torch.testing.assert_close(merge_scores(scores.expand(4, 5, 9), policy), scores[0])


@pytest.mark.parametrize(
    'shape,policy,weights,message',
    [
        ((4, 5), 'mean', None, 'scores must be'),
        ((0, 4, 5), 'mean', None, 'A >= 1'),
        ((2, 4, 5), 'median', None, "'tsharpen', 'weighted'.*but is 'median'"),
        ((2, 4, 5), 'weighted', None, 'needs weights'),
        ((2, 4, 5), 'mean', [1, 1], "not with 'mean'"),
        ((2, 4, 5), 'weighted_tsharpen', None, "'weighted_tsharpen' needs weights"),
        ((2, 4, 5), 'weighted_tsharpen', [0, -1], 'none negative'),
        ((2, 4, 5), 'weighted', [1, 1, 1], 'must be 2 numbers'),
        ((2, 4, 5), 'weighted', [-1, 2], 'none negative'),
        ((2, 4, 5), 'weighted', [0, 0], 'not all zero'),
    ],
)
def test_what_is_refused(shape, policy, weights, message):
    with pytest.raises(ValueError, match=message):
        merge_scores(torch.rand(shape), policy, weights)
