"""What distillation costs beside the two networks, and CRD's scores against gathered rows.

    python benchmarks/distillation.py [--runs 21] [--batch 8] [--size 128] [--threads 2]

First: a training step of a ResNet-50 student with a ResNet-50 teacher, against the student's own
step (forward and backward with labels) plus the teacher's forward pass, each measured alone, in
turns. Second: CRD's scores, and its loss with gradient, at n = 50,000 images, K = 16,384,
width 128 and a batch of 8 on one thread, against the authors' order, which gathers rows of the
memory first; both give the same numbers, which is checked. Each is timed by itself, over and over,
and in turns with the others, which drives the memory from the processor's caches as a training
step does. Medians of one run; quote the ratios.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from hardware import count
from timing import Comparison, Report, Row, by_itself, positive, run_alone, share, turns
from torch import Tensor

warnings.filterwarnings('ignore')

from mmengine.model import revert_sync_batchnorm  # noqa: E402
from mmpretrain.registry import MODELS  # noqa: E402
from mmpretrain.structures import DataSample  # noqa: E402
from mmpretrain.utils import register_all_modules  # noqa: E402

import ipirm_mm  # noqa: E402, F401
from ipirm_mm.functional import crd_index, crd_loss, crd_scores, index_classes  # noqa: E402

LOSSES = (
    ('LogitKL', [dict(type='LogitKL')]),
    ('FeatureKL', [dict(type='FeatureKL')]),
    ('OFD, all stages', [dict(type='OFD')]),
    ('OFD, last stage', [dict(type='OFD', stages='last')]),
    ('CRD, n 50,000', [dict(type='CRD')]),
)


def classifier() -> dict:
    return dict(
        backbone=dict(type='ResNet', depth=50),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=1000,
            in_channels=2048,
            loss=dict(type='CrossEntropyLoss'),
            cal_acc=False,
        ),
    )


def overhead(
    name: str,
    losses: list[dict],
    runs: int,
    batch: int,
    size: int,
    threads: int,
    progress: Report,
) -> Row:
    """Time a distillation step, and what its two networks need alone."""
    torch.manual_seed(0)
    plain = MODELS.build(dict(type='ImageClassifier', **classifier()))
    teacher = dict(type='ImageClassifier', **classifier())
    model = revert_sync_batchnorm(
        MODELS.build(
            dict(
                type='DistillingClassifier',
                teacher=dict(model=teacher, checkpoint='none'),
                distill_losses=losses,
                **classifier(),
            )
        )
    )
    (frozen,) = model.beside
    frozen.loaded = True  # random weights cost the same
    for loss in model.distill_losses:
        loss.teacher_loaded(frozen.network)
        if hasattr(loss, 'allocate'):
            loss.allocate(torch.arange(50000) % 1000)
    for network in (plain, model):
        network.train()
    images = torch.randn(batch, 3, size, size)
    samples = []
    for index in range(batch):
        sample = DataSample().set_gt_label(index)
        sample.set_field(index, 'sample_idx', field_type='metainfo')
        samples.append(sample)

    def step(network: torch.nn.Module) -> None:
        values = network(images, samples, mode='loss')
        sum(value for name, value in values.items() if 'loss' in name).backward()
        network.zero_grad()

    @torch.no_grad()
    def teach() -> None:
        frozen.network.head(frozen.network.extract_feat(images))

    steps = dict(distilling=lambda: step(model), student=lambda: step(plain), teacher=teach)
    times = turns(steps, runs, progress)
    networks = [sum(both) for both in zip(times['student'], times['teacher'])]
    return Row(name, networks, times['distilling'], threads, work=count(steps['distilling']))


def gathered_crd(
    student: Tensor, teacher: Tensor, memories: tuple[Tensor, Tensor], index: Tensor, z: float
) -> Tensor:
    """CRD's loss from gathered rows, as its authors compute it."""
    total = 0.0
    noise = (index.shape[1] - 1) / len(memories[0])
    for v, memory in ((student, memories[1]), (teacher, memories[0])):
        rows = memory.index_select(0, index.view(-1)).view(*index.shape, -1)
        p = torch.bmm(rows, v[:, :, None]).squeeze(2).div(0.07).exp() / z
        positive = (p[:, 0] / (p[:, 0] + noise + 1e-7)).log().sum()
        negatives = (noise / (p[:, 1:] + noise + 1e-7)).log().sum()
        total = total - (positive + negatives) / len(v)
    return total


