"""Make the folders of the VIPriors subset from a folder of ImageNet.

    # with the challenge's lists train.txt, val.txt and test.txt (lines of "path class", in
    # test.txt of "path"; paths are relative to the ImageNet folder):
    python tools/dataset_converters/vipriors.py data/imagenet data/vipriors --lists lists/

    # without them: a seeded draw of the same size, from one folder per class. It is NOT the
    # challenge's data, and accuracies on it cannot be compared with the report's.
    python tools/dataset_converters/vipriors.py data/imagenet/train data/drawn --draw 0

Images are linked; --copy copies them. If anything is wrong, nothing is written.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np

from ipirm_mm import cli
from ipirm_mm.datasets.list_files import Entry, read_list
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


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('imagenet', type=Path, help='folder of ImageNet')
    parser.add_argument('out', type=Path, help='folder to create')
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument('--lists', type=Path, help='folder of train.txt, val.txt and test.txt')
    how.add_argument('--draw', type=int, metavar='SEED', help='draw a subset with this seed')
    parser.add_argument(
        '--per-class',
        type=int,
        default=50,
        help='images per class and split that --draw draws (default: 50)',
    )
    parser.add_argument('--copy', action='store_true', help='copy the images instead of linking')
    return parser.parse_args()


def class_names(lists: dict[str, list[Entry]]) -> dict[int, str] | None:
    """Folder of each class; None unless each has its own, in the order of the classes."""
    names: dict[int, str] = {}
    for entries in lists.values():
        for path, label in entries:
            if label is not None and names.setdefault(label, Path(path).parent.name) != (
                Path(path).parent.name
            ):
                return None
    ordered = [names[label] for label in sorted(names)]
    return names if ordered == sorted(set(ordered)) and all(ordered) else None


def from_lists(imagenet: Path, folder: Path) -> list[tuple[Path, str]]:
    """Source and target of each listed image."""
    lists = {
        split: read_list(folder / f'{split}.txt')
        for split in SPLITS
        if (folder / f'{split}.txt').exists()
    }
    if 'train' not in lists:
        raise UserError(f'{folder} has no train.txt: give the folder of the challenge lists')
    names = class_names(lists)
    places = []
    for split, entries in lists.items():
        missing = [path for path, _ in entries if not (imagenet / path).is_file()]
        if missing:
            raise UserError(
                f'{len(missing)} of {len(entries)} images of {folder}/{split}.txt are not in '
                f'{imagenet}, the first is {missing[0]}: give the folder that paths '
                'are relative to'
            )
        for path, label in entries:
            if label is None:
                place = f'{split}/{Path(path).name}'
            else:
                name = names[label] if names else f'{label:04d}'
                place = f'{split}/{name}/{Path(path).name}'
            places.append((imagenet / path, place))
    return places


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
        places = from_lists(args.imagenet, args.lists)
        origin = LISTED.format(lists=args.lists, source=args.imagenet)
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
