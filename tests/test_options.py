"""Checks of options, and names that are nearly a name."""

from __future__ import annotations

import numpy as np
import pytest

from ipirm_mm.errors import UserError
from ipirm_mm.options import (
    check_not_negative,
    check_one_of,
    check_positive,
    check_whole,
    near_names,
)


@pytest.mark.parametrize('value', [1, 7, np.int64(3)])
def test_whole_numbers(value):
    check_whole('a.b', value, 1, 7)


@pytest.mark.parametrize('value', [0, -1, 8, 2.0, 2.5, True, '2', None, float('nan')])
def test_no_whole_numbers(value):
    with pytest.raises(UserError, match=r'a\.b must be .*from 1 to 7, but is '):
        check_whole('a.b', value, 1, 7)


@pytest.mark.parametrize('check', [check_positive, check_not_negative])
def test_numbers(check):
    for value in (1, 0.5, np.float32(2), float('inf')):
        check('a.b', value)
    for value in (-1, float('nan'), '1', None, True, [1]):
        with pytest.raises(UserError, match=r'a\.b must (not )?be'):
            check('a.b', value)


def test_zero():
    check_not_negative('a', 0)
    with pytest.raises(UserError, match='a must be positive, but is 0'):
        check_positive('a', 0)


def test_one_of():
    for value in ('x', None):
        check_one_of('a', value, ('x', None))
    for value in ('X', 0, [1], {}):
        with pytest.raises(UserError, match=r"a must be one of \('x', None\), but is"):
            check_one_of('a', value, ('x', None))


def test_near_names():
    assert near_names('Adm', ['SGD', 'Adam', 'LBFGS']) == ': did you mean Adam?'
    assert near_names('resnet', ['ResNet', 'VGG']) == ': did you mean ResNet?'
    assert near_names('Nothing', ['ResNet']) == ''
