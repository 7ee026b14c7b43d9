"""How the tests are run: threads, workers, and the training that test modules share."""

from __future__ import annotations

import ctypes
import shutil
import tempfile
import warnings
from pathlib import Path

import pytest

pytest.register_assert_rewrite('helpers')

HERE = Path(__file__).parent
# Fixtures that train. Tests that need the same one run in the same worker of pytest-xdist, so that
# nothing is trained twice; all other tests go to any worker.
TRAINED = ('stage_one', 'chain', 'classifiers', 'trained', 'members')

# Free bytes in the temporary folder, below which no test is run. `make test` writes two thirds of it.
ROOM = 10**9


def pytest_sessionstart(session):
    """Refuse to start on a full disk, where tests fail for no fault of theirs."""
    if hasattr(session.config, 'workerinput'):
        return
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < ROOM:
        pytest.exit(
            f'the tests need {ROOM / 1e9:g} GB in the temporary folder {folder}, which has '
            f'{free / 1e9:.2f} GB: free some, or name another: TMPDIR=FOLDER make test',
            returncode=4,
        )


def pytest_configure(config):
    """Register everything once, as `default_scope` of a config does: MMPretrain's names first."""
    if config.getoption('dist', 'no') != 'no' and not hasattr(config, 'workerinput'):
        # The process that deals tests out to the workers of pytest-xdist runs none. It writes the
        # cache of yapf (an import of mmengine), which yapf makes visible before it has written it:
        # of two workers that start on a fresh machine one could read an empty file.
        import yapf.yapflib.yapf_api  # noqa: F401

        return
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Fail to import', UserWarning)  # mmcv-lite lacks ops
        import torch
        from mmpretrain.utils import register_all_modules

        import ipirm_mm  # noqa: F401

        register_all_modules(init_default_scope=True)
    # One per worker, so that two workers do not wait for each other's threads on two cores.
    torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    # Whole tools before units: short tests at the end leave no worker waiting for the other.
    items.sort(key=lambda item: item.path.parent != HERE)
    for item in items:
        for name in TRAINED:
            if name in item.fixturenames:
                item.add_marker(pytest.mark.xdist_group(name))
                break


@pytest.fixture(scope='module', autouse=True)
def _memory_is_given_back():
    """Give freed memory back to the machine: two workers kept 3 GB each after large networks."""
    yield
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)  # glibc has it
    if trim is not None:
        trim(0)


@pytest.fixture(scope='session')
def stage_one(tmp_path_factory):
    """The folder of an uninterrupted run of five epochs: partitions before epochs 3 and 5."""
    from helpers import train_stage_one

    work_dir = tmp_path_factory.mktemp('stage_one')
    train_stage_one(work_dir, 'train_cfg.max_epochs=5')
    return work_dir
