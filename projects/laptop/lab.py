"""Compare settings of Stage I over seeds, quickly: no runner, no data workers, all in memory.

    python projects/laptop/lab.py --methods penalty ours --seeds 0 1 2 --set subsets=50 crop=0.3
    python projects/laptop/lab.py --table --split test

Trains the network of configs/quickstart/ipirm_simclr.py, with the settings of --set, on the 4,000
embedded images, and evaluates it like the demo. Each run is one line of a file, and runs that
the file has already are skipped. Choose settings on the split 'val' and report the split 'test'.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation import paired_p
from lab_data import Images, evaluate, load_unlabeled
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import set_random_seed
from mmpretrain import get_model
from runs import ROOT
from torch import Tensor

from ipirm_mm import cli
from ipirm_mm.datasets.idx_format import DEBIAN_FOLDER
from ipirm_mm.errors import UserError
from ipirm_mm.functional import mutual_information
from ipirm_mm.models.views.draws import split_mix
from ipirm_mm.options import check_whole
from ipirm_mm.partition import PartitionSolver
from ipirm_mm.visualization import format_markdown

Record = dict[str, Any]
RESULTS = ROOT / 'projects/laptop/results/lab.jsonl'
METHODS = {
    'simclr': 'SimCLR',
    'penalty': 'penalty alone (control)',
    'random': 'random partition (control)',
    'factor': 'true color',
    'ours': 'ours',
}
# Settings and their defaults, those of the quickstart configs.
DEFAULTS: dict[str, Any] = dict(
    tint=True,  # whether images are tinted by the hidden factor
    glyphs=False,  # letters of many fonts in the place of Fashion-MNIST
    images=4000,  # without labels: those of the package; other numbers: the first original ones
    epochs=20,
    batch=256,
    lr=1e-3,
    bf16=False,  # convolutions and linear layers in bfloat16; twice as fast on some processors
    crop=0.4,  # smallest area of a crop
    norm='GN',  # of the encoder; or BN
    neck_norm='GN',  # of the projector; or BN
    temperature=0.5,
    warmup=5,  # epochs without a penalty, after which the partition is found
    weight=2.0,  # lambda 1
    objective='authors',  # mean over the subsets; or 'report', their sum
    penalty='vector',  # or 'scalar'
    subsets=20,  # K; the true color has 10
)
# Settings that a method does not have.
UNUSED: dict[str, tuple[str, ...]] = dict(
    simclr=('warmup', 'weight', 'subsets', 'objective', 'penalty'),
    penalty=('subsets', 'objective'),  # of which there is one, the batch
    factor=('subsets',),
)
METRICS = ('probe', 'shifted', 'to_others', 'to_text', 'knn', 'color', 'kind')
BITS = ('color', 'class')  # what a partition tells about an image
HEADINGS = dict(
    name='method', settings='settings', split='split', seeds='seeds', probe='probe',
    shifted='color shifted', to_others='serif and sans to others', to_text='others to these',
    knn='k-NN', color='color read out', kind='kind of font', bits='bits: factor, class',
    gain='gain', p='p',
)  # fmt: skip


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--methods', nargs='+', choices=METHODS, default=list(METHODS))
    parser.add_argument('--seeds', type=int, nargs='+', default=[100, 101, 102])
    parser.add_argument(
        '--split', nargs='+', choices=('val', 'test', 'full_test'), default=['val']
    )
    parser.add_argument('--data-root', default=DEBIAN_FOLDER, help='of original images')
    parser.add_argument('--glyphs', default='data/glyphs.npz', help='file of the converter')
    parser.add_argument(
        '--set', nargs='+', default=[], metavar='KEY=VALUE[,VALUE]',
        help=f'settings: {", ".join(DEFAULTS)}; of several values, every combination is run',
    )  # fmt: skip
    parser.add_argument('--file', type=Path, default=RESULTS, help='one JSON line per run')
    parser.add_argument('--table', action='store_true', help='train nothing, print the table')
    parser.add_argument('--metric', choices=METRICS, default='shifted', help='of gain and p')
    parser.add_argument(
        '--control', nargs='+', default=[], metavar='KEY=VALUE',
        help='settings of the control, of which gain and p are; without them those of the row '
        'with method=penalty',
    )  # fmt: skip
    return parser.parse_args()


def parse_settings(pairs: Sequence[str]) -> list[Record]:
    """Read ``key=value`` pairs, every combination; values are JSON, or else text."""
    settings: dict[str, list[Any]] = {}
    for pair in pairs:
        key, _, text = pair.partition('=')
        if key not in DEFAULTS and key != 'method':
            raise UserError(f'--set has {key!r}, which must be one of {", ".join(DEFAULTS)}')
        settings[key] = []  # a later pair replaces an earlier one
        for value in text.split(','):
            try:
                settings[key].append(json.loads(value))
            except json.JSONDecodeError:
                settings[key].append(value)
    return [dict(zip(settings, values)) for values in itertools.product(*settings.values())]


def settings_of(method: str, given: dict[str, Any]) -> dict[str, Any]:
    """All settings that a method has; the others are left out."""
    settings = {key: given.get(key, value) for key, value in DEFAULTS.items()}
    return dict(
        method=method, **{k: v for k, v in settings.items() if k not in UNUSED.get(method, ())}
    )


def data_of(settings: dict[str, Any]) -> str:
    """Which images: see :class:`lab_data.Images`."""
    if settings['glyphs']:
        return 'glyphs'
    return 'tinted' if settings['tint'] else 'gray'


def config_of(settings: dict[str, Any]) -> Config:
    """The quickstart config with other settings."""
    folder = 'glyphs/ipirm_simclr_glyphs' if settings['glyphs'] else 'quickstart/ipirm_simclr'
    config = Config.fromfile(ROOT / f'configs/{folder}.py')
    model = config.model
    groups = dict(type='GN', num_groups=8)
    model.backbone.norm_cfg = dict(type='BN') if settings['norm'] == 'BN' else groups
    model.neck.norm_cfg = dict(type='BN1d') if settings['neck_norm'] == 'BN' else groups
    model.head.temperature = settings['temperature']
    model.head.irm_weight = settings.get('weight', 0.0)
    model.head.irm_warmup_epochs = settings.get('warmup', 0)
    model.head.objective = settings.get('objective', 'authors')
    model.head.penalty = settings.get('penalty', 'vector')
    model.head.penalize_batch = settings['method'] == 'penalty'
    config.view_pipeline[0].crop_ratio_range = (settings['crop'], 1.0)
    config.data_preprocessor.transforms = [config.view_pipeline]
    return config


def build(settings: dict[str, Any]) -> Any:
    """The network of the quickstart with other settings."""
    network = get_model(config_of(settings), device='cpu')
    network.init_weights()
    return network


class Trainer:
    """One run of ``settings``: see ``DEFAULTS``, and ``method``."""

    #: Weights after the warm-up, which methods share: their steps up to there are the same.
    warmed_up: dict[str, dict[str, Any]] = {}
    longest: dict[str, int] = {}

    def __init__(self, settings: dict[str, Any], seed: int) -> None:
        self.settings, self.seed = settings, seed
        check_whole('--set images', settings['images'], settings['batch'], 60_000)
        set_random_seed(seed)
        self.model = build(settings).to(memory_format=torch.channels_last)
        parameters = self.model.parameters()
        self.optimizer = torch.optim.Adam(parameters, lr=settings['lr'], weight_decay=1e-6)
        self.images = load_unlabeled(data_of(settings), settings['images'])
        self.partition: Tensor | None = None

    def views(self, index: Tensor, epoch: int) -> list[Tensor]:
        """The views of images ``index``, which depend on seed, epoch and image only."""
        seeds = split_mix(split_mix(index + (self.seed << 40) + (epoch << 20)))
        preprocessor = self.model.data_preprocessor
        return preprocessor.make_views([self.images.x[index]] * preprocessor.num_views, seeds)

    @torch.no_grad()
    def find_partition(self, epoch: int) -> None:
        """Divide the images as the method says, by their projections."""
        self.model.eval()
        parts = [
            torch.stack([self.model.project(view) for view in self.views(index, epoch)])
            for index in torch.arange(len(self.images.x)).split(500)
        ]
        self.model.train()
        method = self.settings['method']
        strategy = 'kmeans' if method == 'ours' else method
        solver = PartitionSolver(self.settings.get('subsets', 10), strategy=strategy)
        z1, z2 = torch.cat(parts, 1)
        result = solver.solve(z1, z2, seed=self.seed + epoch, factor=self.images.factor)
        self.partition = result.assignment

    def train(self) -> None:
        """Train all epochs."""
        settings, head = self.settings, self.model.head
        self.model.train()
        subsets = settings.get('subsets', 10)
        unused = ('method', *UNUSED['simclr'], 'epochs')
        shared = {k: v for k, v in settings.items() if k not in unused}
        network = json.dumps([shared, self.seed])
        warmup = self.longest[network] = settings.get('warmup', self.longest.get(network, 0))
        key = json.dumps([network, warmup])
        begin = warmup if key in self.warmed_up else 0
        if begin:
            self.model.load_state_dict(self.warmed_up[key]['model'])
            self.optimizer.load_state_dict(copy.deepcopy(self.warmed_up[key]['optimizer']))
        for epoch in range(begin, settings['epochs']):
            if epoch == warmup:
                state = dict(model=self.model.state_dict(), optimizer=self.optimizer.state_dict())
                self.warmed_up[key] = copy.deepcopy(state)
            head.set_epoch(epoch)
            if settings['method'] in ('random', 'factor', 'ours') and epoch == warmup:
                self.find_partition(epoch)
            generator = torch.Generator().manual_seed(self.seed * 1000 + epoch)
            order = torch.randperm(len(self.images.x), generator=generator)
            for index in order.split(settings['batch']):
                if len(index) < settings['batch']:
                    break
                with torch.autocast('cpu', torch.bfloat16, enabled=settings['bf16']):
                    views, _ = self.model.project_views(self.views(index, epoch))
                anchors = views[0].float(), views[1].float()
                found = torch.zeros(0, len(index), dtype=torch.long)
                if self.partition is not None:
                    found = self.partition[index][None]
                self.optimizer.zero_grad()
                head.loss(anchors, None, found, subsets)['loss'].backward()
                self.optimizer.step()


def run(settings: dict[str, Any], seed: int, splits: Sequence[str]) -> list[Record]:
    """Train once; returns a line of the file for each split."""
    began = time.perf_counter()
    trainer = Trainer(settings, seed)
    trainer.train()
    record: Record = dict(settings=settings, seed=seed)
    if trainer.partition is not None:
        for name, known in zip(BITS, (trainer.images.factor, trainer.images.y)):
            bits = float(mutual_information(trainer.partition, known))
            record[f'bits_{name}'] = round(bits, 3)
    record['seconds'] = round(time.perf_counter() - began, 1)
    return [
        dict(record, split=split, **evaluate(trainer.model, split, data_of(settings)))
        for split in splits
    ]


def read(path: Path) -> list[Record]:
    """The runs of a file; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def all_settings(record: Record) -> dict[str, Any]:
    """Settings of a run; what its line lacks was the default."""
    return settings_of(record['settings']['method'], record['settings'])


