"""Which model made predictions, and which images it was trained on."""

from __future__ import annotations

import ast
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mmengine.runner import CheckpointLoader

from ipirm_mm.errors import UserError
from ipirm_mm.models.classifiers import model_name
from ipirm_mm.utils import type_name

# Arguments of data sets that do not select images.
_NOT_IMAGES = {
    *('pipeline', 'test_mode', 'lazy_init', 'max_refetch', 'serialize_data', 'metainfo'),
    *('classes', 'num_classes', 'per_class', 'with_label', '_scope_'),
}
# Arguments of MMPretrain's KFoldDataset, which takes one of several parts of a data set, or all of
# the others, and their defaults.
_PART = dict(fold=0, num_splits=5, test_mode=False, seed=None)


@dataclass
class ModelSource:
    """The model behind a file of predictions.

    Attributes:
        name: Name of its config, without folder and ending.
        checkpoint: Its checkpoint as it was given; None for an ensemble.
        trained_on: Data sets that it was trained on, each as the arguments that select images.
            Empty if they are not known.
        predicted: Data sets of the predicted images, in the same form.
    """

    name: str
    checkpoint: str | None = None
    trained_on: list[dict[str, Any]] = field(default_factory=list)
    predicted: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, path: str, checkpoint: str | None, config: Any) -> ModelSource:
        """Describe a model from its config and checkpoint.

        The checkpoint tells what was trained on, with the options of that training's command
        line. If it does not, because it was published or is of another project, the config does.

        Args:
            path: Path of the config.
            checkpoint: Path or address of the checkpoint; None for an ensemble.
            config: The config, with the images to predict in ``test_dataloader``.
        """
        trained = _trained_on(checkpoint) if checkpoint else []
        if not trained and checkpoint:
            trained = selections((config.get('train_dataloader') or {}).get('dataset'))
        predicted = selections((config.get('test_dataloader') or {}).get('dataset'))
        return cls(model_name(path), checkpoint, trained, predicted)

    def as_dict(self) -> dict[str, Any]:
        """The fields, as files of predictions have them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Any) -> ModelSource | None:
        """Read what :meth:`as_dict` gave; None if it is something else."""
        if not isinstance(record, dict) or not isinstance(record.get('name'), str):
            return None
        lists = {
            key: [one for one in record.get(key) or () if isinstance(one, dict)]
            for key in ('trained_on', 'predicted')
        }
        checkpoint = record.get('checkpoint')
        return cls(record['name'], checkpoint if isinstance(checkpoint, str) else None, **lists)


def selections(dataset: Any) -> list[dict[str, Any]]:
    """The arguments by which data sets in a config select images.

    Args:
        dataset: Config of a data set, or of a wrapper of one or several. None for no data set.

    Returns:
        One dict per data set, of plain values; empty if there is none. One that is directly within
        MMPretrain's ``KFoldDataset`` has an entry ``part``: the config of that, without pipeline.
    """
    if not isinstance(dataset, dict):
        return []
    inner = dataset.get('datasets') or [dataset.get('dataset')]
    if inner != [None]:
        found = [one for part in inner for one in selections(part)]
        one = inner[0]
        # Parts of a data set that is itself made of others do not tell which images they have.
        simple = isinstance(one, dict) and not (one.get('dataset') or one.get('datasets'))
        if simple and type_name(dataset.get('type')) == 'KFoldDataset':
            part = {key: dataset.get(key, default) for key, default in _PART.items()}
            part['dataset'] = {key: value for key, value in one.items() if key != 'pipeline'}
            found = [dict(found[0], part=_plain(part))]
        return found
    kept = {key: value for key, value in dataset.items() if key not in _NOT_IMAGES}
    kept['type'] = type_name(kept.get('type'))
    return [{key: _plain(value) for key, value in kept.items()}]


def check_not_trained_on(fitted: Sequence[Any], remedy: str) -> None:
    """Check that no member was trained on the images of its predictions.

    Args:
        fitted: Predictions of each member for the images that weights are to be fitted on.
        remedy: What is right instead, for the message.

    Raises:
        UserError: If a member was trained on them; it and the images are named.
    """
    for predictions in fitted:
        source = predictions.source
        shared = source and shared_selection(source.trained_on, source.predicted)
        if shared:
            raise UserError(
                f'{predictions.name} cannot be used to fit weights: the model {source.name} '
                f'({source.checkpoint}) was trained on these images, {shared}; {remedy}'
            )


def shared_selection(
    trained: Sequence[dict[str, Any]], predicted: Sequence[dict[str, Any]]
) -> str | None:
    """Images that are in data sets of both lists, as far as their configs tell.

    Data sets of one class with the same arguments share the splits that both have. If other
    arguments differ, such as the folder, nothing is said.

    Args:
        trained: Data sets, as :func:`selections` gives them.
        predicted: Others.

    Returns:
        What is shared, in words; None if nothing is known to be.
    """
    for one in trained:
        for two in predicted:
            parts = [dict(part) for part in (one, two)]
            splits = [_splits(part.pop('split', None)) for part in parts]
            if _disjoint(*(part.pop('part', None) for part in parts)):
                continue
            if _spelled(parts[0]) != _spelled(parts[1]):
                continue
            shared = [split for split in splits[0] if split in splits[1]]
            if shared:
                root = one.get('data_root')
                split = '' if shared == [None] else f' split {", ".join(map(str, shared))}'
                return f'{one.get("type")}{split}' + (f' in {root}' if root else '')
    return None


def _disjoint(one: dict[str, Any] | None, two: dict[str, Any] | None) -> bool:
    """Whether two parts of one data set have no image in common; None is all of it."""
    if not one or not two:
        return False
    if any(one[key] != two[key] for key in ('num_splits', 'seed', 'dataset')):
        return False
    if one['fold'] == two['fold']:
        return bool(one['test_mode'] != two['test_mode'])
    return bool(one['test_mode'] and two['test_mode'])


def _splits(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _spelled(part: dict[str, Any]) -> dict[str, Any]:
    """Paths in one spelling; no value and an empty one are the same."""
    return {
        key: os.path.normpath(value) if isinstance(value, str) else value
        for key, value in part.items()
        if value not in (None, '')
    }


def _plain(value: Any) -> Any:
    """A value of a config that every reader of pickles knows."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if isinstance(value, (str, int, float)) or value is None else str(value)


