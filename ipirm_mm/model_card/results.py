"""The accuracy of a model in its card, from files of predictions or metrics."""

from __future__ import annotations

import os

import mmengine

from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import bootstrap_interval, format_interval, load_predictions
from ipirm_mm.models.classifiers import model_name

from .markdown import UNKNOWN
from .training import data_set_lines


def read_results(path: str, config: str, checkpoint: str, num_classes: int | None) -> list[str]:
    """Read what is known of the accuracy.

    Args:
        path: Predictions (``.pkl``) or metrics (``.json``, ``.yaml``) of ``tools/test.py --out``.
        config: Path of the config that is published.
        checkpoint: Path of the checkpoint that is published.
        num_classes: Number of its classes; None if it is not known.

    Returns:
        Lines of Markdown.

    Raises:
        UserError: If the file is missing or of another kind, or of another model.
    """
    again = f'make it by tools/test.py {config} {checkpoint} --out predictions.pkl'
    if not os.path.isfile(path):
        raise UserError(f'--results: there is no file {path}: {again}')
    if path.endswith(('.json', '.yaml', '.yml')):
        return _metric_lines(path, again)
    found = load_predictions(path)
    if found.labels is None:
        raise UserError(
            f'--results {path} has no labels of the images, so no accuracy: predict a data set '
            'with labels'
        )
    if num_classes is not None and found.scores.shape[1] != num_classes:
        raise UserError(
            f'--results {path} has scores of {found.scores.shape[1]} classes, but the model has '
            f'{num_classes}: {again}'
        )
    source = found.source
    theirs = (source.name, os.path.basename(source.checkpoint or '')) if source else None
    ours = model_name(config), os.path.basename(checkpoint)
    if theirs is not None and theirs != ours:
        raise UserError(
            f'--results {path} has predictions of {" and ".join(theirs)}, but '
            f'{" and ".join(ours)} are published: {again}'
        )
    correct = found.correct()
    mean = float(correct.double().mean())
    interval = format_interval(bootstrap_interval(correct))
    name = 'top-1 accuracy' if found.measure == 'accuracy' else found.measure
    lines = [
        f'- {name}: {100 * mean:.1f} %, 95 % confidence interval {interval} %',
        f'- images: {len(correct)}',
        *(data_set_lines(source.predicted, False) if source else [f'- data set: {UNKNOWN}']),
        '',
        'The interval is a percentile bootstrap over these images. It says nothing about other '
        'seeds of the training.',
    ]
    if source is None:
        lines.append('The file does not say which model made the predictions.')
    return lines


def _metric_lines(path: str, again: str) -> list[str]:
    try:
        metrics = mmengine.load(path)
    except Exception as error:  # parsers raise errors of many types
        raise UserError(f'--results {path} cannot be read ({error}): {again}') from error
    numbers = {
        str(key): value
        for key, value in (metrics.items() if isinstance(metrics, dict) else ())
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    if not numbers:
        raise UserError(f'--results {path} holds no metrics, numbers by name: {again}')
    return [
        *(f'- {key}: {value:.4g}' for key, value in numbers.items()),
        '',
        f'From `{os.path.basename(path)}`, which does not say of which model and data it is. It '
        'has no predictions, so there is no confidence interval; a .pkl file of predictions gives '
        'one.',
    ]
