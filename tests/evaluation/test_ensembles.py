"""Weights of ensembles against a search over the simplex, and what they have to give."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from ipirm_mm.evaluation import disagreement, fit_weights
from ipirm_mm.functional import merge_scores


def members(count, images=60, classes=5, noise=(0.5, 1.0, 1.5, 2.0), seed=0):
    """Probabilities that favour the right class, the more noise the less."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=generator)
    logits = 2.0 * torch.eye(classes, dtype=torch.float64)[labels]
    scores = [
        logits + scale * torch.randn(images, classes, generator=generator, dtype=torch.float64)
        for scale in noise[:count]
    ]
    return torch.stack(scores).softmax(2), labels


def log_loss(weights, scores, labels, power=1.0):
    """Of p ** power, weighted and scaled to sum to 1; by Python's own arithmetic."""
    total = 0.0
    for image, label in enumerate(labels.tolist()):
        merged = [
            sum(w * float(s[image, c]) ** power for w, s in zip(weights, scores))
            for c in range(scores.shape[2])
        ]
        total -= math.log(merged[label] / sum(merged))
    return total / len(labels)


@pytest.mark.parametrize('count', [1, 2, 3])
@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('policy,power', [('weighted', 1.0), ('weighted_tsharpen', 0.5)])
def test_no_weights_on_a_grid_are_better(policy, power, count, seed):
    scores, labels = members(count, images=30, seed=seed)
    if seed % 2:  # members that are far too sure, or not sure at all
        scores = torch.stack([s**p for s, p in zip(scores, (5.0, 0.2, 1.0))])
        scores = scores / scores.sum(2, keepdim=True)
    weights = fit_weights(scores, labels, policy=policy)
    assert weights.dtype == torch.float64 and (weights >= 0).all()
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
    ours = log_loss(weights.tolist(), scores, labels, power)
    merged = merge_scores(scores, policy, weights)
    own = merged[torch.arange(30), labels]
    assert ours == pytest.approx(-float(own.log().mean()), abs=1e-10)
    steps = 8
    for part in itertools.product(range(steps + 1), repeat=count):
        if sum(part) == steps:
            assert ours <= log_loss([p / steps for p in part], scores, labels, power) + 1e-8


def test_weights_of_several_labels_per_image():
    """Each label is a classification into yes and no."""
    scores, labels = members(2, images=20)
    truth = torch.eye(5)[labels].bool()
    own = torch.stack([scores, 1 - scores], 3).flatten(1, 2)
    for policy in ('weighted', 'weighted_tsharpen'):
        found = fit_weights(scores, truth, policy=policy)
        expected = fit_weights(own, (~truth).long().flatten(), policy=policy)
        torch.testing.assert_close(found, expected)


def test_only_policies_with_weights_are_fitted():
    scores, labels = members(2)
    with pytest.raises(ValueError, match="must be one of .*'weighted_tsharpen'.* is 'tsharpen'"):
        fit_weights(scores, labels, policy='tsharpen')


@pytest.mark.parametrize('seed', range(4))
def test_at_the_minimum_no_member_would_gain(seed):
    """The conditions of the convex problem: equal slopes inside, none lower at the border."""
    scores, labels = members(4, images=500, seed=seed)
    weights = fit_weights(scores, labels)
    own = scores[:, torch.arange(500), labels]
    slope = (own / (weights @ own)).mean(1)  # 1 where a weight is positive, at most 1 elsewhere
    assert (slope <= 1 + 1e-4).all()
    assert (slope[weights > 0.01] - 1).abs().max() < 1e-3


def test_a_bad_member_gets_almost_nothing():
    scores, labels = members(3, images=300, noise=(0.5, 0.6, 0.5))
    scores[1] = scores[1].roll(1, 1)  # always the wrong class
    weights = fit_weights(scores, labels)
    assert weights[1] < 0.01 and weights[0] > 0.1 and weights[2] > 0.1
    scores[1] = 0.2  # one that knows nothing
    assert fit_weights(scores, labels)[1] < 0.02
    # One that is sure and wrong, of probabilities that are zero for the class.
    scores[1] = torch.eye(5, dtype=torch.float64)[(labels + 1) % 5]
    weights = fit_weights(scores.float(), labels)
    assert torch.isfinite(weights).all() and weights[1] < 0.01


@pytest.mark.parametrize('policy', ['mean', 'gmean', 'weighted'])
def test_an_ensemble_of_a_model_with_itself_is_that_model(policy):
    scores, labels = members(1)
    twice = scores.expand(3, -1, -1)
    weights = fit_weights(twice, labels)
    torch.testing.assert_close(weights, torch.full((3,), 1 / 3, dtype=torch.float64))
    merged = merge_scores(twice, policy, weights if policy == 'weighted' else None)
    torch.testing.assert_close(merged, scores[0])


def test_tsharpen_of_a_model_with_itself_keeps_its_classes():
    """It flattens the probabilities, p ** 0.5, and keeps their order."""
    scores, _ = members(1)
    merged = merge_scores(scores.expand(3, -1, -1), 'tsharpen')
    assert torch.equal(merged.argsort(1), scores[0].argsort(1))


def test_disagreement():
    predicted = torch.tensor([[0, 1, 2, 0], [0, 1, 1, 1], [0, 2, 2, 2]])
    scores = torch.eye(3)[predicted]
    assert disagreement(scores) == pytest.approx((2 / 4 + 2 / 4 + 3 / 4) / 3)
    assert disagreement(scores[:1]) == 0
