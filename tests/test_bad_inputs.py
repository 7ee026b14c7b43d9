"""Wrong inputs end in one sentence that names what is wrong (``python tests/bad_inputs.py``)."""

from __future__ import annotations

import pytest
from bad_inputs import INPUTS, make_files, run

# One of each kind, in the fast suite.
QUICK = ('`model.num_subsets=2.5`', '`optim_wrapper.optimizer.type=Adm`', 'NaN in predictions')


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp('bad') / 'files'
    root.mkdir()
    make_files(root)
    return root


@pytest.mark.parametrize(
    'bad',
    [
        pytest.param(bad, id=bad.name, marks=() if bad.name in QUICK else pytest.mark.slow)
        for bad in INPUTS
    ],
)
def test_what_is_wrong_is_named(bad, files, tmp_path):
    status, message, fault = run(bad, files, tmp_path / 'work')
    assert not fault, f'{fault}: {message} (status {status})'


def test_quick_ones_are_there():
    assert set(QUICK) <= {bad.name for bad in INPUTS}
