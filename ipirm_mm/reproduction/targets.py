"""What can be reproduced: the report's tables, its figure, and its submission."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mmengine
import torch

from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import load_predictions
from ipirm_mm.resources import resource_root

from .chain import Chain

TEN_CROPS = ('--tta-crops', 'ten', '--tta-policy', 'tsharpen')
STANDS_FOR = re.compile(r'Report, Table (\d), row "(.*)"')
REPORTED = 'Top 1 Accuracy (report, not reproduced)'
REPORTED_TTA = 'Top 1 Accuracy with TTA (report, not reproduced)'
CARDS = (16, 32)
FINAL = 'ensemble_final'
# Rows that the report does not have, by table: what they tell, and the config.
CONTROLS: dict[int, tuple[tuple[str, str], ...]] = {
    4: (('from Stage I, no teacher (control)', 'teacher_r50'),),
}


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        name: What the row is.
        report: Accuracy in the report, in percent; None if the report does not have the row.
        files: Files of this project's accuracies, by column: JSON of ``tools/test.py``, or
            predictions.
        report_tta: Accuracy in the report with test-time augmentation. Defaults to None.
    """

    name: str
    report: float | None
    files: dict[str, Path]
    report_tta: float | None = None


class Model(NamedTuple):
    """What the model index says of a config.

    Attributes:
        name: Name of the config.
        table: Number of the report's table; 0 if it is in none.
        row: Name of the row in it.
        report: Accuracy in the report, or None.
        report_tta: Accuracy in the report with test-time augmentation, or None.
        settings: Options of a training that let it fit a card, by its memory in GB.
    """

    name: str
    table: int
    row: str
    report: float | None
    report_tta: float | None
    settings: dict[int, tuple[str, ...]]


def read_models() -> dict[str, Model]:
    """Read the model index.

    Returns:
        The models by the names of their configs.
    """
    models = {}
    for path in sorted((resource_root() / 'configs').rglob('metafile.yml')):
        for entry in mmengine.load(path)['Models']:
            about = entry.get('Metadata', {})
            found = STANDS_FOR.fullmatch(about.get('Stands For', ''))
            metrics = (entry.get('Results') or [{}])[0].get('Metrics', {})
            name = Path(entry['Config']).stem
            models[name] = Model(
                name,
                int(found[1]) if found else 0,
                found[2] if found else '',
                metrics.get(REPORTED),
                metrics.get(REPORTED_TTA),
                {card: fitting(about.get(f'Fits {card} GB')) for card in CARDS},
            )
    return models


def fitting(setting: str | None) -> tuple[str, ...]:
    """Read the options that let a training fit a card."""
    return () if setting in (None, 'as it is') else tuple(str(setting).split())


def check_target(target: str) -> None:
    """Check a target.

    Args:
        target: What to reproduce.

    Raises:
        UserError: If it is neither one of :data:`TARGETS` nor the name of a config.
    """
    known = [*TARGETS, *read_models()]
    if target not in known:
        near = difflib.get_close_matches(target, known, n=3)
        raise UserError(
            f'there is nothing to reproduce of the name {target}: give one of '
            f'{", ".join(TARGETS)}, or the name of a config'
            + (f', such as {", ".join(near)}' if near else '')
        )


def add_target(chain: Chain, target: str) -> list[Row]:
    """Add all that a target needs to a chain.

    Args:
        chain: The chain, to which steps are added.
        target: One of :data:`TARGETS`, or the name of a config.

    Returns:
        The rows of its table; none for what has no accuracy.
    """
    if target in TARGETS:
        return list(TARGETS[target](chain))
    models = read_models()
    if target == FINAL:
        return list(final_submission(chain))
    _, config = chain.load(target)
    if config.model.get('members'):
        return [ensemble(chain, models[target])]
    if config.model.get('head', {}).get('num_classes'):
        return [single_model(chain, models[target])]
    chain.train(target)
    return []


def single_model(chain: Chain, model: Model, views: bool = True) -> Row:
    """Add the accuracy of a classifier.

    Args:
        chain: The chain.
        model: The classifier.
        views: Whether it is also tested with ten crops, and makes a submission. Defaults to True.

    Returns:
        Its row.
    """
    files = dict(here=chain.evaluate(model.name))
    if views:
        files['here_tta'] = predict(chain, model.name, 'val')
        submit(chain, model.name, [predict(chain, model.name, 'test')])
    return Row(model.row or model.name, model.report, files, model.report_tta)


def table_rows(chain: Chain, table: int, views: bool = False) -> Iterator[Row]:
    """Rows of single models, then of their controls."""
    models = read_models()
    for model in models.values():
        if model.table == table:
            yield single_model(chain, model, views)
    for name, config in CONTROLS.get(table, ()):
        yield single_model(chain, models[config]._replace(row=name, report=None), views)


def predict(chain: Chain, name: str, split: str) -> Path:
    """Add the predictions of a model with ten crops, as all members of an ensemble have them."""
    return chain.predict(name, split, TEN_CROPS)


