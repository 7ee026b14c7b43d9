"""Files of predictions: what ``tools/test.py --out`` writes, and what ensembles are made of."""

from __future__ import annotations

import csv
import importlib
import io
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import DumpResults
from torch import Tensor

from ipirm_mm.errors import UserError

# A challenge asks for these two columns (evaluate_classification.py of its toolkit).
SUBMISSION_COLUMNS = ('Image IDs', 'Predictions')


@dataclass
class Predictions:
    """Probabilities of a model, or of an ensemble, for some images.

    Attributes:
        scores: Probabilities, ``(N, C)`` float.
        labels: Classes of the images, ``(N,)`` long; None where they are not known.
        images: What tells images apart, N texts: paths, or else indices in the data set.
        name: What to call them: the file that they are from.
    """

    scores: Tensor
    labels: Tensor | None
    images: list[str]
    name: str

    def hits(self) -> Tensor:
        """Whether each image is classified rightly, ``(N,)`` bool; needs labels."""
        assert self.labels is not None
        return self.scores.argmax(1) == self.labels


class DumpPredictions(DumpResults):
    """MMEngine's ``DumpResults``, a file of the right size.

    Fault: on processors the scores of an image are a row of its batch's, of which pickle writes
    all, once for each image; files grow by the size of a batch.

    Args:
        out_file_path: File to write, ``.pkl``.
        **kwargs: Other arguments of ``DumpResults``.

    Raises:
        UserError: If the file has another ending.
    """

    def __init__(self, out_file_path: str, **kwargs: Any) -> None:
        if not out_file_path.endswith(('.pkl', '.pickle')):
            raise UserError(
                f'predictions are written as .pkl, but --out is {out_file_path}: give another '
                'name, or --out-item metrics'
            )
        super().__init__(out_file_path, **kwargs)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep copies of the predictions of a batch."""
        for sample in data_samples:
            self.results.append(
                {
                    key: value.detach().cpu().clone() if isinstance(value, Tensor) else value
                    for key, value in sample.items()
                }
            )


def load_predictions(path: str) -> Predictions:
    """Read a file of predictions, which cannot run code.

    Args:
        path: File that ``tools/test.py --out``, ours or MMPretrain's, wrote.

    Raises:
        UserError: If it is missing, truncated or no such file, or its scores are no
            probabilities.
    """
    if not os.path.isfile(path):
        raise UserError(f'there is no file of predictions {path}: make it by tools/test.py --out')
    remedy = 'make it anew by tools/test.py CONFIG CHECKPOINT --out FILE.pkl'
    try:
        with open(path, 'rb') as stream:
            records = _Unpickler(stream).load()
    except Exception as error:  # anything may come of bytes that are no pickle
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
            f'{path} holds scores that are no probabilities (they add up to between '
            f'{float(sums.min()):.4g} and {float(sums.max()):.4g}): {remedy}, of a classifier '
            'whose head has a softmax'
        )
    known = [record.get('gt_label') for record in records]
    labels = None
    if all(isinstance(label, Tensor) and label.numel() == 1 for label in known):
        labels = torch.stack([label.reshape(()) for label in known]).long()
        if bool((labels < 0).any() | (labels >= scores.shape[1]).any()):
            raise UserError(
                f'{path} has classes from {int(labels.min())} to {int(labels.max())}, but scores '
                f'of {scores.shape[1]} classes: {remedy}, of a model of these classes'
            )
    images = [str(r.get('img_path') or r.get('sample_idx', n)) for n, r in enumerate(records)]
    return Predictions(scores, labels, images, path)


def check_match(members: Sequence[Predictions]) -> None:
    """See that files of predictions are of the same images, in the same order, and classes.

    Raises:
        UserError: If they are not; it names two files and where they differ.
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
                f'{pair} are of {len(first.images)} and {len(other.images)} images: make both of '
                'the same split'
            )
        for number, (image, another) in enumerate(zip(first.images, other.images)):
            if image != another:
                what = 'order' if set(first.images) == set(other.images) else 'images'
                raise UserError(
                    f'{pair} differ in their {what}: number {number} is {image} in one and '
                    f'{another} in the other; make both of the same split'
                )
        one, two = first.labels, other.labels
        if one is not two and (one is None or two is None or not one.equal(two)):
            raise UserError(f'{pair} differ in the labels of their images: make both anew')


def check_apart(fitted: Sequence[Predictions], reported: Sequence[Predictions]) -> None:
    """See that weights are not fitted on images that are reported.

    Images are told apart by their paths. Where there are none, by the scores: a model that gives
    the same scores, to the last bit, for half of the images has seen the same ones.

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
                f'{sorted(shared)[0]}: weights fitted on what is reported make it too good; fit '
                'them on the validation split, and report another'
            )


def save_predictions(path: str, predictions: Predictions) -> None:
    """Write predictions as ``tools/test.py --out`` does, whole or not at all.

    Args:
        path: File to write, ``.pkl``.
        predictions: What to write.
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
    write_whole(path, pickle.dumps(records))


def save_submission(path: str, predictions: Predictions) -> None:
    """Write a submission to the challenge: a CSV of the file name and class of each image.

    Args:
        path: File to write.
        predictions: Predictions for images that have paths.

    Raises:
        UserError: If images have no paths, or two have the same file name.
    """
    names = [os.path.basename(image) for image in predictions.images]
    if not all(os.sep in image for image in predictions.images):
        raise UserError(
            f'{predictions.name} has no paths of images, which a submission names: predict a data '
            'set of files, and pack img_path (PackInputs does by default)'
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(
            f'{predictions.name} has two images with the name {twice}, by which a submission '
            'tells them apart: predict the test split of the challenge'
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(SUBMISSION_COLUMNS)
    writer.writerows(zip(names, predictions.scores.argmax(1).tolist()))
    write_whole(path, text.getvalue().encode())


def write_whole(path: str | Path, data: bytes) -> None:
    """Write a file, whole or not at all.

    Args:
        path: File; folders that are missing are made.
        data: What to write.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    part = f'{path}.part'
    Path(part).write_bytes(data)
    os.replace(part, path)


def _reason(error: Exception) -> str:
    """One line on what is wrong with a file."""
    text = str(error).splitlines()
    return text[0] if text else type(error).__name__


def _load_storage(data: bytes) -> Any:
    """Stand in for ``torch.storage._load_from_bytes``, which loads with ``weights_only=False``."""
    return torch.load(io.BytesIO(data), map_location='cpu', weights_only=True)


def _encode(text: str, encoding: str) -> bytes:
    """Stand in for ``_codecs.encode``, by which pickle writes bytes: only what that needs."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'encoding {encoding}')
    return text.encode('latin1')


class _Unpickler(pickle.Unpickler):
    """Reads what ``DumpResults`` writes, tensors and numbers, and nothing that could run code."""

    ALLOWED = {
        ('collections', 'OrderedDict'),
        ('torch._utils', '_rebuild_tensor_v2'),
        ('numpy', 'dtype'),
        ('numpy', 'ndarray'),
        *(
            (f'numpy.{core}.multiarray', name)
            for core in ('core', '_core')
            for name in ('scalar', '_reconstruct')
        ),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ('torch.storage', '_load_from_bytes'):
            return _load_storage
        if (module, name) == ('_codecs', 'encode'):
            return _encode
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f'{module}.{name} is not allowed')
        return getattr(importlib.import_module(module), name)
