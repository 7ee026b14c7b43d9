"""Make the folders of the VIPriors subset from a folder of ImageNet.

    # with the lists of the challenge's toolkit, train.pickle, val.pickle and test.pickle; ImageNet
    # has the folders train/CLASS and val:
    python tools/dataset_converters/vipriors.py data/imagenet data/vipriors \\
        --lists vipriors-challenges-toolkit/image-classification

    # with text lists train.txt, val.txt and test.txt (lines of "path class", in test.txt of
    # "path"; paths are relative to the ImageNet folder):
    python tools/dataset_converters/vipriors.py data/imagenet data/vipriors --lists lists/

    # without lists: a seeded draw of the same size, from one folder per class. It is NOT the
    # challenge's data, and accuracies on it cannot be compared with the report's.
    python tools/dataset_converters/vipriors.py data/imagenet/train data/drawn --draw 0

The folder imagenet_50 that the toolkit itself makes needs no conversion: link it to data/vipriors.
Images are linked; --copy copies them. If anything is wrong, nothing is written.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np

from ipirm_mm import cli
from ipirm_mm.datasets.list_files import read_list
from ipirm_mm.datasets.pickled_lists import PickledImage, class_folder, read_pickled_list
from ipirm_mm.datasets.vipriors import SPLITS, folder_images, subfolders
from ipirm_mm.errors import UserError
from ipirm_mm.utils import ProgressBar

DRAWN = (
    'Drawn with seed {seed} from {source}: {per_class} images of each of {classes} classes in '
    'each split.\n'
    'This has the size of the VIPriors challenge, but it is not its data: accuracies cannot be\n'
    'compared with those of the challenge or of the report.\n'
)
LISTED = 'The images in {source} that the lists in {lists} name.\n'
# How test images are named. The challenge's server knows them by the toolkit's names.
BY_POSITION = (
    'Test images are named img_0.JPEG, img_1.JPEG, ... by their position in test.pickle, as the\n'
    "challenge's toolkit names them and a submission needs.\n"
)
BY_LIST = 'Test images have the names that test.pickle gives them.\n'
BY_SOURCE = (
    "Test images keep their names in {source}. A submission needs the names of the challenge's\n"
    'toolkit, img_0.JPEG, img_1.JPEG, ...: use its test.pickle, or link its imagenet_50.\n'
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('imagenet', type=Path, help='folder of ImageNet')
    parser.add_argument('out', type=Path, help='folder to create')
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument(
        '--lists',
        type=Path,
        help='folder of train.pickle, val.pickle and test.pickle, or train.txt, ...',
    )
    how.add_argument('--draw', type=int, metavar='SEED', help='draw a subset with this seed')
    parser.add_argument(
        '--per-class',
        type=int,
        default=50,
        help='images per class and split that --draw draws (default: 50)',
    )
    parser.add_argument('--copy', action='store_true', help='copy the images instead of linking')
    return parser.parse_args()


def class_names(lists: dict[str, list[PickledImage]]) -> dict[int, str] | None:
    """Folder of each class; None unless each has its own, in the order of the classes."""
    names: dict[int, str] = {}
    for images in lists.values():
        for image in images:
            if image.label is not None:
                folder = Path(image.path).parent.name
                if names.setdefault(image.label, folder) != folder:
                    return None
    ordered = [names[label] for label in sorted(names)]
    return names if ordered == sorted(set(ordered)) and all(ordered) else None


def read_lists(folder: Path) -> tuple[dict[str, list[PickledImage]], dict[str, str]]:
    """Images of each split, and for those of pickles what the file holds."""
    lists, kinds = {}, {}
    for split in SPLITS:
        text, pickled = (folder / f'{split}.{ending}' for ending in ('txt', 'pickle'))
        if text.exists() and pickled.exists():
            raise UserError(f'{folder} has both {text.name} and {pickled.name}: remove one')
        if pickled.exists():
            lists[split], kinds[split] = read_pickled_list(pickled)
        elif text.exists():
            lists[split] = [PickledImage(path, label=label) for path, label in read_list(text)]
    if 'train' not in lists:
        raise UserError(
            f'{folder} has no train.pickle and no train.txt: give the folder of the lists, such '
            "as image-classification in the challenge's toolkit"
        )
    return lists, kinds


def find_images(imagenet: Path, split: str, images: list[PickledImage]) -> list[Path]:
    """Files of the images of a pickled list: the toolkit takes test from ImageNet's val."""
    roots = [imagenet / ('val' if split == 'test' else 'train'), imagenet]
    root = next((root for root in roots if (root / images[0].path).is_file()), roots[0])
    files = [root / image.path for image in images]
    if split == 'test' and not files[0].is_file():
        # ImageNet's archive has val in one folder; many move its images into class folders.
        inside = {path.name: path for path in root.glob('*/*')}
        files = [inside.get(path.name, path) for path in files]
    return files


