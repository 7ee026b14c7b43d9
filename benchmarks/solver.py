"""Does the solver find what is there? Its objective against that of the best semantic split.

    python benchmarks/solver.py                      # 4,000 images, five seeds
    python benchmarks/solver.py --images 50000       # needs Debian's dataset-fashion-mnist

For each seed an encoder is trained by SimCLR without colour jitter on the 4,000 embedded images,
tinted in ten colours (configs/quickstart/simclr.py), so that colour is the entangled semantic. On
its projections of N images, two views each, the table gives the objective of report Eq. 3 (K = 2,
vector dummy, weight 0.5, relaxed balance) of

- a random split;
- the authors' optimiser (with its blocks of 3096, at most N);
- the best semantic split among all groups of colours or of classes against the rest, within the
  sizes that the solver allows (no subset under a quarter), and of any size;
- PartitionSolver's default, with its bits about the colour and its seconds.

One block up to 4,000 images, so that the numbers are those of the whole set; blocks of 3096 above.
"""

from __future__ import annotations

import argparse
import itertools
import sys
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
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'projects/laptop'))
from runs import ROOT, Run, train_all  # noqa: E402

from ipirm_mm import cli  # noqa: E402
from ipirm_mm.datasets.idx_format import DEBIAN_FOLDER  # noqa: E402
from ipirm_mm.evaluation import extract_features  # noqa: E402
from ipirm_mm.functional import mutual_information  # noqa: E402
from ipirm_mm.functional.partition import similarity_block  # noqa: E402
from ipirm_mm.partition import PartitionResult, PartitionSolver  # noqa: E402
from ipirm_mm.partition.cluster_search import ClusterObjective  # noqa: E402
from ipirm_mm.utils import ProgressBar  # noqa: E402
from ipirm_mm.visualization import format_table  # noqa: E402

# So many semantic splits, the most promising ones, are evaluated on all images.
PROMISING = 16
COLUMNS = (
    ('seed', 'seed'),
    ('random', 'random'),
    ('authors', "authors'"),
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
    parser.add_argument('--images', type=int, default=4000, help='N (default 4000)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2, 3, 4])
    parser.add_argument(
        '--authors-seeds',
        type=int,
        nargs='*',
        help="seeds of the authors' optimiser too (default all; minutes each at 50,000)",
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/solver'))
    parser.add_argument('--data-root', default=DEBIAN_FOLDER, help='folder of the IDX files')
    return parser.parse_args()


def features(run: Run, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Projections of two views of each image, and what is known of it."""
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
    return extract_features(model, loader, project=model.embed, description='features')


def solve(data: dict[str, Any], seed: int, factor: Any = None, **options: Any) -> PartitionResult:
    z1, z2 = data['features']
    solver = PartitionSolver(block_size=4000 if len(z1) <= 4000 else 3096, **options)
    with ProgressBar(options.get('strategy', 'local')) as bar:
        return solver.solve(z1, z2, seed=seed, factor=factor, progress=bar)


def semantic_splits(data: dict[str, Any]) -> list[tuple[str, torch.Tensor]]:
    """Groups of colours or classes against the rest, the most promising first.

    Promising by the objective of whole colours or classes on 2,000 images.
    """
    z1, z2 = data['features']
    sample = torch.randperm(len(z1), generator=torch.Generator().manual_seed(0))[:2000]
    block = similarity_block(z1[sample], z2[sample])
    found: list[tuple[float, str, torch.Tensor]] = []
    for name, known in (('colours', data['factor']), ('classes', data['gt_label'])):
        groups = [
            group for size in range(1, 6) for group in itertools.combinations(range(10), size)
        ]
        deals = torch.stack([torch.isin(torch.arange(10), torch.tensor(g)) for g in groups]).long()
        objective = ClusterObjective([block], [known[sample]], 10, 2, 0.5, 'relaxed')
        for value, group, deal in zip(objective(deals).tolist(), groups, deals):
            found.append((value, f'{name} {"".join(map(str, group))}', deal[known]))
    found.sort(key=lambda split: -split[0])
    return [(name, assignment) for _, name, assignment in found]


def best_of(
    data: dict[str, Any], splits: list[tuple[str, torch.Tensor]], seed: int
) -> tuple[float, str]:
    """The highest objective among splits, evaluated on all images, in the same blocks as ours."""
    values = [
        (solve(data, seed, factor=split, strategy='factor').objective, name)
        for name, split in splits
    ]
    return max(values)


def row_of(seed: int, data: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    row: dict[str, Any] = dict(seed=str(seed))

    def add(name: str, result: PartitionResult) -> None:
        row[name] = f'{result.objective:.4f}'
        row[f'{name}_bits'] = f'{float(mutual_information(result.assignment, data["factor"])):.3f}'
        row[f'{name}_seconds'] = f'{result.seconds:.0f}'
        row[f'{name}_sizes'] = '/'.join(map(str, result.sizes))

    add('random', solve(data, seed, strategy='random'))
    splits = semantic_splits(data)
    images = len(data['factor'])
    allowed = [
        (name, split)
        for name, split in splits
        if torch.bincount(split, minlength=2).min() >= int(0.75 * images / 3)
    ]
    value, row['semantic_name'] = best_of(data, allowed[:PROMISING], seed)
    row['semantic'] = f'{value:.4f}'
    value, row['any_name'] = best_of(data, splits[:3], seed)
    row['any'] = f'{value:.4f}'
    add('ours', solve(data, seed))
    if args.authors_seeds is None or seed in args.authors_seeds:
        z1, z2 = data['features']
        found = PartitionSolver(strategy='authors').solve(z1, z2, seed=seed)
        result = solve(data, seed, factor=found.assignment, strategy='factor')
        result.seconds = found.seconds
        add('authors', result)
    return row


def main() -> None:
    args = parse_args()
    # MMEngine tells of each file that it loads.
    MMLogger.get_instance('solver', log_level='WARNING')
    runs = [Run('simclr', args.work_dir / f'seed_{seed}', 20, seed) for seed in args.seeds]
    train_all(runs, Console())
    rows = []
    for seed, run in zip(args.seeds, runs):
        rows.append(row_of(seed, features(run, seed, args), args))
        print(format_table(rows[-1:], COLUMNS), flush=True)
    print(f'\nN = {args.images}\n{format_table(rows, COLUMNS)}')


if __name__ == '__main__':
    cli.run(main)
