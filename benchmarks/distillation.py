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
import statistics
import time
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.benchmark import Timer

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


def medians(steps: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Milliseconds of each step, in turns, so that a noisy minute hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for run in range(runs + 1):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            if run:  # the first warms up
                times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: statistics.median(values) for name, values in times.items()}


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


def overhead(losses: list[dict], args: argparse.Namespace) -> tuple[float, float]:
    """Milliseconds of a distillation step, and of what its two networks need alone."""
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
    images = torch.randn(args.batch, 3, args.size, args.size)
    samples = []
    for index in range(args.batch):
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

    times = medians(
        dict(distilling=lambda: step(model), student=lambda: step(plain), teacher=teach), args.runs
    )
    return times['distilling'], times['student'] + times['teacher']


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


def by_itself(step: Callable[[], object]) -> float:
    """Milliseconds of a step on one thread that nothing else comes between."""
    timer = Timer('step()', globals=dict(step=step), num_threads=1)
    return 1e3 * timer.blocked_autorange(min_run_time=2).median


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--runs', type=int, default=21)
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--size', type=int, default=128, help='side of the images')
    parser.add_argument('--threads', type=int, default=2)
    args = parser.parse_args()
    register_all_modules(init_default_scope=True)
    torch.set_num_threads(args.threads)
    print(f'{"step of ResNet-50":<24}{"distilling, ms":>16}{"networks, ms":>14}{"ratio":>8}')
    for name, losses in LOSSES:
        step, alone = overhead(losses, args)
        print(f'{name:<24}{step:>16.1f}{alone:>14.1f}{step / alone:>8.3f}', flush=True)
    torch.set_num_threads(1)
    steps = crd_steps()
    alone = {name: by_itself(step) for name, step in steps.items()}
    turns = medians(steps, args.runs)
    print(f'\n{"CRD, n 50,000, K 16,384":<32}{"gathered, ms":>14}{"ours, ms":>10}{"ratio":>8}')
    for name, suffix in (('scores of one side', '_scores'), ('loss and gradient', '')):
        for times, how in ((alone, 'by itself'), (turns, 'in turns')):
            slow, fast = times[f'slow{suffix}'], times[f'fast{suffix}']
            print(f'{name + ", " + how:<32}{slow:>14.1f}{fast:>10.1f}{slow / fast:>8.1f}')


if __name__ == '__main__':
    main()
