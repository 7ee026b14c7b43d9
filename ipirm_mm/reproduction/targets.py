"""What can be reproduced: the report's tables, its figure, and its submission."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import mmengine

from ipirm_mm.errors import UserError
from ipirm_mm.resources import resource_root

from .chain import Chain
from .results import Row

TEN_CROPS = ('--tta-crops', 'ten', '--tta-policy', 'tsharpen')
STANDS_FOR = re.compile(r'Report, Table (\d), row "(.*)"')
REPORTED = 'Top 1 Accuracy (report, not reproduced)'
REPORTED_TTA = 'Top 1 Accuracy with TTA (report, not reproduced)'
CARDS = (16, 32)
FINAL = 'ensemble_final'
# Rows that the report does not have: what they are, and the config.
BESIDE: dict[str, tuple[tuple[str, str], ...]] = {
    'table3': tuple(
        row
        for base, name in (('SimCLR', 'simclr'), ('SimSiam', 'simsiam'))
        for row in (
            (f'{base}, penalty alone (control)', f'linear_{name}_r50_penalty_only'),
            (f'{base}, random partitions (control)', f'linear_{name}_r50_random_partition'),
            (f'{base}+IP-IRM, Eq. 2 and 3 to the letter', f'linear_ipirm_{name}_r50_report'),
            (f'{base}+IP-IRM, our recipe', f'linear_ipirm_{name}_r50_ours'),
            (
                f'{base}, our recipe, penalty alone (control)',
                f'linear_{name}_r50_ours_penalty_only',
            ),
            (
                f'{base}, our recipe, random partition (control)',
                f'linear_{name}_r50_ours_random_partition',
            ),
        )
    ),
    'table4': (('from Stage I, no teacher (control)', 'teacher_r50'),),
    'table4_equal': (
        ('OFD, all stages', 'ofd_r50_224'),
        ('OFD, last stage', 'ofd_last_r50_224'),
        ('KL, logits', 'kl_r50_equal_weights'),
        ('KL, features', 'feature_kl_r50'),
        ('CRD with KL', 'crd_kl_r50_224'),
        ('CRD', 'crd_r50_224'),
        ('DKD (not in the report)', 'dkd_r50'),
        ('DIST (not in the report)', 'dist_r50'),
        ('from Stage I, no teacher (control)', 'teacher_r50'),
    ),
    'table4_frozen': (
        ('OFD, all stages', 'ofd_r50_stage1_teacher'),
        ('OFD, last stage', 'ofd_last_r50_stage1_teacher'),
        ('KL, features', 'feature_kl_r50_stage1_teacher'),
        ('CRD', 'crd_r50_stage1_teacher'),
        ('from Stage I, no teacher (control)', 'teacher_r50'),
    ),
}
# Encoders of Figure 2: name, config. The last one of (a) is the control.
FIGURE_2 = (
    ('SimCLR', 'simclr_r50'),
    ('IP-IRM', 'ipirm_simclr_r50'),
    ('SimCLR, penalty alone', 'simclr_r50_penalty_only'),
)


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


@cache
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
    """Rows of single models of a table of the report, then those beside it."""
    for model in read_models().values():
        if model.table == table:
            yield single_model(chain, model, views)
    yield from rows_beside(chain, f'table{table}')


def rows_beside(chain: Chain, table: str) -> Iterator[Row]:
    """Rows that the report does not have."""
    models = read_models()
    for name, config in BESIDE.get(table, ()):
        model = models[config]._replace(row=name, report=None, report_tta=None)
        yield single_model(chain, model, views=False)


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


def table_4_equal(chain: Chain) -> Iterator[Row]:
    """The losses of Table 4 at one resolution and with one weight of the cross-entropy."""
    return rows_beside(chain, 'table4_equal')


def table_4_frozen(chain: Chain) -> Iterator[Row]:
    """The losses of Table 4 that need no classes, with the encoder of Stage I as teacher."""
    return rows_beside(chain, 'table4_frozen')


def figure_2(chain: Chain) -> Iterator[Row]:
    """Figures 2 (a) and 2 (b), for ResNet-50."""
    for letter, shown in (('a', FIGURE_2), ('b', FIGURE_2[:2])):
        checkpoints = [chain.train(config) for _, config in shown]
        words = [
            f'{chain.find(config)}:{checkpoint}'
            for (_, config), checkpoint in zip(shown, checkpoints)
        ]
        out = chain.work_dirs / f'figure2{letter}.png'
        words += ['--names', *(name for name, _ in shown), '--out', str(out)]
        chain.tool(f'Figure 2 ({letter})', f'analysis/figure2{letter}.py', words, out, checkpoints)
    return iter(())


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
    'table4_equal': table_4_equal,
    'table4_frozen': table_4_frozen,
    'figure2': figure_2,
    'submission': final_submission,
}
