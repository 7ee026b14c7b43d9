"""Make the embedded data file from the IDX files of Fashion-MNIST.

    apt-get install dataset-fashion-mnist
    python tools/dataset_converters/fashion_mnist50.py --out fashion_mnist_50.npz

Draws, with a fixed seed, 50 images of each class for train, val and test, and 4,000 further ones
as unlabeled. The file holds for each split the images, the labels and where they come from.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import zipfile
from pathlib import Path

import numpy as np

from ipirm_mm.datasets.idx_format import DEBIAN_FOLDER, read_fashion_mnist
from ipirm_mm.errors import UserError

PER_CLASS = 50
UNLABELED = 4000


def draw(labels: np.ndarray, splits: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Disjoint index sets with 50 images of each class, in shuffled order."""
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
    """Write the data file; the same bytes for the same input and seed."""
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
    # np.savez writes the time into the archive; LZMA is 15 % smaller than its deflate.
    temporary = Path(f'{out}.part')
    try:
        with zipfile.ZipFile(temporary, 'w', zipfile.ZIP_LZMA) as archive:
            for name, array in arrays.items():
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, array, allow_pickle=False)
                archive.writestr(
                    zipfile.ZipInfo(f'{name}.npy'), buffer.getvalue(), zipfile.ZIP_LZMA
                )
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--folder', default=DEBIAN_FOLDER, help='folder of the IDX files')
    parser.add_argument('--out', required=True, help='file to write')
    parser.add_argument('--seed', type=int, default=0, help='seed of the draw')
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
