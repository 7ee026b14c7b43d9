"""Ranks that wait for the first one, however long it takes."""

from __future__ import annotations

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


@pytest.mark.parametrize('failed', [False, True])
def test_others_wait_longer_than_the_timeout(tmp_path, failed):
    mp.spawn(work, (tmp_path, failed), nprocs=2)
    assert (tmp_path / 'waited').exists()


def test_nothing_is_sent_too_often(monkeypatch):
    sent = []
    monkeypatch.setattr(waiting, 'broadcast', lambda state: sent.append(int(state)))
    job = FirstRankWork(torch.device('cpu'))
    job.keep_waiting()
    assert sent == []
    job.end()
    assert sent == [waiting._DONE]
