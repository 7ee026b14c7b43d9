"""What it takes to decode a photo: the libraries that a pipeline can use.

    python benchmarks/decoding.py [--runs 9] [--photos 16] [--threads 1]

Photos of 500 x 375 pixels, quality 90, from bytes in memory to uint8 pixels, by OpenCV (what MMCV
and our `LoadImage` use), Pillow and torchvision; and OpenCV at half of the resolution, which
loses what small crops of the photo show. In turns; medians of one run; quote the ratios.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable

import cv2
import numpy as np
import torch
from PIL import Image
from timing import Comparison, Report, Row, positive, run_alone, turns
from torchvision.io import ImageReadMode, decode_jpeg
from views import photo

Decode = Callable[[bytes], object]


def _opencv(flags: int) -> Decode:
    return lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def _pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert('RGB'))


def _torchvision(data: bytes) -> torch.Tensor:
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return decode_jpeg(encoded, mode=ImageReadMode.RGB)


DECODERS: dict[str, Decode] = {
    'OpenCV': _opencv(cv2.IMREAD_COLOR),
    'Pillow': _pillow,
    'torchvision': _torchvision,
    'OpenCV, half the resolution': _opencv(cv2.IMREAD_REDUCED_COLOR_2),
}


def measure(
    runs: int = 9, photos: int = 16, threads: int = 1, progress: Report | None = None
) -> list[Comparison]:
    """Time the decoders.

    Args:
        runs: Number of runs. Defaults to 9.
        photos: Number of photos in each. Defaults to 16.
        threads: Number of threads. Defaults to 1.
        progress: Told what fraction is done. Defaults to None.

    Returns:
        One table, of times for all photos.
    """
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    files = []
    for seed in range(photos):
        file = io.BytesIO()
        Image.fromarray(photo((375, 500), seed)).save(file, 'JPEG', quality=90)
        files.append(file.getvalue())

    def step(decode: Decode) -> Callable[[], object]:
        return lambda: [decode(data) for data in files]

    times = turns({name: step(decode) for name, decode in DECODERS.items()}, runs, progress)
    rows = [Row(name, times['OpenCV'], ours, threads) for name, ours in times.items()]
    return [Comparison(f'{photos} photos of 500 x 375 pixels', 'OpenCV', 'this', rows)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--runs', type=positive, default=9)
    parser.add_argument('--photos', type=positive, default=16)
    parser.add_argument('--threads', type=positive, default=1)
    run_alone('decoding', measure, parser.parse_args())


if __name__ == '__main__':
    main()
