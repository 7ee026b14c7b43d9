"""What the penalties add to a training step of SimCLR.

    python benchmarks/training.py [--runs 7] [--batch 256] [--threads 2]

A step of IP-IRM with no partition yet, and with 1, 4 and 16 partitions into 2 subsets and one into
100, against a step of MMPretrain's SimCLR: both on a ResNet-18 at 32 pixels, forward and backward,
in turns, with the same batch. On a GPU if there is one. Medians of one run; quote the ratios.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import torch
from hardware import count
from timing import Comparison, Report, Row, positive, run_alone, turns

warnings.filterwarnings('ignore')

from mmengine.device import get_device  # noqa: E402
from mmpretrain.registry import MODELS  # noqa: E402
from mmpretrain.structures import DataSample  # noqa: E402
from mmpretrain.utils import register_all_modules  # noqa: E402

import ipirm_mm  # noqa: E402, F401

# Partitions and subsets of each row.
PARTITIONS = ((0, 2), (1, 2), (4, 2), (16, 2), (1, 100))


def build(kind: str, head: dict[str, Any], **options: Any) -> Any:
    """SimCLR, or IP-IRM on it."""
    neck = dict(in_channels=512, hid_channels=512, out_channels=128, num_layers=2)
    return MODELS.build(
        dict(
            type=kind,
            backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BN')),
            neck=dict(type='NonLinearNeck', norm_cfg=dict(type='BN1d'), **neck),
            head=head,
            **options,
        )
    ).to(get_device())


def make_steps(batch: int) -> dict[str, Callable[[], object]]:
    """One step of each row, and of SimCLR."""
    views = [torch.randn(batch, 3, 32, 32, device=get_device()) for _ in range(2)]
    samples = [DataSample(metainfo=dict(sample_idx=number)) for number in range(batch)]

    def step(model: Any) -> Callable[[], object]:
        model.train()

        def run() -> float:
            model.zero_grad()
            loss = model.loss(views, samples)['loss']
            loss.backward()
            return loss.item()  # waits for a GPU

        return run

    plain = dict(type='ContrastiveHead', loss=dict(type='CrossEntropyLoss'), temperature=0.5)
    steps = {'SimCLR': step(build('SimCLR', plain))}
    head = dict(type='IPIRMContrastiveHead', temperature=0.5, irm_weight=0.2)
    generator = torch.Generator().manual_seed(0)
    for partitions, subsets in PARTITIONS:
        model = build('IPIRMSimCLR', head, num_subsets=subsets)
        model.partitions.allocate(max(1, partitions), batch)
        for _ in range(partitions):
            partition = torch.randperm(batch, generator=generator) % subsets
            model.partitions.add(partition.to(get_device()))
        steps[f'{partitions} partitions into {subsets}'] = step(model)
    return steps


def measure(
    runs: int = 7, batch: int = 256, threads: int = 2, progress: Report | None = None
) -> list[Comparison]:
    """Time the steps.

    Args:
        runs: Number of runs. Defaults to 7.
        batch: Number of images of a step. Defaults to 256.
        threads: Number of threads on a processor. Defaults to 2.
        progress: Told what fraction is done. Defaults to None.

    Returns:
        One table.
    """
    torch.set_num_threads(threads)
    register_all_modules(init_default_scope=True)
    torch.manual_seed(0)
    steps = make_steps(batch)
    times = turns(steps, runs, progress)
    simclr = times.pop('SimCLR')
    rows = [
        Row(name, simclr, ours, threads, get_device(), count(steps[name]))
        for name, ours in times.items()
    ]
    title = f'step of ResNet-18, batch {batch}, {get_device()}'
    return [Comparison(title, 'SimCLR', 'IP-IRM', rows, is_cost=True)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--runs', type=positive, default=7)
    parser.add_argument('--batch', type=positive, default=256)
    parser.add_argument('--threads', type=positive, default=2)
    run_alone('training', measure, parser.parse_args())


if __name__ == '__main__':
    main()
