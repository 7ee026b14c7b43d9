"""A made-up VIPriors challenge of the true layout: ImageNet, the lists, and what they select.

The layout is that of ``image-classification`` in the challenge's toolkit
(VIPriors/vipriors-challenges-toolkit): ``train.pickle`` and ``val.pickle`` are pairs of a class
folder and a file name in ImageNet's ``train``, ``test.pickle`` are file names in ImageNet's
``val``, and ``generate_images.py`` names test images by their position in that list.
"""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image


class Challenge(NamedTuple):
    """Where the parts of a challenge are.

    Attributes:
        imagenet: ImageNet: ``train/CLASS/*.JPEG``, and ``val/*.JPEG`` without class folders.
        lists: Folder of ``train.pickle``, ``val.pickle`` and ``test.pickle``.
        imagenet_50: What the toolkit makes of them: ``{train,val}/CLASS/*`` and ``test/imgs/*``.
        classes: Names of the class folders, sorted.
        test_labels: Class of each image of ``test/imgs``, by its file name, as the server has it.
    """

    imagenet: Path
    lists: Path
    imagenet_50: Path
    classes: tuple[str, ...]
    test_labels: dict[str, int]


def make_challenge(
    folder: Path, classes: int = 20, per_class: int = 10, size: int = 40, seed: int = 0
) -> Challenge:
    """Make a challenge of a given size.

    Images of a class share a pattern of 4x4 colors under noise, so that a network can learn them.

    Args:
        folder: Where to; it is created.
        classes: Number of classes.
        per_class: Number of images per class in each of train, val and test.
        size: Shorter side of the images in pixels.
        seed: Seed of the images and of the choice.
    """
    folder = Path(folder)
    imagenet, lists, chosen = (folder / name for name in ('imagenet', 'lists', 'imagenet_50'))
    generator = np.random.default_rng(seed)
    names = tuple(f'n{1000000 + 137 * number:08d}' for number in range(classes))
    patterns = generator.integers(40, 216, (classes, 4, 4, 3))

    def draw(path: Path, label: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = generator.normal(0, 25, (4, 4, 3))
        pixels = np.clip(patterns[label] + noise, 0, 255).astype(np.uint8)
        shape = (size, size + int(generator.integers(0, 9)))
        Image.fromarray(pixels).resize(shape, Image.Resampling.BILINEAR).save(path, 'JPEG')

    train, val = [], []
    for label, name in enumerate(names):
        files = [f'{name}_{number}.JPEG' for number in range(2 * per_class + 1)]  # one is not used
        for file in files:
            draw(imagenet / 'train' / name / file, label)
        order = generator.permutation(len(files))
        train += [(name, files[n]) for n in order[:per_class]]
        val += [(name, files[n]) for n in order[per_class : 2 * per_class]]
    labels = generator.permutation(np.repeat(np.arange(classes), per_class))
    test = [f'ILSVRC2012_val_{number + 1:08d}.JPEG' for number in range(len(labels))]
    for file, label in zip(test, labels):
        draw(imagenet / 'val' / file, label)
    order = generator.permutation(len(test))
    test, labels = [test[n] for n in order], labels[order]

    lists.mkdir()
    for split, content in (('train', train), ('val', val), ('test', test)):
        (lists / f'{split}.pickle').write_bytes(pickle.dumps(content))
    for split, content in (('train', train), ('val', val)):
        for name, file in content:
            (chosen / split / name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(imagenet / 'train' / name / file, chosen / split / name / file)
    (chosen / 'test/imgs').mkdir(parents=True)
    for number, file in enumerate(test):
        shutil.copyfile(imagenet / 'val' / file, chosen / f'test/imgs/img_{number}.JPEG')
    known = {f'img_{number}.JPEG': int(label) for number, label in enumerate(labels)}
    return Challenge(imagenet, lists, chosen, names, known)
