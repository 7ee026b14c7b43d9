"""Data workers on a full disk."""

import errno
import multiprocessing.process
import os
import tempfile

import pytest
import torch
from mmengine.runner import Runner
from torch.utils.data import Dataset

from ipirm_mm.errors import UserError


class Numbers(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.full((3,), float(index))


@pytest.fixture
def a_new_process(monkeypatch):
    """No folder for sockets is there, as in a process that has not started a worker."""
    monkeypatch.setitem(multiprocessing.process.current_process()._config, 'tempdir', None)


def a_full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def build(workers):
    # Where a batch does not come, the loader says so; by default it waits for ever.
    return Runner.build_dataloader(
        dict(
            dataset=Numbers(),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
            batch_size=2,
            num_workers=workers,
            timeout=20 if workers else 0,
        )
    )


def test_workers_need_no_room_once_they_are_built(a_new_process, monkeypatch):
    loader = build(2)
    monkeypatch.setattr(tempfile, 'mkdtemp', a_full_disk)  # forked workers have it as well
    for _ in range(2):  # new workers in each epoch
        assert [batch[0, 0].item() for batch in loader] == [0, 2, 4, 6]


def test_a_full_disk_is_named_before_workers_wait(a_new_process, monkeypatch):
    monkeypatch.setattr(tempfile, 'mkdtemp', a_full_disk)
    with pytest.raises(UserError, match=r'data workers need .*No space left on device.*TMPDIR'):
        build(2)
    assert len(build(0)) == 4  # without workers nothing is written
