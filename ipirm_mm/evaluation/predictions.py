"""Files of predictions: ``tools/test.py --out`` writes them, ``tools/ensemble.py`` merges them."""

from __future__ import annotations

import csv
import io
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.utils import atomic_write, safe_load

# Columns that the VIPriors challenge requires (evaluate_classification.py of its toolkit).
SUBMISSION_COLUMNS = ('Image IDs', 'Predictions')


@dataclass
class Predictions:
    """Probabilities that a model or an ensemble predicts for a list of images.

    Attributes:
        scores: Probabilities, ``(N, C)`` float.
        labels: Classes of the images, ``(N,)`` long; None if they are not known.
        images: Identifiers of the images, N strings: their paths, or their indices in the data set
            if there are no paths.
        name: Name for tables and error messages, such as the path of the file.
    """

    scores: Tensor
    labels: Tensor | None
    images: list[str]
    name: str

    def correct(self) -> Tensor:
        """Whether each image is classified correctly, ``(N,)`` bool. Labels must be known."""
        assert self.labels is not None
        return self.scores.argmax(1) == self.labels


def load_predictions(path: str) -> Predictions:
    """Read a file of predictions. It cannot run code, see :func:`ipirm_mm.utils.safe_load`.

    Args:
        path: File that ``tools/test.py --out`` wrote, ours or MMPretrain's.

    Returns:
        The predictions, named by the path.

    Raises:
        UserError: If the file is missing, truncated or of another kind, or if its scores are not
            probabilities.
    """
    if not os.path.isfile(path):
        raise UserError(f'there is no file of predictions {path}: make it by tools/test.py --out')
    remedy = 'make it again by tools/test.py CONFIG CHECKPOINT --out FILE.pkl'
    try:
        with open(path, 'rb') as stream:
            records = safe_load(stream)
    except Exception as error:  # bytes that are no pickle raise errors of many types
        raise UserError(
            f'{path} is truncated, or no file of predictions ({_reason(error)}): {remedy}'
        ) from error
    if not isinstance(records, list) or not records:
        raise UserError(f'{path} holds no list of predictions: {remedy}')
    if not all(isinstance(r, dict) and isinstance(r.get('pred_score'), Tensor) for r in records):
        raise UserError(f'{path} holds images without pred_score: {remedy}')
    shapes = {tuple(record['pred_score'].shape) for record in records}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1:
        raise UserError(f'{path} holds scores of different shapes {sorted(shapes)}: {remedy}')
    scores = torch.stack([record['pred_score'] for record in records])
    sums = scores.double().sum(1)
    if not bool(torch.isfinite(scores).all() & (scores >= 0).all()) or bool(
        ((sums - 1).abs() > 1e-2).any()
    ):
        raise UserError(
            f'{path} holds scores that are no probabilities (their sums per image are between '
            f'{float(sums.min()):.4g} and {float(sums.max()):.4g}): {remedy}, with a classifier '
            'whose head has a softmax'
        )
    known = [record.get('gt_label') for record in records]
    labels = None
    if all(isinstance(label, Tensor) and label.numel() == 1 for label in known):
        labels = torch.stack([label.reshape(()) for label in known]).long()
        if bool((labels < 0).any() | (labels >= scores.shape[1]).any()):
            raise UserError(
                f'{path} has classes from {int(labels.min())} to {int(labels.max())}, but scores '
                f'of {scores.shape[1]} classes: {remedy}, with a model of these classes'
            )
    images = [str(r.get('img_path') or r.get('sample_idx', n)) for n, r in enumerate(records)]
    return Predictions(scores, labels, images, path)


def check_same_images(members: Sequence[Predictions]) -> None:
    """Check that predictions are of the same images, in the same order, and the same classes.

    Args:
        members: The predictions to be merged.

    Raises:
        UserError: If they are not; it names two members and where they differ.
    """
    first = members[0]
    for other in members[1:]:
        pair = f'{first.name} and {other.name}'
        if first.scores.shape[1] != other.scores.shape[1]:
            raise UserError(
                f'{pair} are of {first.scores.shape[1]} and {other.scores.shape[1]} classes: '
                'members must have the same classes'
            )
        if len(first.images) != len(other.images):
            raise UserError(
                f'{pair} are of {len(first.images)} and {len(other.images)} images: predict '
                'the same split with both'
            )
        for number, (image, another) in enumerate(zip(first.images, other.images)):
            if image != another:
                what = 'order' if set(first.images) == set(other.images) else 'images'
                raise UserError(
                    f'{pair} differ in their {what}: number {number} is {image} in one and '
                    f'{another} in the other; predict the same split with both'
                )
        one, two = first.labels, other.labels
        if one is not two and (one is None or two is None or not one.equal(two)):
            raise UserError(
                f'{pair} differ in the labels of their images: predict the same split with both'
            )


def check_disjoint(fitted: Sequence[Predictions], reported: Sequence[Predictions]) -> None:
    """Check that weights are fitted on other images than those that are reported.

    Images are compared by their paths. If there are no paths, scores are compared: if a model
    gives bit-identical scores for more than half of the images, the images are the same.

    Args:
        fitted: Predictions of each member for the images that the weights are fitted on.
        reported: Predictions of each member for the images that are reported.

    Raises:
        UserError: If they share images.
    """
    for one, two in zip(fitted, reported):
        shared = set(one.images) & set(two.images)
        if shared and not any(os.sep in image for image in shared):
            seen = {row.numpy().tobytes() for row in two.scores}
            rows = zip(one.images, one.scores)
            same = {image for image, row in rows if row.numpy().tobytes() in seen}
            shared = same if len(same) > len(one.images) / 2 else set()
        if shared:
            raise UserError(
                f'{one.name} and {two.name} share {len(shared)} images, such as '
                f'{sorted(shared)[0]}: weights fitted on what is reported make the result too '
                'good; fit them on the validation split, and report another split'
            )


def save_predictions(path: str, predictions: Predictions) -> None:
    """Write predictions in the format of ``tools/test.py --out``, whole or not at all.

    Args:
        path: File to write, ``.pkl``.
        predictions: The predictions.
    """
    records: list[dict[str, Any]] = []
    for number, (score, image) in enumerate(zip(predictions.scores, predictions.images)):
        record: dict[str, Any] = dict(
            sample_idx=number,
            num_classes=len(score),
            pred_score=score.clone(),
            pred_label=score.argmax().reshape(1),
        )
        if os.sep in image:
            record['img_path'] = image
        if predictions.labels is not None:
            record['gt_label'] = predictions.labels[number].reshape(1).clone()
        records.append(record)
    atomic_write(path, pickle.dumps(records))


def save_submission(path: str, predictions: Predictions) -> None:
    """Write a submission to the VIPriors challenge: a CSV of the file name and class per image.

    Args:
        path: File to write.
        predictions: Predictions for images that have paths.

    Raises:
        UserError: If images have no paths, or if two have the same file name.
    """
    names = [os.path.basename(image) for image in predictions.images]
    if not all(os.sep in image for image in predictions.images):
        raise UserError(
            f'{predictions.name} has no paths of images, but a submission needs them: predict a '
            'data set of files, and pack img_path (PackInputs does so by default)'
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(
            f'{predictions.name} has two images with the name {twice}, but a submission '
            'identifies images by their names: predict the test split of the challenge'
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(SUBMISSION_COLUMNS)
    writer.writerows(zip(names, predictions.scores.argmax(1).tolist()))
    atomic_write(path, text.getvalue())


def _reason(error: Exception) -> str:
    """First line of an error's message, or its type."""
    text = str(error).splitlines()
    return text[0] if text else type(error).__name__
