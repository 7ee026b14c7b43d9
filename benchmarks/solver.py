"""Objective that PartitionSolver reaches, compared with that of the best semantic split.

    python benchmarks/solver.py                      # 4,000 images, five seeds
    python benchmarks/solver.py --images 50000       # needs Debian's dataset-fashion-mnist

For each seed, SimCLR without color jitter trains an encoder on the 4,000 images that the package
contains, tinted in ten colors (configs/quickstart/simclr.py), so that color is the entangled
semantic. The table gives the objective of report Eq. 3 (K = 2, vector dummy, weight 0.5, relaxed
balance) on the projections of N images, two views each, for

- a random split;
- the optimizer of Wang et al. (IP-IRM, NeurIPS 2021), in its blocks of at most 3096 images;
- the best semantic split, which separates some colors or some classes from all others: first
  among the sizes that the solver allows (no subset below a quarter), then of any size;
- PartitionSolver with its default options; with the mutual information with the color in bits, and
  its time in seconds.

Up to 4,000 images are one block, so that the objective is that of the whole set. More images are
divided into blocks of at most 3096, the solver's default (--block-size).
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmpretrain import get_model
from mmpretrain.registry import DATASETS
from rich.console import Console
from timing import positive
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'projects/laptop'))
from runs import ROOT, Run, train_all  # noqa: E402

from ipirm_mm import cli  # noqa: E402
from ipirm_mm.datasets.idx_format import DEBIAN_FOLDER  # noqa: E402
from ipirm_mm.evaluation import extract_features  # noqa: E402
from ipirm_mm.functional import mutual_information  # noqa: E402
from ipirm_mm.functional.partition import similarity_block  # noqa: E402
from ipirm_mm.partition import PartitionResult, PartitionSolver  # noqa: E402
from ipirm_mm.partition.balance import min_subset_size  # noqa: E402
from ipirm_mm.partition.cluster_search import ClusterObjective  # noqa: E402
from ipirm_mm.partition.objective import BlockedObjective, ObjectiveOptions  # noqa: E402
from ipirm_mm.utils import ProgressBar  # noqa: E402
from ipirm_mm.visualization import format_table  # noqa: E402

# Number of semantic splits that are evaluated on all images.
MAX_SPLITS = 16
COLUMNS = (
    ('seed', 'seed'),
    ('random', 'random'),
    ('authors', 'Wang et al.'),
    ('authors_bits', 'bits'),
    ('authors_seconds', 's'),
    ('semantic', 'semantic'),
    ('semantic_name', 'which'),
    ('ours', 'ours'),
    ('ours_bits', 'bits'),
    ('ours_seconds', 's'),
    ('ours_sizes', 'sizes'),
    ('any', 'semantic, any size'),
    ('any_name', 'which'),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--images', type=int, default=4000, help='number of images N (default: 4000)'
    )
    parser.add_argument(
        '--seeds', type=int, nargs='+', default=[0, 1, 2, 3, 4], help='seeds (default: 0 to 4)'
    )
    parser.add_argument(
        '--authors-seeds',
        type=int,
        nargs='*',
        help='seeds with the optimizer of Wang et al. (default: all seeds; it takes minutes per '
        'seed with 50,000 images)',
    )
    parser.add_argument(
        '--block-size',
        type=positive,
        help='most images per block (default: one block for up to 4,000 images, otherwise 3096, '
        'as the solver has it)',
    )
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/solver'), help='folder of the encoders'
    )
    parser.add_argument('--data-root', default=DEBIAN_FOLDER, help='folder of the IDX files')
    return parser.parse_args()


def features(run: Run, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Projections of two views of each image, its class and its color; images per block."""
    config = Config.fromfile(ROOT / 'configs/quickstart/simclr.py')
    model = get_model(config, device='cpu')
    load_checkpoint(model, str(run.checkpoint), map_location='cpu', logger='silent')
    dataset = config.train_dataloader.dataset
    if args.images > 4000:
        dataset.update(split='full', data_root=args.data_root)
    dataset.indices = args.images
    init_default_scope('mmpretrain')
    built = DATASETS.build(dataset)
    for transform in built.pipeline.transforms:
        if hasattr(transform, 'set_epoch'):
            transform.set_epoch(20, seed)
    loader = DataLoader(
        built,
        batch_size=500,
        sampler=DefaultSampler(built, shuffle=False, seed=0),
        collate_fn=default_collate,
    )
    data = extract_features(model, loader, project=model.project, description='features')
    return {**data, 'block_size': args.block_size or (4000 if args.images <= 4000 else 3096)}


