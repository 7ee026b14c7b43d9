"""What test-time augmentation costs: ten crops against one, without a data loader.

    python benchmarks/tta.py [--runs 9] [--batch 8] [--size 224] [--depth 50] [--threads 2]

`ScoreMergingTTA` with ten views of a batch, merged by each policy, against the classifier alone
with one view of the same batch, in turns; the network, its preprocessing and the samples that it
makes are in both. The last row has all views in one pass. On a GPU if there is one. Medians of one
run; quote the ratio, of which 10 is the network's own.
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

from ipirm_mm.models.tta import VIEW_POLICIES, ScoreMergingTTA  # noqa: E402


def make_batch(views: int, images: int, size: int) -> dict[str, Any]:
    """Inputs and samples of some views of a batch."""
    shape = images, 3, size, size
    return dict(
        inputs=[torch.randint(256, shape, dtype=torch.uint8) for _ in range(views)],
        data_samples=[[DataSample() for _ in range(images)] for _ in range(views)],
    )


def make_steps(model: Any, batch: int, size: int) -> dict[str, Callable[[], object]]:
    """One crop of a batch, ten crops merged by each policy, and ten crops in one pass."""
    one, ten = make_batch(1, batch, size), make_batch(10, batch, size)
    single = dict(inputs=one['inputs'][0], data_samples=one['data_samples'][0])

    def step(network: Any, data: dict[str, Any]) -> Callable[[], object]:
        # item() waits for a GPU.
        return lambda: network.test_step(data)[0].pred_score.sum().item()

    steps = {'one crop': step(model, single)}
    for policy in VIEW_POLICIES:
        steps[f'ten crops, {policy}'] = step(ScoreMergingTTA(model, policy=policy), ten)
    together = ScoreMergingTTA(model, max_images=10 * batch)
    steps['ten crops, mean, one pass'] = step(together, ten)
    return steps


@torch.no_grad()
def measure(
    runs: int = 9,
    batch: int = 8,
    size: int = 224,
    depth: int = 50,
    threads: int = 2,
    progress: Report | None = None,
) -> list[Comparison]:
    """Time ten crops of a batch.

    Args:
        runs: Number of runs. Defaults to 9.
        batch: Number of images. Defaults to 8.
        size: Side of the crops, in pixels. Defaults to 224.
        depth: Depth of the ResNet. Defaults to 50.
        threads: Number of threads. Defaults to 2.
        progress: Told what fraction is done. Defaults to None.

    Returns:
        One table.
    """
    torch.set_num_threads(threads)
    register_all_modules(init_default_scope=True)
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='ResNet', depth=depth),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead',
                num_classes=1000,
                in_channels=512 if depth < 50 else 2048,
            ),
            data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
        )
    ).to(get_device())
    model.eval()
    steps = make_steps(model, batch, size)
    times = turns(steps, runs, progress)
    one = times.pop('one crop')
    rows = [
        Row(name, one, ten, threads, get_device(), count(steps[name]))
        for name, ten in times.items()
    ]
    title = f'ResNet-{depth}, batch {batch}, {size} pixels, {get_device()}'
    return [Comparison(title, 'one crop', 'ten crops', rows, is_cost=True)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--runs', type=positive, default=9)
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--size', type=int, default=224)
    parser.add_argument('--depth', type=int, default=50, help='of the ResNet')
    parser.add_argument('--threads', type=int, default=2)
    run_alone('tta', measure, parser.parse_args())


if __name__ == '__main__':
    main()
