"""What the two views of an image cost: image by image in the pipeline, and in batches.

    python benchmarks/views.py [--runs 5] [--batch 64] [--threads 1]

Images of 28 pixels with the quickstart's crop and flip, and of 32 pixels with SimCLR's, both
from memory; and photos of 500 x 375 pixels from JPEG files with SimCLR's transforms at 224 pixels,
of which only the crop stays in the pipeline. Each row is the whole way from the data set to
normalized views, in one process, in turns. "Loader" is the part that data workers do; the rest is
done by the data preprocessor, on a GPU if there is one. Medians of one run; quote the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

warnings.filterwarnings('ignore')

from mmengine.config import Config  # noqa: E402
from mmengine.dataset import default_collate  # noqa: E402
from mmengine.device import get_device  # noqa: E402
from mmpretrain.datasets import CustomDataset  # noqa: E402
from mmpretrain.registry import MODELS  # noqa: E402
from mmpretrain.utils import register_all_modules  # noqa: E402
from PIL import Image  # noqa: E402
from torch.nn.functional import interpolate  # noqa: E402
from torch.utils.data import Dataset  # noqa: E402

from ipirm_mm.datasets import FashionMNIST50, seeded_transforms  # noqa: E402
from ipirm_mm.visualization import format_table  # noqa: E402

CONFIGS = Path(__file__).resolve().parents[1] / 'configs/_base_/datasets'
NORMALIZE: dict[str, Any] = dict(mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True)
COLUMNS = (
    ('name', 'two views of an image'),
    ('loader', 'loader, ms'),
    ('whole', 'whole, ms'),
    ('ratio', 'pipeline / this'),
)


def photo(size: tuple[int, int], seed: int) -> np.ndarray:
    """A smooth random image with some noise, ``(H, W, 3)`` uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 255 * torch.rand(1, 3, 12, 16, generator=generator)
    image = interpolate(coarse, size, mode='bicubic')[0].permute(1, 2, 0)
    image += 8 * torch.randn(image.shape, generator=generator)
    return image.clamp(0, 255).byte().numpy()


class Arrays(CustomDataset):
    """Photos in memory."""

    def load_data_list(self) -> list[dict[str, Any]]:
        return [dict(img=photo((32, 32), seed)) for seed in range(512)]

    def __init__(self, pipeline: list) -> None:
        super().__init__(data_root='memory', pipeline=pipeline, serialize_data=False)


def settings(folder: Path) -> dict[str, dict[str, Any]]:
    """For each size: the data set, and the pipelines of all and of the rest of the views."""
    small = Config.fromfile(CONFIGS / 'fashion_mnist_50.py')
    simclr = [dict(step) for step in Config.fromfile(CONFIGS / 'vipriors_simclr.py').view_pipeline]
    for seed in range(64):
        path = folder / f'{seed % 2}/{seed}.jpg'
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(photo((375, 500), seed)).save(path, quality=90)

    def files(pipeline: list) -> Any:
        return CustomDataset(data_root=str(folder), pipeline=pipeline)

    def embedded(pipeline: list) -> Any:
        return FashionMNIST50(split='unlabeled', pipeline=pipeline)

    load = [dict(type='LoadImage')]
    tiny = [{**simclr[0], 'scale': 32}, *simclr[1:]]
    crop, rest = simclr[:2], simclr[2:]
    return {
        '28 pixels': dict(data=embedded, load=[small.tint], views=small.view_pipeline),
        '32 pixels': dict(data=Arrays, load=[], views=tiny),
        '224 pixels': dict(data=files, load=load, views=simclr, early=crop, late=rest),
    }


def ways(setting: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Data set and preprocessor of each way to make the views."""
    load, views = setting['load'], setting['views']
    early = setting.get('early')
    crop = [dict(type='SeededMultiView', num_views=2, transforms=[early])] if early else []

    def multi(kind: str) -> list:
        view = dict(type=kind, num_views=2, transforms=[views])
        return [*load, view, dict(type='PackInputs', meta_keys=('sample_idx',))]

    pack = dict(type='PackWithSeed', meta_keys=('sample_idx',))
    plain = dict(type='SelfSupDataPreprocessor', **NORMALIZE)
    late = setting.get('late', views)
    batched = dict(type='BatchedViews', transforms=[late], **NORMALIZE)
    return {
        'MultiView': (setting['data'](multi('MultiView')), build(plain)),
        'SeededMultiView': (setting['data'](multi('SeededMultiView')), build(plain)),
        'BatchedViews': (setting['data']([*load, *crop, pack]), build(batched)),
    }


def build(preprocessor: dict[str, Any]) -> Any:
    """Build a data preprocessor on the device."""
    return MODELS.build(preprocessor).to(get_device())


def measure(data: Dataset, preprocessor: Any, indices: list[int]) -> tuple[float, float]:
    """Milliseconds per image: of the loader's part, and of all."""
    begin = time.perf_counter()
    batch = default_collate([data[index] for index in indices])
    loaded = time.perf_counter()
    views = preprocessor(batch, True)['inputs']
    views[1].sum().item()  # waits for a GPU
    end = time.perf_counter()
    return 1e3 * (loaded - begin) / len(indices), 1e3 * (end - begin) / len(indices)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--runs', type=int, default=5)
    parser.add_argument('--batch', type=int, default=64)
    parser.add_argument('--threads', type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    register_all_modules(init_default_scope=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, setting in settings(Path(folder)).items():
            both = ways(setting)
            for data, _ in both.values():
                for transform in seeded_transforms(data):
                    transform.set_epoch(0)
            times: dict[str, list[tuple[float, float]]] = {way: [] for way in both}
            for run in range(args.runs + 1):
                for way, (data, preprocessor) in both.items():
                    indices = [(run * args.batch + n) % len(data) for n in range(args.batch)]
                    found = measure(data, preprocessor, indices)
                    if run:  # the first warms up
                        times[way].append(found)
            median = {
                way: [statistics.median(part) for part in zip(*values)]
                for way, values in times.items()
            }
            for way, (loader, whole) in median.items():
                ratio = median['SeededMultiView'][1] / whole
                row = dict(loader=f'{loader:.3f}', whole=f'{whole:.3f}', ratio=f'{ratio:.2f}')
                rows.append(dict(name=f'{name}, {way}', **row))
    print(f'batch {args.batch}, {args.threads} threads, {get_device()}\n')
    print(format_table(rows, COLUMNS))


if __name__ == '__main__':
    main()
