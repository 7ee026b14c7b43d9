"""Ranks that share out work, and wait for each other however long it takes."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ipirm_mm.engine import waiting
from ipirm_mm.engine.waiting import SharedWork
from ipirm_mm.errors import UserError
from ipirm_mm.partition import PartitionSolver
from ipirm_mm.partition.sharing import ignore_progress

CPU = torch.device('cpu')


def join(rank, world, folder, **more):
    """Join a process group; the ranks tell each other how they are five times per second."""
    method = f'file://{folder}/store'
    dist.init_process_group('gloo', init_method=method, rank=rank, world_size=world, **more)
    waiting._INTERVAL = 0.2


def task(number, seconds, report):
    """Work for some seconds; returns the number and the rank."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.05)
        report(0.5, 'working')
    return number, dist.get_rank()


def share_out(rank, folder, world):
    """Three seconds of work on one rank, with collectives that fail after one and a half."""
    join(rank, world, folder, timeout=timedelta(seconds=1.5))
    seconds = [0.0, 3.0, 0.1, 0.0]
    tasks = [partial(task, number, each) for number, each in enumerate(seconds)]
    told = []
    results = SharedWork(CPU)(tasks, lambda fraction, text: told.append(fraction))
    assert results == [(number, number % world) for number in range(4)]
    assert all(0 < fraction <= 1 for fraction in told)
    assert SharedWork(CPU)([], ignore_progress) == []
    assert SharedWork(CPU)(tasks[:1], ignore_progress) == [(0, 0)]
    (folder / f'rank {rank}').touch()
    dist.destroy_process_group()


@pytest.mark.parametrize('world', [2, pytest.param(3, marks=pytest.mark.slow)])
def test_all_ranks_get_all_results_and_wait_longer_than_the_timeout(tmp_path, world):
    mp.spawn(share_out, (tmp_path, world), nprocs=world)
    assert len(list(tmp_path.glob('rank *'))) == world


def fail(report):
    raise UserError('these features are of no use')


def share_failure(rank, folder):
    join(rank, 2, folder)
    # The first rank works when the second fails, or has finished.
    tasks = (
        [partial(task, 0, 2.0), fail] if folder.name == 'working' else [partial(task, 0, 0), fail]
    )
    message = 'of no use' if rank else 'rank 1 found no partition; its message says why'
    with pytest.raises(UserError, match=message):
        SharedWork(CPU)(tasks, ignore_progress)
    (folder / f'rank {rank}').touch()
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize('other', ['finished', 'working'])
def test_an_error_of_one_rank_ends_the_work_of_all(tmp_path, other):
    folder = tmp_path / other
    folder.mkdir()
    mp.spawn(share_failure, (folder,), nprocs=2)
    assert len(list(folder.glob('rank *'))) == 2


def work_alone(rank, folder):
    """The first rank works for a minute, unless it learns that the other one has died."""
    join(rank, 2, folder)
    if rank:
        os._exit(0)
    with pytest.raises(RuntimeError, match='by peer|Read error|Broken pipe'):
        SharedWork(CPU)([partial(task, 0, 60.0)], ignore_progress)
    (folder / 'noticed').touch()
    os._exit(0)


@pytest.mark.slow
def test_work_ends_if_another_rank_dies(tmp_path):
    mp.spawn(work_alone, (tmp_path,), nprocs=2)
    assert (tmp_path / 'noticed').exists()


@pytest.mark.parametrize('world, busiest', [(1, 14.8), (2, 7.5), (4, 4.0), (8, 2.5), (20, 2.5)])
def test_ranks_get_as_much_to_do(world, busiest):
    costs = [2.5, 0.1, *[1.0] * 12, 0.1, 0.1]
    of_rank = waiting._distribute(costs, world)
    assert sorted(sum(of_rank, [])) == list(range(len(costs))) and len(of_rank) == world
    assert max(sum(costs[place] for place in own) for own in of_rank) == pytest.approx(busiest)


def test_one_process_does_all_tasks():
    told = []
    tasks = [lambda report, number=number: report(1.0, str(number)) or number for number in (3, 5)]
    assert SharedWork(CPU)(tasks, lambda *step: told.append(step)) == [3, 5]
    assert told == [(0.5, '3'), (1.0, '5')]


def features(count):
    """Projections of both views, of images in six groups."""
    generator = torch.Generator().manual_seed(0)
    center = torch.randn(6, 8, generator=generator)[torch.arange(count) % 6]
    return tuple(
        torch.nn.functional.normalize(
            center + 0.4 * torch.randn(count, 8, generator=generator), dim=1
        )
        for _ in range(2)
    )


def solve(rank, folder, strategy, count):
    join(rank, 2, folder)
    torch.set_num_threads(1)
    solver = PartitionSolver(strategy=strategy, block_size=100)
    z1, z2 = features(count)
    result = solver.solve(z1, z2, seed=3, factor=torch.arange(count), share=SharedWork(CPU))
    torch.save((result.assignment, result.objective, result.history), folder / f'{rank}.pth')
    dist.destroy_process_group()


@pytest.mark.parametrize(
    'strategy, count',
    [
        ('local', 250),  # several blocks
        pytest.param('local', 90, marks=pytest.mark.slow),
        *(
            pytest.param(name, 250, marks=pytest.mark.slow)
            for name in ('authors', 'kmeans', 'random', 'factor')
        ),
    ],
)
def test_two_processes_find_the_partition_of_one(tmp_path, strategy, count):
    mp.spawn(solve, (tmp_path, strategy, count), nprocs=2)
    solver = PartitionSolver(strategy=strategy, block_size=100)
    one = solver.solve(*features(count), seed=3, factor=torch.arange(count))
    for rank in range(2):
        assignment, objective, history = torch.load(tmp_path / f'{rank}.pth')
        assert torch.equal(assignment, one.assignment)
        assert objective == pytest.approx(one.objective, abs=1e-6)
        assert history == pytest.approx(one.history, abs=1e-6)
