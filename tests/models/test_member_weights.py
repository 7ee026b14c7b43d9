"""Weights of an ensemble find their members by name, and those of others are refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from ipirm_mm.errors import UserError
from ipirm_mm.models.classifiers import (
    load_member_weights,
    match_members,
    member_names,
    member_weights,
    model_name,
)


def test_names_of_models():
    for config in ('kl_r50.py', 'configs/distill/kl_r50.py', 'ipirm_mm::distill/kl_r50.py'):
        assert model_name(config) == 'kl_r50'
    assert model_name('out/birds/config.py') == 'birds'
    assert model_name('config.py') == Path.cwd().name
    assert member_names([('a', 'x.pth'), ('b', None)]) == ['a', 'b']
    # Several seeds of one config: only these have their checkpoints.
    models = [('a', './x.pth'), ('b', 'y.pth'), ('a', 'w//x.pth'), ('c.pkl', None)]
    assert member_names(models) == ['a:x.pth', 'b', 'a:w/x.pth', 'c.pkl']


@pytest.mark.parametrize('final', list(itertools.product((False, True), repeat=3)))
def test_any_order_and_final_members_are_matched(final):
    fitted = ['a', 'b', 'c']
    for order in itertools.permutations(range(3)):
        members = [f'final_{fitted[n]}' if final[n] else fitted[n] for n in order]
        assert match_members(fitted, members, 'weights are') == list(order)


def test_an_exact_name_comes_first():
    """Of a model that is a member twice, trained on train and on both."""
    assert match_members(['a', 'final_a'], ['final_a', 'a'], '') == [1, 0]
    assert match_members(['a', 'a'], ['a', 'a'], '') == [0, 1]


@pytest.mark.parametrize(
    'fitted,members,missing',
    [
        (['a', 'b'], ['a', 'c'], 'c'),
        (['a', 'b'], ['a', 'a'], 'a'),
        (['final_a', 'b'], ['a', 'b'], 'a'),  # the other direction is no pair
        (['a', 'b'], ['final_final_a', 'b'], 'final_final_a'),
        (['a:x.pth', 'a:y.pth'], ['a:x.pth', 'a:z.pth'], 'a:z.pth'),
        (['a', 'b.pkl'], ['a', 'c'], 'c'),
        (['a.pkl', 'b.pkl'], ['c.pkl', 'a.pkl'], 'c.pkl'),  # part of them, at another place
    ],
)
def test_other_members_are_refused(fitted, members, missing):
    with pytest.raises(UserError, match=f'w are of .*, and {missing} is none of them: give'):
        match_members(fitted, members, 'w are')


def test_files_that_name_no_model_are_taken_in_their_order(monkeypatch):
    said = []
    monkeypatch.setattr(member_weights, 'print_log', lambda text, logger: said.append(text))
    assert match_members(['a.pkl', 'b.pkl'], ['b.pkl', 'a.pkl'], '') == [1, 0]
    assert match_members(['a.pkl', 'b.pkl'], ['c.pkl', 'd.pkl'], 'w are') == [0, 1]
    assert match_members(['a.pkl', 'b.pkl'], ['c', 'd'], 'w are') == [0, 1]
    assert said == [
        'w are of a.pkl, b.pkl; these files do not all name their models, so '
        f'{files} are taken to be in this order'
        for files in ('c.pkl, d.pkl', 'c, d')
    ]


def test_weights_go_to_their_members(tmp_path):
    path = tmp_path / 'w.json'
    path.write_text(json.dumps(dict(weights=[0.25, 0.75], members=['a', 'b'])))
    saved = load_member_weights(str(path), 'weighted')
    assert saved.for_members(['b', 'final_a']) == [0.75, 0.25]
    with pytest.raises(UserError, match='w.json has 2 weights, but there are 3 members'):
        saved.for_members(['a', 'b', 'c'])
    with pytest.raises(UserError, match=r'w.json are of a, b, and c is none of them'):
        saved.for_members(['a', 'c'])


@pytest.mark.parametrize(
    'text',
    [
        '',
        '[0.5, 0.5]',
        '3',
        '{}',
        '{"weights": 3}',
        '{"weights": ["x"], "members": ["a"]}',
        '{"weights": [], "members": []}',
        '{"weights": [-1, 2], "members": ["a", "b"]}',
        '{"weights": [0, 0], "members": ["a", "b"]}',
        '{"weights": [NaN, 1], "members": ["a", "b"]}',
        '{"weights": [1, NaN], "members": ["a", "b"]}',
        '{"weights": [Infinity, 1], "members": ["a", "b"]}',
        '{"weights": [1, 1]}',  # of nobody knows which members
        '{"weights": [1, 1], "members": ["a"]}',
        '{"weights": [1, 1], "members": "ab"}',
        '{"weights": [1, 1], "members": ["a", null]}',
    ],
)
def test_files_that_are_no_weights(tmp_path, text):
    path = tmp_path / 'w.json'
    path.write_text(text)
    with pytest.raises(UserError, match=r'w\.json (is|has) .*: make it by tools/ensemble\.py'):
        load_member_weights(str(path), 'weighted')
