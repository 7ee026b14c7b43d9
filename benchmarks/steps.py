"""Steps 1 and 2 against the computation that builds each subset's table of logits.

    python benchmarks/steps.py [--threads 1 2] [--runs 5]

Prints medians in milliseconds and the ratio of medians of the same run, in turns. The slow side
follows the definition, as the authors' code does: for each subset a (2m, 2m - 1) table gathered by
a boolean mask, and the penalty by differentiating twice. Both sides give the same numbers to 1e-4,
which is checked first.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from hardware import count
from timing import Comparison, Report, Row, positive, run_alone, share, turns
from torch import Tensor

warnings.filterwarnings('ignore')

from ipirm_mm.functional import soft_partition_objective, subset_contrastive_risks  # noqa: E402


def table_of(z1: Tensor, z2: Tensor) -> Tensor:
    """Similarities with the positive first: (2m, 2m - 1)."""
    m = len(z1)
    views = torch.cat((z1, z2))
    similarity = views @ views.T
    labels = torch.arange(m).repeat(2)
    positive = (labels[:, None] == labels[None, :]) & ~torch.eye(2 * m, dtype=torch.bool)
    negative = labels[:, None] != labels[None, :]
    return torch.cat(
        (similarity[positive].view(2 * m, 1), similarity[negative].view(2 * m, -1)), 1
    )


def slow_step1(
    z1: Tensor, z2: Tensor, assignments: Tensor, num_subsets: int, vector: bool
) -> Tensor:
    total = z1.new_zeros(())
    for assignment in assignments:
        for k in range(num_subsets):
            chosen = assignment == k
            logits = table_of(z1[chosen], z2[chosen]) / 0.5
            target = torch.zeros(len(logits), dtype=torch.long)
            dummy = torch.ones(1, logits.shape[1] if vector else 1, requires_grad=True)
            loss = F.cross_entropy(logits * dummy, target)
            (grad,) = torch.autograd.grad(loss, dummy, create_graph=True)
            total = total + loss + 0.2 * grad.square().sum()
    return total / assignments.shape[0] / num_subsets


def fast_step1(
    z1: Tensor, z2: Tensor, assignments: Tensor, num_subsets: int, vector: bool
) -> Tensor:
    penalty = 'vector' if vector else 'scalar'
    risks = subset_contrastive_risks(z1, z2, assignments, num_subsets, penalty=penalty)
    return risks.loss.mean() + 0.2 * risks.penalty.mean()


def slow_step2(z1: Tensor, z2: Tensor, weights: Tensor, vector: bool) -> Tensor:
    images = len(z1)
    total = weights.new_zeros(())
    for k in range(weights.shape[1]):  # as Wang et al.: everything once more for each subset
        logits = table_of(z1, z2) / 0.5
        image = torch.arange(images).repeat(2)
        negative = image[:, None] != image[None, :]
        anchor = weights[:, k].repeat(2)
        others = anchor[None, :].expand(2 * images, -1)[negative].view(2 * images, -1)
        others = others / others.sum(1, keepdim=True) * others.shape[1]
        dummy = torch.ones(1, logits.shape[1] if vector else 1, requires_grad=True)
        scaled = logits * dummy
        terms = torch.cat((scaled[:, :1].exp(), others * scaled[:, 1:].exp()), 1)
        loss = (anchor * (terms.sum(1).log() - scaled[:, 0])).sum() / anchor.sum()
        (grad,) = torch.autograd.grad(loss, dummy, create_graph=True)
        total = total + loss + 0.5 * grad.square().sum()
    return total / weights.shape[1]


def fast_step2(z1: Tensor, z2: Tensor, weights: Tensor, vector: bool) -> Tensor:
    penalty = 'vector' if vector else 'scalar'
    return soft_partition_objective(z1, z2, weights, penalty=penalty, balance='none')


def unit(images: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(images, 128, generator=generator), dim=1)


class Case(NamedTuple):
    """Both sides of a comparison.

    Attributes:
        name: Name of its row.
        slow: The computation by the definition.
        fast: Ours.
        leaf: What both are differentiated with respect to.
        entries: Entries of the tables that the slow side makes, which its time depends on.
    """

    name: str
    slow: Callable[[], Tensor]
    fast: Callable[[], Tensor]
    leaf: Tensor
    entries: float


def cases(images: int) -> Iterator[Case]:
    """Step 1 for some numbers of partitions and subsets, and Step 2, with each penalty."""
    for vector in (True, False):
        kind = 'vector' if vector else 'scalar'
        z1, z2 = unit(256, 0).requires_grad_(), unit(256, 1)
        for partitions, subsets in ((1, 2), (8, 2), (1, 100)):
            generator = torch.Generator().manual_seed(0)
            order = torch.stack(
                [torch.randperm(256, generator=generator) % subsets for _ in range(partitions)]
            )
            inputs = (z1, z2, order, subsets, vector)
            yield Case(
                f'Step 1, B 256, P {partitions}, K {subsets}, {kind}',
                lambda inputs=inputs: slow_step1(*inputs),
                lambda inputs=inputs: fast_step1(*inputs),
                z1,
                partitions * 512**2 / subsets,
            )
        z1, z2 = unit(images, 0), unit(images, 1)
        weights = torch.rand(images, 2, generator=torch.Generator().manual_seed(0))
        weights = weights.softmax(1).requires_grad_()
        block = (z1, z2, weights, vector)
        yield Case(
            f'Step 2, B {images}, K 2, {kind}',
            lambda block=block: slow_step2(*block),
            lambda block=block: fast_step2(*block),
            weights,
            2 * (2 * images) ** 2,
        )


def compare(case: Case, threads: int, runs: int, progress: Report) -> Row:
    """Check that both sides of a case agree, and time their forward and backward pass."""
    torch.testing.assert_close(case.fast(), case.slow(), rtol=1e-4, atol=1e-4)

    def slow() -> None:
        torch.autograd.grad(case.slow(), case.leaf)

    def fast() -> None:
        torch.autograd.grad(case.fast(), case.leaf)

    times = turns(dict(slow=slow, fast=fast), runs, progress)
    name = f'{case.name}, {threads} thread{"s" * (threads > 1)}'
    return Row(name, times['slow'], times['fast'], threads, work=count(fast))


def measure(
    runs: int = 5,
    threads: Sequence[int] = (1, 2),
    images: int = 3096,
    progress: Report | None = None,
) -> list[Comparison]:
    """Time both steps.

    Args:
        runs: Number of runs. Defaults to 5.
        threads: Numbers of threads. Defaults to 1 and 2.
        images: Number of images in the block of Step 2. Defaults to 3096.
        progress: Told what fraction is done. Defaults to None.

    Returns:
        One table.
    """
    rows = []
    for number, part in zip(threads, share(progress, [1] * len(threads))):
        torch.set_num_threads(number)
        found = list(cases(images))
        for case, report in zip(found, share(part, [case.entries for case in found])):
            rows.append(compare(case, number, runs, report))
    return [Comparison('forward and backward', 'slow', 'ours', rows)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--threads', type=int, nargs='+', default=[1, 2])
    parser.add_argument('--runs', type=positive, default=5)
    parser.add_argument('--images', type=int, default=3096, help='block of Step 2')
    run_alone('steps', measure, parser.parse_args())


if __name__ == '__main__':
    main()