def row_of(settings: dict[str, Any], group: list[Record]) -> dict[str, Any]:
    """Row of the runs of the same settings: means and standard deviations over the seeds."""
    changed = (f'{k}={v}' for k, v in settings.items() if v != DEFAULTS.get(k, v))
    row: dict[str, Any] = dict(
        name=METHODS[settings['method']], settings=', '.join(changed), seeds=len(group)
    )
    for name in METRICS:
        values = [record[name] for record in group if name in record]
        if values:
            spread = f' ± {np.std(values, ddof=1):.1f}' if len(values) > 1 else ''
            row[name] = f'{np.mean(values):.1f}{spread}'
    if 'bits_color' in group[0]:
        bits = (np.mean([record[f'bits_{name}'] for record in group]) for name in BITS)
        row['bits'] = ', '.join(f'{value:.2f}' for value in bits)
    return row


def make_table(
    chosen: list[Record], records: list[Record], metric: str, control: dict[str, Any]
) -> list[Record]:
    """Rows of the chosen runs, and the paired difference to the control among all runs."""
    groups: dict[str, list[Record]] = {}
    for record in chosen:
        groups.setdefault(json.dumps([record['split'], all_settings(record)]), []).append(record)
    rows = []
    for key, group in groups.items():
        split, settings = json.loads(key)
        rows.append(dict(row_of(settings, group), split=split))
        given = {**settings, 'method': 'penalty', **control}
        wanted = settings_of(given['method'], given)
        if not wanted.keys() <= given.keys():  # SimCLR, for one, has no weight
            continue
        reference = {
            r['seed']: r[metric]
            for r in records
            if r['split'] == split and all_settings(r) == wanted and metric in r
        }
        gains = [r[metric] - reference[r['seed']] for r in group if r['seed'] in reference]
        if gains and settings != wanted:
            rows[-1]['gain'] = f'{np.mean(gains):+.1f}'
            if len(gains) > 1:
                rows[-1]['p'] = f'{paired_p(gains):.1g}'
    return rows


