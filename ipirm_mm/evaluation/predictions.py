"""Files of predictions: ``tools/test.py --out`` writes them, ``tools/ensemble.py`` merges them."""

from __future__ import annotations

import csv
import io
import os
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ipirm_mm.errors import UserError
from ipirm_mm.functional import select_labels
from ipirm_mm.models.utils import LabelRule, as_names, is_distribution
from ipirm_mm.utils import atomic_write, safe_load

from .model_source import ModelSource

# Columns that the VIPriors challenge requires (evaluate_classification.py of its toolkit).
SUBMISSION_COLUMNS = ('Image IDs', 'Predictions')


@dataclass
class Predictions:
    """Scores that a model or an ensemble predicts for a list of images.

    Attributes:
        scores: Probabilities, ``(N, C)`` float. Rows sum to 1 unless ``rule`` is set.
        labels: Classes of the images, ``(N,)`` long, or with several labels per image ``(N, C)``
            bool; None if they are not known.
        images: Identifiers of the images, N strings: their paths, or their indices in the data set
            if there are no paths.
        name: Name for tables and error messages, such as the path of the file.
        classes: Names of the classes, in the order of the scores. Defaults to None: not known.
        rule: How labels are selected if each image may have several. Defaults to None: each image
            has one label.
        source: The model that made them. Defaults to None: not known, or an ensemble.
    """

    scores: Tensor
    labels: Tensor | None
    images: list[str]
    name: str
    classes: tuple[str, ...] | None = None
    rule: LabelRule | None = None
    source: ModelSource | None = None

    def predicted(self) -> Tensor:
        """Predicted classes, ``(N,)`` long, or with several labels per image ``(N, C)`` bool."""
        if self.rule is None:
            return self.scores.argmax(1)
        chosen = torch.zeros_like(self.scores, dtype=torch.bool)
        for row, score in zip(chosen, self.scores):
            row[select_labels(score, *self.rule)] = True
        return chosen

    def correct(self) -> Tensor:
        """How correctly each image is classified. Labels must be known.

        Returns:
            ``(N,)`` bool, or with several labels per image the F1 score of its labels, double.
        """
        assert self.labels is not None
        predicted = self.predicted()
        if self.rule is None:
            return predicted == self.labels
        return label_f1(predicted, self.labels)

    @property
    def measure(self) -> str:
        """Name of the mean of :meth:`correct`."""
        return 'accuracy' if self.rule is None else 'F1'


def is_path(image: str) -> bool:
    """Whether the identifier of an image is a path, and not an index in the data set."""
    return not image.isdecimal()


def label_f1(predicted: Tensor, labels: Tensor) -> Tensor:
    """F1 score of the labels of each image, 1 where there are none and none are predicted.

    Args:
        predicted: ``(N, C)`` bool.
        labels: ``(N, C)`` bool.

    Returns:
        ``(N,)`` double, 0 to 1.
    """
    both = (predicted & labels).sum(1).double()
    total = predicted.sum(1) + labels.sum(1)
    return torch.where(total > 0, 2 * both / total.clamp(min=1), 1.0)


