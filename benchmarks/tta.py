"""What test-time augmentation costs: ten crops against one, without a data loader.

    python benchmarks/tta.py [--runs 9] [--batch 8] [--size 224] [--depth 50] [--threads 2]

`ScoreMergingTTA` with ten views of a batch, merged by each policy, against the classifier alone
with one view of the same batch, in turns; the network, its preprocessing and the samples that it
makes are in both. The last row has all views in one pass. On a GPU if there is one. Medians of one
run; quote the ratio, of which 10 is the network's own.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from typing import Any

import torch

warnings.filterwarnings('ignore')

from mmengine.device import get_device  # noqa: E402
from mmpretrain.registry import MODELS  # noqa: E402
from mmpretrain.structures import DataSample  # noqa: E402
from mmpretrain.utils import register_all_modules  # noqa: E402

from ipirm_mm.models.tta import VIEW_POLICIES, ScoreMergingTTA  # noqa: E402
from ipirm_mm.visualization import format_table  # noqa: E402


def batch(views: int, args: argparse.Namespace) -> dict[str, Any]:
    """Inputs and samples of some views of a batch."""
    shape = args.batch, 3, args.size, args.size
    return dict(
        inputs=[torch.randint(256, shape, dtype=torch.uint8) for _ in range(views)],
        data_samples=[[DataSample() for _ in range(args.batch)] for _ in range(views)],
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--runs', type=int, default=9)
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--size', type=int, default=224)
    parser.add_argument('--depth', type=int, default=50, help='of the ResNet')
    parser.add_argument('--threads', type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    register_all_modules(init_default_scope=True)
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='ResNet', depth=args.depth),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead',
                num_classes=1000,
                in_channels=512 if args.depth < 50 else 2048,
            ),
            data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
        )
    ).to(get_device())
    model.eval()
    one, ten = batch(1, args), batch(10, args)
    single = dict(inputs=one['inputs'][0], data_samples=one['data_samples'][0])
    steps = {'one crop': lambda: model.test_step(single)}
    for policy in VIEW_POLICIES:
        tta = ScoreMergingTTA(model, policy=policy)
        steps[f'ten crops, {policy}'] = lambda tta=tta: tta.test_step(ten)
    together = ScoreMergingTTA(model, max_images=10 * args.batch)
    steps['ten crops, mean, one pass'] = lambda: together.test_step(ten)
    times: dict[str, list[float]] = {name: [] for name in steps}
    with torch.no_grad():
        for run in range(args.runs + 1):
            for name, step in steps.items():
                begin = time.perf_counter()
                step()[0].pred_score.sum().item()  # waits for a GPU
                if run:  # the first warms up
                    times[name].append(1e3 * (time.perf_counter() - begin))
    median = {name: statistics.median(values) for name, values in times.items()}
    rows = [
        dict(name=name, ms=f'{value:.1f}', ratio=f'{value / median["one crop"]:.2f}')
        for name, value in median.items()
    ]
    print(f'ResNet-{args.depth}, batch {args.batch}, {args.size} pixels, {get_device()}\n')
    print(format_table(rows, (('name', 'step'), ('ms', 'ms'), ('ratio', 'to one crop'))))


if __name__ == '__main__':
    main()