def _trained_on(checkpoint: str) -> list[dict[str, Any]]:
    """Training data of the config that MMEngine saves in a checkpoint; empty if there is none."""
    content = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    meta = content.get('meta') if isinstance(content, dict) else None
    loader = saved_setting(meta.get('cfg') if isinstance(meta, dict) else None, 'train_dataloader')
    return selections(loader.get('dataset')) if isinstance(loader, dict) else []


def saved_setting(text: Any, name: str) -> Any:
    """A setting of the config that MMEngine saves in a checkpoint. The text is not run.

    Args:
        text: The text of the config, ``meta['cfg']`` of the checkpoint; something else has none.
        name: Name of the setting.

    Returns:
        Its value, of dicts, lists and literals, without pipelines; None if there is none.
    """
    try:
        tree = ast.parse(text) if isinstance(text, str) else ast.Module([], [])
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Name) and target.id == name:
            return _literal(node.value)  # type: ignore[attr-defined]
    return None


def _literal(node: ast.expr) -> Any:
    """Value of an expression of dicts, lists and literals, as configs are saved; runs nothing.

    What is none of these, and pipelines, which may be long, are None.
    """
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        return {word.arg: _literal(word.value) for word in node.keywords if word.arg != 'pipeline'}
    if isinstance(node, ast.Dict):
        keys = [None if key is None else _literal(key) for key in node.keys]
        return {key: _literal(one) for key, one in zip(keys, node.values) if isinstance(key, str)}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(one) for one in node.elts]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError):
        return None
