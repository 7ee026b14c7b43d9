"""A folder of images: what is in it, and the sizes of a training that fit it."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from PIL import Image

from ipirm_mm.datasets import EXTENSIONS, is_image
from ipirm_mm.errors import UserError
from ipirm_mm.options import check_whole
from ipirm_mm.utils import available_processors

# Fewer images make no batch with negatives in several subsets.
LEAST_IMAGES = 16
IMAGE_SIZES = (64, 96, 128, 160, 192, 224)
# Images whose sizes are looked at.
_MEASURED = 200
# The report's 800 epochs of 50,000 images.
_IMAGES_SEEN = 800 * 50_000


@dataclass(frozen=True)
class ImageFolder:
    """What is in a folder of images.

    Attributes:
        root: The folder, as an absolute path.
        count: Number of images, in folders of any depth.
        classes: Names of its folders, sorted, if each image is in one of at least two; else empty.
        smallest_class: Number of images of the smallest class; 0 without classes.
        empty: Names of its folders without an image, which MMPretrain counts as classes.
        short_side: Median of the shorter sides, in pixels.
    """

    root: Path
    count: int
    classes: tuple[str, ...]
    smallest_class: int
    empty: tuple[str, ...]
    short_side: int


def read_folder(data: str | os.PathLike[str], out: str | os.PathLike[str]) -> ImageFolder:
    """Look at a folder of images.

    Args:
        data: The folder.
        out: The folder that the training writes to.

    Returns:
        What is in it.

    Raises:
        UserError: If there is no such folder, it has fewer than 16 images, none of the images
            looked at can be read, or the training would write its pictures into it.
    """
    root = Path(data).resolve()
    if not root.is_dir():
        raise UserError(f'data={data}: there is no such folder; give the folder of the images')
    if Path(out).resolve() == root or Path(out).resolve().is_relative_to(root):
        raise UserError(
            f'out={out} is in the folder of the images, {data}, and the pictures that are written '
            'there would be images of the next run: choose a folder outside of it'
        )
    # MMPretrain's data sets follow links too.
    paths = sorted(
        path.relative_to(root)
        for folder, _, names in os.walk(root, followlinks=True)
        for path in (Path(folder) / name for name in names)
        if path.suffix.lower() in EXTENSIONS
    )
    if len(paths) < LEAST_IMAGES:
        raise UserError(
            f'data={data} has {len(paths)} images, but at least {LEAST_IMAGES} are needed; '
            f'names of images end in one of {", ".join(EXTENSIONS)}'
        )
    hidden = [path for path in paths if not is_image(path)]
    if hidden:
        raise UserError(
            f'data={data} has {len(hidden)} hidden files with the name of an image, such as '
            f'{hidden[0]}: remove them'
        )
    folders = Counter(path.parts[0] for path in paths if len(path.parts) > 1)
    labeled = len(folders) > 1 and sum(folders.values()) == len(paths)
    classes = tuple(sorted(folders)) if labeled else ()
    smallest = min(folders.values()) if labeled else 0
    empty = tuple(
        sorted(path.name for path in root.iterdir() if path.is_dir() and path.name not in folders)
    )
    return ImageFolder(root, len(paths), classes, smallest, empty, _short_side(root, paths))


def _short_side(root: Path, paths: list[Path]) -> int:
    sides, problem = [], None
    for path in paths[:: max(len(paths) // _MEASURED, 1)]:
        try:
            with Image.open(root / path) as image:
                sides.append(min(image.size))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            problem = f'{root / path} cannot be read as an image ({error})'
    if not sides:
        raise UserError(f'{problem}, and neither can the others that were looked at')
    return int(median(sides))


def choose_image_size(folder: ImageFolder) -> int:
    """The side of the crops: the largest of 64 to 224 pixels that most images have."""
    return max([size for size in IMAGE_SIZES if size <= folder.short_side], default=IMAGE_SIZES[0])


def choose_batch_size(count: int) -> int:
    """Images per step: a power of two, at least four steps per epoch, 8 to 256."""
    size = 256
    while size > 8 and size * 4 > count:
        size //= 2
    return size


@dataclass(frozen=True)
class Sizes:
    """Sizes of a training that do not depend on its stage.

    Attributes:
        batch_size: Images per step.
        image_size: Side of the crops in pixels.
        workers: Processes that load images.
    """

    batch_size: int
    image_size: int
    workers: int


def choose_sizes(
    folder: ImageFolder, batch_size: int | None, image_size: int | None, workers: int | None
) -> Sizes:
    """Choose the sizes that are not given.

    Args:
        folder: The images.
        batch_size: Images per step. None: :func:`choose_batch_size`.
        image_size: Side of the crops in pixels. None: :func:`choose_image_size`.
        workers: Processes that load images. None: one per processor, at most 8.

    Raises:
        UserError: If one that is given is out of range.
    """
    sizes = Sizes(
        choose_batch_size(folder.count) if batch_size is None else batch_size,
        choose_image_size(folder) if image_size is None else image_size,
        min(available_processors(), 8) if workers is None else workers,
    )
    check_whole('batch_size', sizes.batch_size)
    check_whole('image_size', sizes.image_size)
    check_whole('workers', sizes.workers, least=0)
    return sizes


def choose_subsets(batch_size: int) -> int:
    """Subsets of the partition, 2 to 50: five images of a batch for each.

    A subset with fewer than two images in a batch adds nothing to its loss.
    """
    return min(max(batch_size // 5, 2), 50)


def choose_epochs(count: int) -> int:
    """Epochs, 100 to 800: as many images are seen as in the report, if that is in this range."""
    return min(max(_IMAGES_SEEN // count, 100), 800)