def main() -> None:
    args = parse_args()
    MMLogger.get_instance('mmengine', log_level='ERROR')
    combinations = parse_settings(args.set)
    Images.data_root, Images.glyphs_file = args.data_root, args.glyphs
    records = [record for record in read(args.file) if record['split'] in args.split]
    if args.table:
        chosen = [
            record
            for record in records
            if record['seed'] in args.seeds
            and record['settings']['method'] in args.methods
            and any(given.items() <= {**given, **all_settings(record)}.items()
                    for given in combinations)
        ]  # fmt: skip
        (control,) = parse_settings(args.control)
        rows = make_table(chosen, records, args.metric, control)
        headings = [pair for pair in HEADINGS.items() if any(pair[0] in row for row in rows)]
        print(format_markdown(rows, headings))
        return
    args.file.parent.mkdir(parents=True, exist_ok=True)
    for seed, given, method in itertools.product(args.seeds, combinations, args.methods):
        settings = settings_of(method, given)
        there = [r['split'] for r in records if r['seed'] == seed and all_settings(r) == settings]
        splits = [split for split in args.split if split not in there]
        if splits:
            found = run(settings, seed, splits)
            records += found
            with open(args.file, 'a') as file:
                file.writelines(json.dumps(record) + '\n' for record in found)
            for record in found:
                print({**record, 'settings': given}, method, flush=True)


if __name__ == '__main__':
    cli.run(main)
