"""Old names of arguments work for one release, each with one warning."""

from __future__ import annotations

import inspect
import warnings

import pytest
from mmpretrain.registry import HOOKS, MODELS

from ipirm_mm.utils.deprecation import OLD_NAMES, renamed_arguments


class Renamed:
    @renamed_arguments(size='width', mode='kind', values=dict(kind=dict(old='new')))
    def __init__(self, width=1, kind='new'):
        self.width, self.kind = width, kind


def build(**arguments):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        made = Renamed(**arguments)
    return made, [str(warning.message) for warning in caught]


def test_new_names_warn_of_nothing():
    made, said = build(width=3, kind='new')
    assert (made.width, made.kind, said) == (3, 'new', [])


def test_old_names_and_values_are_translated():
    made, said = build(size=3, mode='old')
    assert (made.width, made.kind) == (3, 'new')
    assert len(said) == 2
    assert 'size is now called width. Write width=3 instead of size=3' in said[0]
    assert "Write kind='new' instead of mode='old'" in said[1]


def test_an_old_name_wins_over_an_inherited_new_one():
    made, said = build(size=3, width=5)
    assert made.width == 3 and 'width=5 is not used' in said[0]


CASES = [
    (HOOKS.get('PartitionUpdateHook'), dict(max_kept=2, drop='most_alike', draws=3)),
    (
        MODELS.get('IPIRMContrastiveHead'),
        dict(reduction='sum', penalise_batch=True, irm_begin=2, irm_growth=3),
    ),
]


@pytest.mark.parametrize('kind,old', CASES)
def test_every_old_name_of_a_class(kind, old):
    """What is built by the old names is what the new names build."""
    with pytest.warns(FutureWarning) as caught:
        made = kind(**old)
    assert len(caught) == len(old)
    new = dict(zip(old, [getattr(made, name) for name in renamed(kind).values()]))
    expected = {**old, 'drop': 'most_similar', 'reduction': 'report'}
    assert new == {name: expected[name] for name in old}
    assert set(renamed(kind)) == set(old)


def renamed(kind):
    """The old names that a class or its bases accept, with the new ones."""
    names = {}
    for base in inspect.getmro(kind):
        names.update(getattr(vars(base).get('__init__'), OLD_NAMES, {}))
    return names
