"""Whether predictions are of the same images and classes: what is merged, fitted and reported."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import torch

from ipirm_mm.errors import UserError
from ipirm_mm.models.utils import class_order, common_classes

from .predictions import Predictions

# Names of folders of splits: images under two of them are different, whatever their names.
SPLIT_NAMES = re.compile(
    r'^(train|training|val|valid|validation|dev|test|testing|eval|holdout|unlabeled)'
    r'([-_ ]?(set|split|data|images|imgs|[a-z]?\d*))?$',
    re.IGNORECASE,
)
# Two passes of a model over an image differ by less than this in the mean logarithm of a score.
SAME_SCORES = 1e-2


def normalized(image: str) -> str:
    """A path in one spelling: ``./x``, ``x//y``, ``x/../y`` and backslashes are resolved.

    Letters with accents are one character: macOS writes them as two.

    Args:
        image: Path of an image, or its index.
    """
    path = unicodedata.normalize('NFC', image.replace('\\', '/'))
    return os.path.normpath(path) if '/' in path else path


def split_root(images: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Split paths into the folder that all are in, and the rest, which stays if it moves.

    Args:
        images: Paths of images, or indices.

    Returns:
        Parts of the folder, and the rest of each path.
    """
    parts = [normalized(image).split('/') for image in images]
    least = min(len(path) for path in parts) - 1
    depth = 0
    while depth < least and all(path[depth] == parts[0][depth] for path in parts):
        depth += 1
    return tuple(parts[0][:depth]), ['/'.join(path[depth:]) for path in parts]


def _split(parts: Sequence[str]) -> str:
    """The innermost folder that is named like a split; empty if there is none."""
    return next((part.lower() for part in reversed(parts) if SPLIT_NAMES.match(part)), '')


def same_images(one: Sequence[str], two: Sequence[str]) -> list[int] | None:
    """Match the images of two lists, also if the root of their folder has moved.

    Args:
        one: Paths of images, or indices.
        two: As many of another list.

    Returns:
        The position in ``two`` of each image of ``one``; None if they are not the same images.
    """
    if len(one) != len(two):
        return None
    places = _match([normalized(image) for image in one], [normalized(image) for image in two])
    if places is not None:
        return places
    (root, rest), (other_root, other_rest) = split_root(one), split_root(two)
    if _split(root) != _split(other_root) or not (root or other_root):
        return None
    return _match(rest, other_rest)


def _match(one: list[str], two: list[str]) -> list[int] | None:
    if one == two:
        return list(range(len(one)))
    places = {image: place for place, image in enumerate(two)}
    if len(places) < len(two) or set(places) != set(one):
        return None
    return [places[image] for image in one]


def check_same_images(members: Sequence[Predictions]) -> None:
    """Check that predictions are of the same images, in the same order, and the same classes.

    Images are compared by their paths, without the folder that all are in, which may have moved.

    Args:
        members: The predictions to be merged.

    Raises:
        UserError: If they are not; it names two members and where they differ.
    """
    first = members[0]
    for other in members[1:]:
        pair = f'{first.name} and {other.name}'
        if (first.rule is None) != (other.rule is None):
            raise UserError(
                f'{pair} do not match: one has one label per image, and the other several; '
                'members must predict the same'
            )
        if first.scores.shape[1] != other.scores.shape[1]:
            raise UserError(
                f'{pair} are of {first.scores.shape[1]} and {other.scores.shape[1]} classes: '
                'members must have the same classes'
            )
        if first.classes and other.classes and first.classes != other.classes:
            class_order(first.classes, other.classes, first.name, other.name)  # if they differ
            raise UserError(f'{pair} have their classes in another order: map them first')
        if len(first.images) != len(other.images):
            raise UserError(
                f'{pair} are of {len(first.images)} and {len(other.images)} images: predict '
                'the same split with both'
            )
        places = same_images(first.images, other.images)
        if places != list(range(len(first.images))):
            what = 'images' if places is None else 'order'
            ones, others = [
                split_root(m.images)[1] if places else list(map(normalized, m.images))
                for m in (first, other)
            ]
            number = next(n for n, (a, b) in enumerate(zip(ones, others)) if a != b)
            raise UserError(
                f'{pair} differ in their {what}: number {number} is {first.images[number]} in one '
                f'and {other.images[number]} in the other; predict the same split with both'
            )
        a, b = first.labels, other.labels
        if a is not b and (a is None or b is None or not a.equal(b)):
            raise UserError(
                f'{pair} differ in the labels of their images: predict the same split with both'
            )