def load_predictions(path: str) -> Predictions:
    """Read a file of predictions. It cannot run code, see :func:`ipirm_mm.utils.safe_load`.

    Scores and labels may be tensors, arrays or lists.

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
    if not all(isinstance(record, dict) for record in records):
        raise UserError(f'{path} holds images without pred_score: {remedy}')
    rows = [as_tensor(record.get('pred_score')) for record in records]
    if any(row is None or not row.numel() for row in rows):
        raise UserError(f'{path} holds images without pred_score: {remedy}')
    found = [row for row in rows if row is not None]
    shapes = {tuple(row.shape) for row in found}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1:
        raise UserError(f'{path} holds scores of different shapes {sorted(shapes)}: {remedy}')
    scores = torch.stack(found)
    scores = scores if scores.is_floating_point() else scores.float()
    first = records[0]
    rule = first.get('label_rule')
    chosen = [as_tensor(record.get('pred_label')) for record in records]
    several = (
        rule is not None
        or not is_distribution(scores)
        or any(label is not None and label.numel() != 1 for label in chosen)
    )
    sums = scores.double().sum(1)
    inside = torch.isfinite(scores) & (scores >= 0) & (scores <= 1 + 1e-3)
    if not bool(inside.all()):
        raise UserError(
            f'{path} holds scores that are no probabilities (their sums per image are between '
            f'{float(sums.min()):.4g} and {float(sums.max()):.4g}): {remedy}, with a classifier '
            'whose head has a softmax, or a sigmoid for several labels per image'
        )
    labels = _read_labels(path, records, scores.shape[1], several, remedy)
    images = [str(r.get('img_path') or r.get('sample_idx', n)) for n, r in enumerate(records)]
    names = as_names(first.get('classes'))
    if names is not None and len(names) != scores.shape[1]:
        raise UserError(
            f'{path} names {len(names)} classes, but has scores of {scores.shape[1]}: {remedy}'
        )
    rule = LabelRule(*(rule or ())) if several else None
    source = ModelSource.from_dict(first.get('model'))
    return Predictions(scores, labels, images, path, names, rule, source)


def as_tensor(value: Any) -> Tensor | None:
    """A tensor of what a record holds: a tensor, an array, a number or a list of numbers.

    Args:
        value: The value.

    Returns:
        The tensor on the CPU; None if the value is none of these.
    """
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, (bool, int, float, np.ndarray, np.generic, list, tuple)):
        try:
            return torch.as_tensor(np.asarray(value))
        except (TypeError, ValueError):
            return None
    return None


def _read_labels(
    path: str, records: list[dict], classes: int, several: bool, remedy: str
) -> Tensor | None:
    """Labels of the images; None unless all are known."""
    known = [as_tensor(record.get('gt_label')) for record in records]
    soft = [as_tensor(record.get('gt_score')) for record in records]
    rows: list[Tensor] = []
    for label, score in zip(known, soft):
        if several:
            row = torch.zeros(classes, dtype=torch.bool)
            if label is not None:
                _check_range(path, label, classes, remedy)
                row[label.long().flatten()] = True
            elif score is not None and score.numel() == classes:
                row = score.flatten() >= 0.5
            else:
                return None
        else:
            if label is not None and label.numel() == 1:
                row = label.reshape(()).long()
            elif label is None and score is not None and score.numel() == classes:
                row = score.flatten().argmax()  # soft labels
            else:
                return None
            _check_range(path, row, classes, remedy)
        rows.append(row)
    return torch.stack(rows)


def _check_range(path: str, labels: Tensor, classes: int, remedy: str) -> None:
    if labels.numel() and bool((labels < 0).any() | (labels >= classes).any()):
        raise UserError(
            f'{path} has classes from {int(labels.min())} to {int(labels.max())}, but scores of '
            f'{classes} classes: {remedy}, with a model of these classes'
        )


def save_predictions(path: str, predictions: Predictions) -> None:
    """Write predictions in the format of ``tools/test.py --out``, whole or not at all.

    Args:
        path: File to write, ``.pkl``.
        predictions: The predictions.
    """
    records: list[dict[str, Any]] = []
    labels = predictions.predicted()
    for number, (score, image) in enumerate(zip(predictions.scores, predictions.images)):
        record: dict[str, Any] = dict(
            sample_idx=number,
            num_classes=len(score),
            pred_score=score.clone(),
            pred_label=_indices(labels[number]),
        )
        if is_path(image):
            record['img_path'] = image
        if predictions.labels is not None:
            record['gt_label'] = _indices(predictions.labels[number])
        records.append(record)
    add_names(records, predictions.classes, predictions.rule, predictions.source)
    atomic_write(path, pickle.dumps(records))


def add_names(
    records: list[dict[str, Any]],
    classes: tuple[str, ...] | None,
    rule: LabelRule | None,
    source: ModelSource | None = None,
) -> None:
    """Add to each record what :func:`load_predictions` reads besides scores and labels.

    Args:
        records: The records, changed in place.
        classes: Names of the classes in the order of the scores; None if they are not known.
        rule: The rule of several labels per image; None for one label.
        source: The model that made the predictions. Defaults to None: not known.
    """
    model = source.as_dict() if source else None
    for record in records:  # pickle writes one object once
        if classes is not None:
            record['classes'] = classes
        if rule is not None:
            record['label_rule'] = tuple(rule)
        if model is not None:
            record['model'] = model


def _indices(label: Tensor) -> Tensor:
    """Classes of an image as MMPretrain's samples have them, ``(number of labels,)`` long."""
    return torch.where(label)[0] if label.ndim else label.reshape(1).clone()


def save_submission(path: str, predictions: Predictions) -> None:
    """Write a submission to the VIPriors challenge: a CSV of the file name and class per image.

    Args:
        path: File to write.
        predictions: Predictions for images that have paths.

    Raises:
        UserError: If images have no paths or several labels, or if two have the same file name.
    """
    if predictions.rule is not None:
        raise UserError(
            f'{predictions.name} has scores of several labels per image, but a submission has one '
            'class per image: predict with a classifier whose head has a softmax'
        )
    names = [image.replace('\\', '/').rsplit('/', 1)[-1] for image in predictions.images]
    if not all(map(is_path, predictions.images)):
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
