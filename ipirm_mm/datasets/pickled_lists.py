"""Pickled lists of images, as the VIPriors challenge's toolkit has them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ipirm_mm.errors import UserError
from ipirm_mm.utils import safe_load

_IMAGE = re.compile(r'.*\.(?:jpe?g|png|bmp|webp|tiff?|ppm|pgm)', re.IGNORECASE | re.DOTALL)
# Names of ImageNet's training images begin with their class.
_OF_CLASS = re.compile(r'(n\d{8})_[^/]*')
EXPECTED = (
    'expected pairs of class folder and file name, pairs of path and class, file names or paths, '
    'or a dict of class to names or of path to class'
)


class PickledImage(NamedTuple):
    """An image that a pickled list names.

    Attributes:
        path: Its path in the folder that the list is for.
        folder: Its class folder; None if the list does not say.
        label: Its class, from 0 on; None if the list does not say.
        target: Name that the list gives it; None if it gives none.
    """

    path: str
    folder: str | None = None
    label: int | None = None
    target: str | None = None


def read_pickled_list(path: Path) -> tuple[list[PickledImage], str]:
    """Read a pickled list of images. It cannot run code, see :func:`ipirm_mm.utils.safe_load`.

    The toolkit of the challenge reads ``train.pickle`` and ``val.pickle`` as pairs of a class
    folder and a file name, and ``test.pickle`` as file names (``generate_images.py`` in
    VIPriors/vipriors-challenges-toolkit). Also read are pairs of a path and its class (a number),
    pairs of a path and the name that the image gets, a dict of each class to its names, and a
    dict of each path to its class. Lists may be tuples or NumPy arrays.

    Args:
        path: The file.

    Returns:
        The images in the order of the file, and in words what the file holds.

    Raises:
        UserError: If the file is missing, truncated, refers to a type or function that is not
            allowed, holds something else, or names an image twice or outside of its folder.
    """
    try:
        with open(path, 'rb') as stream:
            content = safe_load(stream)
    except OSError as error:
        raise UserError(f'the list file {path} cannot be read: {error}') from error
    except Exception as error:  # bytes that are no pickle raise errors of many types
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise UserError(
            f'the list file {path} is refused ({reason}): a pickle of names and numbers was '
            'expected, and nothing of it was run; get it again from the toolkit of the challenge'
        ) from error
    images, kind = _images(path, content)
    first: dict[str, int] = {}
    for number, image in enumerate(images):
        for name in (image.path, image.folder, image.target):
            if name is not None and (
                not name or os.path.isabs(name) or '..' in Path(name).parts or '\0' in name
            ):
                raise UserError(
                    f'{path}, entry {number}: {name!r} is not a path below the folder of the '
                    'images'
                )
        if image.path in first:
            raise UserError(
                f'{path} names {image.path!r} twice, in entries {first[image.path]} and {number}: '
                'remove one'
            )
        first[image.path] = number
    return images, kind


def _images(path: Path, content: Any) -> tuple[list[PickledImage], str]:
    """Images of what a file holds, and the name of its structure."""
    if isinstance(content, dict):
        pairs = [(_plain(key), _plain(value)) for key, value in content.items()]
        if pairs and all(_is_list(value) for _, value in pairs):
            of_class = [_of_class(key, name) for key, names in pairs for name in names]
            if None not in of_class:
                return [image for image in of_class if image], 'a dict of class to names'
            pairs = []
        structure = 'a dict of path to class'
    else:
        pairs, structure = _plain(content), 'pairs of path and class'
        if not _is_list(pairs):
            pairs = []
        elif pairs and all(isinstance(entry, str) for entry in pairs):
            return [PickledImage(_slashes(entry)) for entry in pairs], 'file names'
        pairs = [tuple(entry) if _is_list(entry) else entry for entry in pairs]
        if any(not isinstance(entry, tuple) or len(entry) != 2 for entry in pairs):
            pairs = []
    if pairs and all(isinstance(one, str) for one, _ in pairs):
        if all(_is_class(two) for _, two in pairs):
            return [PickledImage(_slashes(one), label=int(two)) for one, two in pairs], structure
        if all(isinstance(two, str) for _, two in pairs):
            named = [(_slashes(one), _slashes(two)) for one, two in pairs]
            if all(_IMAGE.fullmatch(one) for one, _ in named):
                if all(_IMAGE.fullmatch(two) for _, two in named):
                    found = [PickledImage(one, target=two.split('/')[-1]) for one, two in named]
                    return found, 'pairs of path and target name'
                return [PickledImage(one, folder=two) for one, two in named], structure
            if not isinstance(content, dict):
                found = [PickledImage(f'{one}/{two}', folder=one) for one, two in named]
                return found, 'pairs of class folder and file name'
    raise UserError(f'the list file {path} holds {_describe(content)}: {EXPECTED}')


def _of_class(key: Any, name: Any) -> PickledImage | None:
    """An image of a dict of class to names; None if it is none."""
    if not isinstance(name, str):
        return None
    name = _slashes(name)
    if _is_class(key):
        return PickledImage(name, label=int(key))
    if not isinstance(key, str):
        return None
    return PickledImage(name if '/' in name else f'{key}/{name}', folder=key)


def class_folder(path: str) -> str:
    """Class folder of an image of ImageNet's training split; empty if its path has none.

    Args:
        path: ``CLASS/NAME``, or ``NAME`` as ImageNet names training images, ``CLASS_123.JPEG``.
    """
    of_class = _OF_CLASS.fullmatch(path)
    return of_class[1] if of_class else Path(path).parent.name


def _plain(value: Any, depth: int = 2) -> Any:
    """A list or an array, of lists or arrays, as lists of Python's own numbers and text."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if depth and isinstance(value, (list, tuple)):
        return [_plain(one, depth - 1) for one in value]
    return value


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _is_class(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _slashes(name: str) -> str:
    """A path with slashes, without ``./`` before it."""
    return re.sub(r'^(\./+)+', '', name.replace('\\', '/'))


def _describe(content: Any) -> str:
    """What a file holds, for a message."""
    if isinstance(content, np.ndarray):
        return f'an array of {content.dtype} of shape {content.shape}'
    if isinstance(content, (dict, list, tuple)):
        some = next(iter(content.items() if isinstance(content, dict) else content), None)
        shown = f', such as {" ".join(str(some).split())[:80]}' if content else ''
        return f'a {type(content).__name__} of {len(content)} entries{shown}'
    return f'a {type(content).__name__}'
