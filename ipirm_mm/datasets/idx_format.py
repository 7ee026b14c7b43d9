"""Reader of IDX files, the format of Fashion-MNIST."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

import numpy as np

from ipirm_mm.errors import UserError

# Folder of Debian's package.
DEBIAN_FOLDER = '/usr/share/datasets/fashion-mnist'
INSTALL = 'apt-get install dataset-fashion-mnist'
FILES = {
    'train': ('train-images-idx3-ubyte.gz', 'train-labels-idx1-ubyte.gz'),
    'test': ('t10k-images-idx3-ubyte.gz', 't10k-labels-idx1-ubyte.gz'),
}


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes.

    Args:
        path: The file.

    Returns:
        Array of the shape in the file's header, uint8.

    Raises:
        UserError: If the file is missing, truncated, or of another format; it is named.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f'{path} is missing: install the data with `{INSTALL}`, or give the folder of the '
            'four gzipped IDX files of Fashion-MNIST'
        )
    try:
        with gzip.open(path, 'rb') as stream:
            data = stream.read()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f'{path} cannot be read ({error}): install it again, `{INSTALL}`'
        ) from error
    # Magic number: two zeros, 8 for unsigned bytes, number of dimensions.
    if len(data) < 4 or data[:3] != b'\x00\x00\x08':
        raise UserError(
            f'{path} is not an IDX file of unsigned bytes: its first bytes are {data[:4]!r}'
        )
    dimensions = data[3]
    offset = 4 + 4 * dimensions
    shape = tuple(np.frombuffer(data[4:offset], '>u4').astype(int)) if len(data) >= offset else ()
    expected = offset + int(np.prod(shape, dtype=np.int64))
    if len(shape) != dimensions or len(data) != expected:
        raise UserError(
            f'{path} is {"truncated" if len(data) < expected else "too long"}: it has {len(data)} '
            f'bytes, but its header says {expected}'
        )
    return np.frombuffer(data, np.uint8, offset=offset).reshape(shape)


def read_fashion_mnist(folder: str | os.PathLike, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a part of Fashion-MNIST.

    Args:
        folder: Folder of the IDX files.
        part: ``'train'`` (60,000 images) or ``'test'`` (10,000).

    Returns:
        Images ``(N, 28, 28)`` and labels ``(N,)``, both uint8.

    Raises:
        UserError: If a file is missing or damaged, images and labels do not match, or they belong
            to another data set.
    """
    images, labels = (read_idx(Path(folder) / name) for name in FILES[part])
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise UserError(
            f'{folder}: images of shape {images.shape} and labels of shape {labels.shape} do not '
            'belong together'
        )
    if images.shape[1:] != (28, 28) or labels.max(initial=0) > 9:
        raise UserError(
            f'{folder} does not hold Fashion-MNIST, 28 x 28 images of classes 0 to 9: its images '
            f'are of {images.shape[1:]}, its largest class is {labels.max(initial=0)}'
        )
    return images, labels
