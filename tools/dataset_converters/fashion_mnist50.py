"""Make the data file of FashionMNIST50, which the package contains, from Fashion-MNIST.

    apt-get install dataset-fashion-mnist
    python tools/dataset_converters/fashion_mnist50.py --out fashion_mnist_50.npz

Draws, with a fixed seed, 50 images per class for each of train, val and test, and 4,000 further
images as unlabeled. For each split the file holds the images, the labels, and the index of each
image in Fashion-MNIST.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import zipfile

import numpy as np

from ipirm_mm.datasets.idx_format import DEBIAN_FOLDER, read_fashion_mnist
from ipirm_mm.errors import UserError
from ipirm_mm.utils import atomic_open, check_writable

PER_CLASS = 50
UNLABELED = 4000


def draw(labels: np.ndarray, splits: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Draw disjoint sets of indices with 50 images per class each, in shuffled order."""
    chosen: list[list[np.ndarray]] = [[] for _ in range(splits)]
    for label in range(10):
        candidates = np.flatnonzero(labels == label)
        if len(candidates) < splits * PER_CLASS:
            raise UserError(
                f'class {label} has {len(candidates)} images, but {splits * PER_CLASS} are needed'
            )
        picked = generator.permutation(candidates)[: splits * PER_CLASS]
        for split, part in zip(chosen, np.split(picked, splits)):
            split.append(part)
    return [generator.permutation(np.concatenate(split)) for split in chosen]


def convert(folder: str, out: str, seed: int = 0) -> None:
    """Write the data file; the same input and seed give the same bytes."""
    check_writable(out)
    generator = np.random.default_rng(seed)
    images, labels = read_fashion_mnist(folder, 'train')
    test_images, test_labels = read_fashion_mnist(folder, 'test')
    train, val = draw(labels, 2, generator)
    (test,) = draw(test_labels, 1, generator)
    rest = np.setdiff1d(np.arange(len(labels)), np.concatenate((train, val)))
    if len(rest) < UNLABELED:
        raise UserError(
            f'{folder} leaves {len(rest)} images for unlabeled, but {UNLABELED} are needed'
        )
    unlabeled = generator.permutation(rest)[:UNLABELED]
    arrays: dict[str, np.ndarray] = {}
    for name, source, index in (
        ('train', (images, labels), train),
        ('val', (images, labels), val),
        ('test', (test_images, test_labels), test),
        ('unlabeled', (images, labels), unlabeled),
    ):
        arrays[f'{name}/images'] = source[0][index]
        arrays[f'{name}/labels'] = source[1][index]
        arrays[f'{name}/source'] = index.astype(np.int32)
    # Not np.savez, which writes the time into the archive. LZMA is 15 % smaller than deflate.
    with atomic_open(out) as stream, zipfile.ZipFile(stream, 'w', zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f'{name}.npy'), buffer.getvalue(), zipfile.ZIP_LZMA)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--folder',
        default=DEBIAN_FOLDER,
        help=f'folder of the IDX files (default: {DEBIAN_FOLDER})',
    )
    parser.add_argument('--out', required=True, help='file to write')
    parser.add_argument('--seed', type=int, default=0, help='seed of the draw (default: 0)')
    args = parser.parse_args()
    try:
        convert(args.folder, args.out, args.seed)
    except UserError as error:
        sys.exit(f'error: {error}')
    except OSError as error:
        sys.exit(f'error: {args.out} cannot be written: {error}')
    print(f'{args.out}: {os.path.getsize(args.out):,} bytes')


if __name__ == '__main__':
    main()