def crd_steps() -> dict[str, Callable[[], object]]:
    """CRD's scores of one side, and its loss with gradient: from gathered rows, and ours."""
    generator = torch.Generator().manual_seed(0)

    def unit(rows: int) -> Tensor:
        return F.normalize(torch.randn(rows, 128, generator=generator), dim=1)

    memories = unit(50000), unit(50000)
    student, teacher = (unit(8).requires_grad_() for _ in range(2))
    classes = index_classes(torch.arange(50000) % 1000)
    index = crd_index(torch.arange(8), classes, 16384, torch.tensor(0))
    z = 5e4

    def slow() -> list[Tensor]:
        loss = gathered_crd(student, teacher, memories, index, z)
        return [loss, *torch.autograd.grad(loss, (student, teacher))]

    def fast() -> list[Tensor]:
        loss = sum(crd_loss(student, teacher, *memories, index, z, z))
        return [loss, *torch.autograd.grad(loss, (student, teacher))]

    def slow_scores() -> Tensor:
        rows = memories[1].index_select(0, index.view(-1)).view(*index.shape, -1)
        return torch.bmm(rows, student.detach()[:, :, None]).squeeze(2).div(0.07).exp()

    def fast_scores() -> Tensor:
        return crd_scores(student.detach(), memories[1], index)

    for ours, theirs in zip([*fast(), fast_scores()], [*slow(), slow_scores()]):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    return dict(slow=slow, fast=fast, slow_scores=slow_scores, fast_scores=fast_scores)


def crd_rows(runs: int, progress: Report) -> list[Row]:
    """Time CRD's scores and its loss, each by itself and in turns, on one thread."""
    torch.set_num_threads(1)
    steps = crd_steps()
    alone, mixed = share(progress, [8, 1])
    times = {
        'by itself': by_itself(steps, runs, alone),
        'in turns': turns(steps, runs, mixed),
    }
    rows = []
    for name, suffix in (('scores of one side', '_scores'), ('loss and gradient', '')):
        work = count(steps[f'fast{suffix}'])
        for how, found in times.items():
            slow, fast = found[f'slow{suffix}'], found[f'fast{suffix}']
            rows.append(Row(f'{name}, {how}', slow, fast, 1, work=work))
    return rows


def measure(
    runs: int = 21,
    batch: int = 8,
    size: int = 128,
    threads: int = 2,
    progress: Report | None = None,
) -> list[Comparison]:
    """Time distillation steps and CRD.

    Args:
        runs: Number of runs. Defaults to 21.
        batch: Number of images of a distillation step. Defaults to 8.
        size: Side of the images, in pixels. Defaults to 128.
        threads: Number of threads of a distillation step. Defaults to 2.
        progress: Told what fraction is done. Defaults to None.

    Returns:
        Two tables: of distillation steps, and of CRD.
    """
    register_all_modules(init_default_scope=True)
    torch.set_num_threads(threads)
    *parts, last = share(progress, [2] * len(LOSSES) + [1])
    steps = [
        overhead(name, losses, runs, batch, size, threads, part)
        for (name, losses), part in zip(LOSSES, parts)
    ]
    return [
        Comparison('step of ResNet-50', 'networks', 'distilling', steps, is_cost=True),
        Comparison('CRD, n 50,000, K 16,384', 'gathered', 'ours', crd_rows(runs, last)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--runs', type=positive, default=21)
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--size', type=int, default=128, help='side of the images')
    parser.add_argument('--threads', type=int, default=2)
    run_alone('distillation', measure, parser.parse_args())


if __name__ == '__main__':
    main()
