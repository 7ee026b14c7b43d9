"""What the two views of an image cost: image by image in the pipeline, and in batches.

    python benchmarks/views.py [--runs 5] [--batch N] [--threads 1]

Images of 28 pixels with the quickstart's crop and flip, and of 32 pixels with SimCLR's, both
from memory and in batches of 256; and photos of 500 x 375 pixels from JPEG files with SimCLR's
transforms at 224 pixels, in batches of 64, of which only the crop stays in the pipeline.
Each row is the whole way from the data set to normalized views, in one process, in turns. "Loader"
is the part that data workers do; the rest is done by the data preprocessor, on a GPU if there is
one. Milliseconds per image, medians of one
run; quote the ratios. Only what torch computes in batches is beside the hardware's limits: other
views are made image by image by NumPy, Pillow and OpenCV.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hardware import Work, count
from timing import Comparison, Report, Row, positive, run_alone, share, turns

warnings.filterwarnings('ignore')

from mmengine.config import Config  # noqa: E402
from mmengine.dataset import default_collate  # noqa: E402
from mmengine.device import get_device  # noqa: E402
from mmpretrain.datasets import CustomDataset  # noqa: E402
from mmpretrain.registry import MODELS  # noqa: E402
from mmpretrain.utils import register_all_modules  # noqa: E402
from PIL import Image  # noqa: E402
from torch.nn.functional import interpolate  # noqa: E402

from ipirm_mm.datasets import FashionMNIST50, seeded_transforms  # noqa: E402

CONFIGS = Path(__file__).resolve().parents[1] / 'configs/_base_/datasets'
NORMALIZE: dict[str, Any] = dict(mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True)


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
    # One image at a time only what must be: images of a batch need one size.
    crop = [dict(type='TorchRandomResizedCrop', scale=simclr[0]['scale'])]
    rest = simclr[1:]
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


class Way:
    """A way to make views, one batch after another.

    Args:
        data: The data set.
        preprocessor: What gets its batches.
        batch: Number of images per batch.
    """

    def __init__(self, data: Any, preprocessor: Any, batch: int) -> None:
        self.data, self.preprocessor, self.batch = data, preprocessor, batch
        self.order = itertools.cycle(range(len(data)))

    def load(self) -> None:
        """Do what data workers do."""
        samples = [self.data[index] for index in itertools.islice(self.order, self.batch)]
        self.loaded = default_collate(samples)

    def finish(self) -> None:
        """Do the rest."""
        views = self.preprocessor(self.loaded, True)['inputs']
        views[1].sum().item()  # waits for a GPU

    def whole(self) -> None:
        """Do all."""
        self.load()
        self.finish()


def compare(
    name: str, setting: dict[str, Any], runs: int, batch: int, threads: int, progress: Report
) -> list[Row]:
    """Time the ways of a setting: the loader's part and the whole, per image."""
    found = {way: Way(*parts, batch) for way, parts in ways(setting).items()}
    steps = {}
    for way, made in found.items():
        for transform in seeded_transforms(made.data):
            transform.set_epoch(0)
        steps[f'{way}, loader'], steps[f'{way}, rest'] = made.load, made.finish
    times = {
        step: [value / batch for value in values]
        for step, values in turns(steps, runs, progress).items()
    }
    for way in found:
        parts = times[f'{way}, loader'], times.pop(f'{way}, rest')
        times[f'{way}, whole'] = [sum(both) for both in zip(*parts)]
    total = count(found['BatchedViews'].whole)
    work = {'BatchedViews, whole': Work(total.operations / batch, total.bytes / batch)}
    return [
        Row(
            f'{name}, {way}, {part}',
            times[f'SeededMultiView, {part}'],
            times[f'{way}, {part}'],
            threads,
            get_device(),
            work.get(f'{way}, {part}'),
        )
        for way in ('MultiView', 'BatchedViews')
        for part in ('loader', 'whole')
    ]


def measure(
    runs: int = 5, batch: int | None = None, threads: int = 1, progress: Report | None = None
) -> list[Comparison]:
    """Time the making of views.

    Args:
        runs: Number of runs. Defaults to 5.
        batch: Number of images per batch. Defaults to None: 64 photos, or 256 small images.
        threads: Number of threads. Defaults to 1.
        progress: Told what fraction is done. Defaults to None.

    Returns:
        One table.
    """
    torch.set_num_threads(threads)
    register_all_modules(init_default_scope=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        found = settings(Path(folder))
        # Larger images take longer.
        parts = share(progress, [int(name.split()[0]) ** 2 for name in found])
        for (name, setting), part in zip(found.items(), parts):
            size = batch or (64 if 'early' in setting else 256)
            rows += compare(name, setting, runs, size, threads, part)
    title = f'two views of an image, {get_device()}'
    return [Comparison(title, 'SeededMultiView', 'this', rows)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--runs', type=positive, default=5)
    parser.add_argument('--batch', type=positive)
    parser.add_argument('--threads', type=int, default=1)
    run_alone('views', measure, parser.parse_args())


if __name__ == '__main__':
    main()