def map_classes(members: Sequence[Predictions]) -> list[Predictions]:
    """Give predictions the order of classes of the first whose classes have names.

    Args:
        members: The predictions to be merged.

    Returns:
        The same predictions, with permuted scores and labels where the order was another.

    Raises:
        UserError: If two name different classes. The message has the first difference.
    """
    names, orders = common_classes([m.classes for m in members], [m.name for m in members])
    mapped = []
    for member, order in zip(members, orders):
        if order is not None:
            labels = member.labels
            if labels is not None:
                labels = labels[:, order] if labels.ndim == 2 else order.argsort()[labels]
            scores = member.scores[:, order]
            member = replace(member, scores=scores, labels=labels, classes=names)
        mapped.append(member)
    return mapped


def check_disjoint(fitted: Sequence[Predictions], reported: Sequence[Predictions]) -> None:
    """Check that weights are fitted on other images than those that are reported.

    Images are compared by their paths in one spelling, and by the end of their paths, which stays
    the same if their folder moves: those of the same name are the same if a model gives them the
    same scores, or if their folders have the same name too. If there are no paths, scores are
    compared: if a model gives bit-identical scores for more than half of the images, the images
    are the same.

    Args:
        fitted: Predictions of each member for the images that the weights are fitted on.
        reported: Predictions of each member for the images that are reported.

    Raises:
        UserError: If they share images.
    """
    for one, two in zip(fitted, reported):
        shared = shared_images(one, two)
        if shared:
            raise UserError(
                f'{one.name} and {two.name} share {len(shared)} images, such as '
                f'{sorted(shared)[0]}: weights fitted on what is reported make the result too '
                'good; fit them on the validation split, and report another split'
            )


def shared_images(one: Predictions, two: Predictions) -> set[str]:
    """Images that two predictions of one model share, as :func:`check_disjoint` defines them.

    Args:
        one: The predictions.
        two: Other predictions.

    Returns:
        Their identifiers in the first.
    """
    ones, twos = ([normalized(image) for image in p.images] for p in (one, two))
    with_paths = any('/' in image for image in (*ones, *twos))
    shared = set(ones) & set(twos)
    if shared and with_paths:
        return shared
    if not with_paths:
        if not shared:
            return set()
        seen = {row.numpy().tobytes() for row in two.scores}
        same = {i for i, row in zip(ones, one.scores) if row.numpy().tobytes() in seen}
        return same if len(same) > len(ones) / 2 else set()
    files = _files(one.images)
    linked = {files[file] for file in set(files) & set(_files(two.images))}
    if linked:
        return linked
    by_name: dict[str, list[int]] = {}
    for place, image in enumerate(twos):
        by_name.setdefault(image.rsplit('/', 1)[-1], []).append(place)
    candidates = [
        (n, place)
        for n, image in enumerate(ones)
        for place in by_name.get(image.rsplit('/', 1)[-1], ())
        if _split(image.split('/')[:-1]) == _split(twos[place].split('/')[:-1])
    ]
    found = [
        (n, place, _common_tail(ones[n], twos[place]) > 1, _same_scores(one, n, two, place))
        for n, place in candidates
    ]
    by_score = {ones[n] for n, _, tail, same in found if same and (tail or len(found) >= 8)}
    by_folder = {ones[n] for n, _, tail, _ in found if tail}
    if by_score and len(by_score) >= len({n for n, *_ in found}) / 2:
        return by_score
    # Folders of the same name are different if they lie beside each other: one root has both.
    moved = _moved(split_root(ones)[0], split_root(twos)[0])
    return by_folder if moved else set()


def _files(images: Sequence[str]) -> dict[str, str]:
    """The files of images that are on this machine, without links, and the images' paths."""
    return {os.path.realpath(image): image for image in images if os.path.exists(image)}


def _moved(one: tuple[str, ...], two: tuple[str, ...]) -> bool:
    """Whether two folders may be one folder under two roots."""
    return bool(one and two) and one[-1] == two[-1]


def _common_tail(one: str, two: str) -> int:
    """Number of parts that two paths have in common at their ends."""
    parts = list(zip(reversed(one.split('/')), reversed(two.split('/'))))
    return next((n for n, (a, b) in enumerate(parts) if a != b), len(parts))


def _same_scores(one: Predictions, number: int, two: Predictions, place: int) -> bool:
    if one.scores.shape[1] != two.scores.shape[1]:
        return False
    rows = torch.stack([one.scores[number], two.scores[place]]).double().clamp_min(1e-12).log()
    return float((rows[0] - rows[1]).abs().mean()) < SAME_SCORES
