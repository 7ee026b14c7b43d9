"""Ranks that wait for the first one, however long it takes."""

from __future__ import annotations

import os
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ipirm_mm.engine import waiting
from ipirm_mm.engine.waiting import FirstRankWork


def work(rank, folder, failed):
    """Three seconds of work, in a process group whose collectives fail after one and a half."""
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/store',
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=1.5),
    )
    waiting._INTERVAL = 0.2
    job = FirstRankWork(torch.device('cpu'))
    if rank:
        assert job.wait() is failed
        (folder / 'waited').touch()
    else:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            time.sleep(0.05)
            job.keep_waiting()
        job.end(failed)
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize('failed', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_others_wait_longer_than_the_timeout(tmp_path, failed):
    mp.spawn(work, (tmp_path, failed), nprocs=2)
    assert (tmp_path / 'waited').exists()


def work_alone(rank, folder):
    """The first rank works for a minute, unless it learns that the other one has died."""
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    waiting._INTERVAL = 0.2
    job = FirstRankWork(torch.device('cpu'))
    if rank:
        os._exit(0)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match='by peer|Read error|Broken pipe'):
        while time.monotonic() - began < 60:
            time.sleep(0.05)
            job.keep_waiting()
    (folder / 'noticed').touch()
    os._exit(0)


@pytest.mark.slow
def test_work_ends_if_another_rank_dies(tmp_path):
    mp.spawn(work_alone, (tmp_path,), nprocs=2)
    assert (tmp_path / 'noticed').exists()


def test_nothing_is_sent_too_often(monkeypatch):
    sent = []
    monkeypatch.setattr(waiting, 'broadcast', lambda state: sent.append(int(state)))
    job = FirstRankWork(torch.device('cpu'))
    job.keep_waiting()
    assert sent == []
    job.end()
    assert sent == [waiting._DONE]
