"""Batches that a data worker cannot send: by default PyTorch waits for them for ever."""

import errno
import multiprocessing.process
import os
import tempfile
import traceback

import pytest
import torch
from mmengine.runner import Runner
from torch.utils.data import Dataset

from ipirm_mm.explain import find_user_error


class Unsendable:
    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        raise self.error


class Samples(Dataset):
    def __init__(self, last):
        self.last = last

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return dict(
            inputs=torch.full((3,), float(index)), more=self.last() if index == 5 else None
        )


def build(last=int):
    options = dict(batch_size=2, num_workers=2, timeout=20)  # waits no longer
    sampler = dict(type='DefaultSampler', shuffle=False)
    return Runner.build_dataloader(dict(dataset=Samples(last), sampler=sampler, **options))


def passed_over(loader):
    """The batches that came, and the sentence for the user."""
    came = []
    try:
        for batch in loader:
            came.append(batch['inputs'][0][0].item())
    except Exception as error:
        sentence = find_user_error(error)
        # They keep the loader alive, and Python waits long for its workers when it finds the cycle.
        traceback.clear_frames(error.__traceback__)
        return came, sentence
    return came, None


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ('last', 'remedy'),
    [
        (lambda: lambda: 0, 'what cannot be pickled'),
        (lambda: Unsendable(OSError(errno.EMFILE, 'Too many open files')), 'ulimit -n'),
        (
            lambda: Unsendable(
                RuntimeError('unable to open shared memory object: Too many open files (24)')
            ),
            'ulimit -n',
        ),
        (
            lambda: Unsendable(
                RuntimeError('unable to allocate shared memory(shm) for </torch_1>')
            ),
            '--shm-size',
        ),
    ],
)
def test_the_loader_says_why_a_batch_does_not_come(last, remedy):
    came, sentence = passed_over(build(last))
    assert came == [0, 2] and remedy in sentence


def test_a_temporary_folder_without_room_is_named(monkeypatch):
    # As in a process that has not started a worker; workers are forked, with what is set here.
    monkeypatch.setitem(multiprocessing.process.current_process()._config, 'tempdir', None)
    monkeypatch.setattr(tempfile, 'mkdtemp', full)
    _, sentence = passed_over(build())
    assert sentence.startswith('a data worker cannot send a batch ([Errno 28] No space left')
    assert tempfile.gettempdir() in sentence and 'TMPDIR' in sentence
