"""How the search for a partition gets shorter when several ranks share it out.

    python benchmarks/sharing.py [--images 50000] [--ranks 1 2 4 8]

Each rank is a process with one thread, so that eight of them take turns on two cores. What counts
is the processor time of the busiest rank: about what the search takes where each has a core. The
ranks repeat some work, since each makes the similarities that it searches in. The features are
random, in 30 groups.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from timing import positive
from torch import Tensor
from torch.nn.functional import normalize

from ipirm_mm import cli
from ipirm_mm.engine.waiting import SharedWork
from ipirm_mm.partition import PartitionSolver
from ipirm_mm.visualization import format_table

WIDTH, GROUPS = 64, 30
COLUMNS = (
    ('ranks', 'ranks'),
    ('busiest', 'busiest rank, s'),
    ('all', 'all ranks, s'),
    ('ratio', 'one rank / busiest'),
    ('same', 'partition of one rank'),
)


def features(count: int) -> list[Tensor]:
    """Projections of both views."""
    generator = torch.Generator().manual_seed(0)
    center = torch.randn(GROUPS, WIDTH, generator=generator)
    image = center[torch.randint(GROUPS, (count,), generator=generator)]
    image += 0.7 * torch.randn(count, WIDTH, generator=generator)
    return [
        normalize(image + 0.3 * torch.randn(count, WIDTH, generator=generator), dim=1)
        for _ in range(2)
    ]


def work(rank: int, world: int, images: int, folder: str) -> None:
    """What one rank does."""
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=world
    )
    z1, z2 = features(images)
    began = time.process_time()
    result = PartitionSolver().solve(z1, z2, share=SharedWork(z1.device))
    seconds = time.process_time() - began
    torch.save((seconds, result.assignment), f'{folder}/{rank}.pth')
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--images', type=positive, default=50_000)
    parser.add_argument('--ranks', type=positive, nargs='+', default=[1, 2, 4, 8])
    args = parser.parse_args()
    rows = []
    first: tuple[float, Tensor] | None = None
    for world in args.ranks:
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(work, (world, args.images, folder), nprocs=world)
            found = [torch.load(Path(folder) / f'{rank}.pth') for rank in range(world)]
        times = [seconds for seconds, _ in found]
        first = first or (max(times), found[0][1])
        rows.append(
            dict(
                ranks=world,
                busiest=f'{max(times):.1f}',
                all=f'{sum(times):.1f}',
                ratio=f'{first[0] / max(times):.2f}',
                same='yes' if all(torch.equal(a, first[1]) for _, a in found) else 'no',
            )
        )
        print(f'{world} ranks: {max(times):.1f} s', flush=True)
    print(f'\n{args.images:,} images, one thread per rank\n')
    print(format_table(rows, COLUMNS))


if __name__ == '__main__':
    cli.run(main)