def solve(data: dict[str, Any], seed: int, **options: Any) -> PartitionResult:
    solver = PartitionSolver(block_size=data['block_size'], **options)
    with ProgressBar(options.get('strategy', 'local')) as bar:
        return solver.solve(*data['features'], seed=seed, progress=bar)


def objectives(
    data: dict[str, Any], assignments: Sequence[torch.Tensor], seed: int
) -> list[float]:
    """Objectives of known partitions on all images, in the same blocks as the solver's."""
    z1, z2 = (view[None] for view in data['features'])
    options = ObjectiveOptions(block_size=data['block_size'])
    return BlockedObjective.divide(z1, z2, options, seed).values(assignments)


def semantic_splits(data: dict[str, Any]) -> list[tuple[str, torch.Tensor]]:
    """Splits of some colors or classes from all others, best on a sample of 2,000 images first."""
    z1, z2 = data['features']
    sample = torch.randperm(len(z1), generator=torch.Generator().manual_seed(0))[:2000]
    block = similarity_block(z1[sample], z2[sample])
    found: list[tuple[float, str, torch.Tensor]] = []
    for name, known in (('colors', data['factor']), ('classes', data['gt_label'])):
        groups = [
            group for size in range(1, 6) for group in itertools.combinations(range(10), size)
        ]
        assignments = torch.stack(
            [torch.isin(torch.arange(10), torch.tensor(g)) for g in groups]
        ).long()
        objective = ClusterObjective([block], [known[sample]], 10, 2, 0.5, 'relaxed')
        values = objective(assignments).tolist()
        for value, group, assignment in zip(values, groups, assignments):
            found.append((value, f'{name} {"".join(map(str, group))}', assignment[known]))
    found.sort(key=lambda split: -split[0])
    return [(name, assignment) for _, name, assignment in found]


def best_of(
    data: dict[str, Any], splits: list[tuple[str, torch.Tensor]], seed: int
) -> tuple[float, str]:
    """Highest objective of some splits."""
    values = objectives(data, [split for _, split in splits], seed)
    return max(zip(values, (name for name, _ in splits)))


def table_row(seed: int, data: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    row: dict[str, Any] = dict(seed=str(seed))

    def add(name: str, result: PartitionResult) -> None:
        row[name] = f'{result.objective:.4f}'
        row[f'{name}_bits'] = f'{float(mutual_information(result.assignment, data["factor"])):.3f}'
        row[f'{name}_seconds'] = f'{result.seconds:.0f}'
        row[f'{name}_sizes'] = '/'.join(map(str, result.sizes))

    random = solve(data, seed, strategy='random')
    (random.objective,) = objectives(data, [random.assignment], seed)
    add('random', random)
    splits = semantic_splits(data)
    images = len(data['factor'])
    allowed = [
        (name, split)
        for name, split in splits
        if torch.bincount(split, minlength=2).min() >= min_subset_size(images, 2, 'relaxed')
    ]
    value, row['semantic_name'] = best_of(data, allowed[:MAX_SPLITS], seed)
    row['semantic'] = f'{value:.4f}'
    value, row['any_name'] = best_of(data, splits[:3], seed)
    row['any'] = f'{value:.4f}'
    add('ours', solve(data, seed))
    if args.authors_seeds is None or seed in args.authors_seeds:
        z1, z2 = data['features']
        found = PartitionSolver(strategy='authors').solve(z1, z2, seed=seed)
        (found.objective,) = objectives(data, [found.assignment], seed)
        add('authors', found)
    return row


def main() -> None:
    args = parse_args()
    # MMEngine logs each file that it loads.
    MMLogger.get_instance('solver', log_level='WARNING')
    runs = [Run('simclr', args.work_dir / f'seed_{seed}', 20, seed) for seed in args.seeds]
    train_all(runs, Console())
    rows = []
    for seed, run in zip(args.seeds, runs):
        rows.append(table_row(seed, features(run, seed, args), args))
        print(format_table(rows[-1:], COLUMNS), flush=True)
    print(f'\nN = {args.images}\n{format_table(rows, COLUMNS)}')


if __name__ == '__main__':
    cli.run(main)