def place(split: str, number: int, image: PickledImage, names: dict[int, str] | None) -> str:
    """Where an image of a pickled list goes, as the toolkit's generate_images.py arranges them."""
    name = image.target or Path(image.path).name
    if image.label is not None:
        folder = names[image.label] if names else f'{image.label:04d}'
    elif image.folder is not None:
        folder = Path(image.folder).name
    elif split == 'test':
        return f'test/imgs/{image.target or f"img_{number}.JPEG"}'
    else:
        folder = class_folder(image.path)
    if not folder:
        raise UserError(
            f'{split}.pickle does not give the class of {image.path}: name images as CLASS/NAME, '
            'or in pairs with their class'
        )
    return f'{split}/{folder}/{name}'


def text_place(split: str, image: PickledImage, names: dict[int, str] | None) -> str:
    """Where an image of a text list goes."""
    name = Path(image.path).name
    if image.label is None:
        return f'{split}/{name}'
    return f'{split}/{names[image.label] if names else f"{image.label:04d}"}/{name}'


def from_lists(imagenet: Path, folder: Path) -> tuple[list[tuple[Path, str]], str]:
    """Source and target of each listed image, and what was listed, in words."""
    lists, kinds = read_lists(folder)
    names = class_names(lists)
    places = []
    for split, images in lists.items():
        if split in kinds:
            files, remedy = find_images(imagenet, split, images), 'that has train/CLASS and val'
            targets = [place(split, n, image, names) for n, image in enumerate(images)]
        else:
            files, remedy = [imagenet / i.path for i in images], 'that paths are relative to'
            targets = [text_place(split, image, names) for image in images]
        missing = [file for file in files if not file.is_file()]
        if missing:
            ending = 'pickle' if split in kinds else 'txt'
            raise UserError(
                f'{len(missing)} of {len(files)} images of {folder}/{split}.{ending} are not in '
                f'{imagenet}, the first is {missing[0].relative_to(imagenet)}: give the folder '
                f'{remedy}'
            )
        places += zip(files, targets)
    origin = LISTED.format(lists=folder, source=imagenet)
    origin += ''.join(f'{split}.pickle holds {kind}.\n' for split, kind in kinds.items())
    tests = [target for _, target in places if target.startswith('test/')]
    if tests and tests[0].startswith('test/imgs/'):
        origin += BY_LIST if lists['test'][0].target else BY_POSITION
    elif tests:
        origin += BY_SOURCE.format(source=imagenet)
    return places, origin


def drawn(imagenet: Path, seed: int, per_class: int) -> list[tuple[Path, str]]:
    """Source and target of each drawn image, the same number per class in each split."""
    classes = sorted(subfolders(imagenet))
    if not classes:
        raise UserError(f'{imagenet} has no subfolders: give a folder with one folder per class')
    generator = np.random.default_rng(seed)
    places = []
    for name in classes:
        files = folder_images(imagenet / name)
        need = per_class * len(SPLITS)
        if len(files) < need:
            raise UserError(
                f'{imagenet / name} has {len(files)} images, but {need} are needed: '
                f'{per_class} in each of {", ".join(SPLITS)}; set --per-class'
            )
        chosen = generator.permutation(len(files))[:need].reshape(len(SPLITS), per_class)
        for split, part in zip(SPLITS, chosen):
            places += [
                (imagenet / name / files[i], f'{split}/{name}/{files[i]}') for i in sorted(part)
            ]
    return places


def write(places: list[tuple[Path, str]], out: Path, origin: str, copy: bool) -> None:
    """Link or copy the images. The folder appears when it is complete."""
    if out.exists():
        raise UserError(f'{out} is there already: remove it, or name another folder')
    counted: dict[str, Path] = {}
    for source, place in places:
        if place in counted:
            raise UserError(f'{source} and {counted[place]} would both become {place}')
        counted[place] = source
    part = out.with_name(out.name + '.part')
    shutil.rmtree(part, ignore_errors=True)
    try:
        with ProgressBar(f'{"copying" if copy else "linking"} {len(places):,} images') as bar:
            for number, (source, place) in enumerate(places):
                target = part / place
                target.parent.mkdir(parents=True, exist_ok=True)
                if copy:
                    shutil.copyfile(source, target)
                else:
                    target.symlink_to(source.resolve())
                bar((number + 1) / len(places))
        (part / 'ORIGIN.txt').write_text(origin)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def main() -> None:
    args = parse_args()
    if not args.imagenet.is_dir():
        raise UserError(f'there is no folder {args.imagenet}')
    if args.per_class < 1:
        raise UserError(f'--per-class must be at least 1, but is {args.per_class}')
    if args.draw is not None and args.draw < 0:
        raise UserError(f'--draw must not be negative, but is {args.draw}')
    if args.lists is not None:
        places, origin = from_lists(args.imagenet, args.lists)
    else:
        places = drawn(args.imagenet, args.draw, args.per_class)
        origin = DRAWN.format(
            seed=args.draw,
            source=args.imagenet,
            per_class=args.per_class,
            classes=len(places) // (args.per_class * len(SPLITS)),
        )
    write(places, args.out, origin, args.copy)
    print(f'{args.out}: {len(places):,} images\n{origin}', end='')


if __name__ == '__main__':
    cli.run(main)
