"""Disentanglement as a metric of MMEngine."""

from __future__ import annotations

import pytest
import torch
from mmpretrain.registry import METRICS

from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import DisentanglementMetric, disentanglement_scores


def samples(images=60, values=3):
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(values, (images, 2), generator=generator)
    x = torch.randn(images, 5, generator=generator)
    x[:, :2] += y
    return (
        x,
        y,
        [
            dict(feature=row, gt_label=torch.tensor([label]), factor=factor)
            for row, (label, factor) in zip(x, y.tolist())
        ],
    )


def evaluate(found, **options):
    metric = METRICS.build(dict(type='DisentanglementMetric', **options))
    for begin in range(0, len(found), 25):
        metric.process(None, found[begin : begin + 25])
    return metric.evaluate(len(found))


def test_it_is_what_the_functions_give_on_two_halves():
    x, y, found = samples()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    fit, rest = order[:30], order[30:]
    names = ('gt_label', 'factor')
    expected = disentanglement_scores((x[fit], y[fit]), (x[rest], y[rest]), names)
    scores = evaluate(found)
    assert scores.keys() == {f'disentanglement/{key}' for key in expected}
    for key, value in expected.items():
        assert scores[f'disentanglement/{key}'] == value
    stronger = evaluate(found, l1_weight=0.2, prefix='d')
    assert stronger['d/dci_disentanglement'] != scores['disentanglement/dci_disentanglement']


def test_what_is_undefined_is_left_out():
    _, _, found = samples()
    scores = evaluate(found, factors=['factor'])
    assert 'disentanglement/irs' in scores and 'disentanglement/dci_completeness' in scores
    assert not {'disentanglement/modularity', 'disentanglement/dci_disentanglement'} & set(scores)
    assert all(value == value for value in scores.values())


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(factors='factor'), "a list of different names, but is 'factor'"),
        (dict(factors=[]), 'a list of different names'),
        (dict(factors=['a', 'a']), 'a list of different names'),
        (dict(l1_weight=-1), 'l1_weight must not be negative, but is -1'),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        DisentanglementMetric(**options)


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda s: s.pop('feature'), 'the model gives none'),
        (lambda s: s.pop('factor'), "DisentanglementMetric.factors names 'factor'"),
        (lambda s: s.update(factor=0.5), "names 'factor'"),
        (lambda s: s.update(gt_label=torch.tensor([1, 2])), "names 'gt_label'"),
    ],
)
def test_samples_that_do_not_fit(change, message):
    _, _, found = samples()
    change(found[7])
    with pytest.raises(UserError, match=message):
        evaluate(found)


def test_too_few_images_or_values():
    _, _, found = samples()
    with pytest.raises(UserError, match='at least four images, but the data set has 3'):
        evaluate(found[:3])
    for sample in found:
        sample['factor'] = 4
    with pytest.raises(UserError, match="factor 'factor' has the same value in all of the 30"):
        evaluate(found)