def submit(
    chain: Chain,
    name: str,
    predictions: Sequence[Path],
    words: Sequence[str] = (),
    needs: Sequence[Path] = (),
) -> Path:
    """Add a submission to the challenge's server, which alone knows the labels of the test split.

    Args:
        chain: The chain.
        name: Folder in the work folder.
        predictions: Predictions of the test split.
        words: Further options of ``tools/ensemble.py``. Defaults to none.
        needs: Further files that these need. Defaults to none.

    Returns:
        The file of the submission.
    """
    out = chain.work_dirs / name / 'submission.csv'
    arguments = [*map(str, predictions), *words, '--submission', str(out)]
    return chain.tool(
        f'submission of {name}', 'ensemble.py', arguments, out, [*predictions, *needs]
    )


def table_1(chain: Chain) -> Iterator[Row]:
    """Single models, without and with test-time augmentation."""
    return table_rows(chain, 1, views=True)


def table_2(chain: Chain) -> Iterator[Row]:
    """Ensembles, from the predictions of their members."""
    for model in read_models().values():
        if model.table == 2:
            yield ensemble(chain, model)


def ensemble(chain: Chain, model: Model) -> Row:
    """Add an ensemble: its accuracy on the validation split, and its submission.

    Weights are fitted on the validation split, on which there is then no accuracy to report.
    """
    _, config = chain.load(model.name)
    members = [Path(member.checkpoint).parent.name for member in config.model.members]
    val = [predict(chain, name, 'val') for name in members]
    test = [predict(chain, name, 'test') for name in members]
    folder = chain.work_dirs / model.name
    policy = config.model.policy
    if not policy.startswith('weighted'):
        words = ['--policy', policy]
        out = folder / 'val.pkl'
        arguments = [*map(str, val), *words, '--out', str(out)]
        title = f'test {model.name}, {out.name}'
        files = dict(here=chain.tool(title, 'ensemble.py', arguments, out, val))
        submit(chain, model.name, test, words)
    else:
        words = ['--policy', policy, '--fit', *map(str, val)]
        words += ['--save-weights', config.model.weights]
        submit(chain, model.name, test, words, val)
        files = {}
    return Row(model.row, model.report, files)


def table_3(chain: Chain) -> Iterator[Row]:
    """Linear probes of encoders, and their controls."""
    return table_rows(chain, 3)


def table_4(chain: Chain) -> Iterator[Row]:
    """Distillation losses, and their controls."""
    return table_rows(chain, 4)


def final_submission(chain: Chain) -> Iterator[Row]:
    """The submission: members trained on train and val, with the weights of Table 2."""
    fitted = 'ensemble_5_weighted'
    yield ensemble(chain, read_models()[fitted])
    _, config = chain.load(FINAL)
    names = [Path(member.checkpoint).parent.name for member in config.model.members]
    files = [predict(chain, name, 'test') for name in names]
    words = ['--policy', config.model.policy, '--weights', config.model.weights]
    # The command that makes this file also saves the weights.
    submit(chain, FINAL, files, words, [chain.work_dirs / fitted / 'submission.csv'])
    yield Row('5, Weighted; trained on train and val', None, {})


TARGETS: dict[str, Callable[[Chain], Iterator[Row]]] = {
    'table1': table_1,
    'table2': table_2,
    'table3': table_3,
    'table4': table_4,
    'submission': final_submission,
}


def accuracy(path: Path) -> float | None:
    """Read an accuracy.

    Args:
        path: JSON of ``tools/test.py``, or predictions of images with labels.

    Returns:
        Percent; None if the file is not there.

    Raises:
        UserError: If the file holds no accuracy.
    """
    if not path.exists():
        return None
    if path.suffix != '.json':
        return 100 * float(load_predictions(str(path)).correct().to(torch.float64).mean())
    found = json.loads(path.read_text()).get('accuracy/top1')
    if found is None:
        raise UserError(f'{path} holds no accuracy/top1: remove it, and run the command again')
    return float(found)


def table_of(rows: Sequence[Row]) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Make the table of a target, as far as its files are there.

    Args:
        rows: The rows.

    Returns:
        Rows and columns for :func:`~ipirm_mm.visualization.tables.format_table`.
    """
    columns = [('name', 'row'), ('report', 'report'), ('here', 'here')]
    if any(row.report_tta is not None for row in rows):
        columns += [('report_tta', 'report, TTA')]
    if any('here_tta' in row.files for row in rows):
        columns += [('here_tta', 'here, ten crops')]
    cells = []
    for row in rows:
        cell: dict[str, Any] = dict(name=row.name, report=decimals(row.report))
        cell['report_tta'] = decimals(row.report_tta)
        for column, path in row.files.items():
            cell[column] = decimals(accuracy(path))
        cells.append(cell)
    return cells, columns


def decimals(value: float | None) -> str | None:
    """Write an accuracy with two decimals, as the report does."""
    return None if value is None else f'{value:.2f}'
