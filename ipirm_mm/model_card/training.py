"""What is known of a training: its data, settings, start and teachers, as lines of Markdown."""

from __future__ import annotations

import inspect
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from mmpretrain.registry import DATASETS, HOOKS, MODELS

from ipirm_mm.evaluation import saved_setting
from ipirm_mm.evaluation.model_source import selections
from ipirm_mm.partition import PartitionSolver

from .markdown import UNKNOWN, spell, table

# Settings of Stage I that a card names also where the config leaves them at their defaults.
HEAD_SETTINGS = ('irm_weight', 'objective', 'penalty', 'temperature', 'irm_warmup_epochs')
HOOK_SETTINGS = ('interval', 'max_partitions')
SOLVER_SETTINGS = ('strategy', 'balance')
# Sections that a card reads.
SECTIONS = (
    *('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'model', 'load_from'),
    *('custom_hooks', 'randomness'),
)


@dataclass
class Training:
    """What is known of a training, from its checkpoint and else from its config.

    Attributes:
        name: Name of the config, without folder and ending.
        source: Where the settings are from, in words.
        settings: Sections of the config by name, without pipelines where a checkpoint had them.
        meta: Epoch, seed and others, as MMEngine saves them. Empty if the checkpoint has none.
    """

    name: str
    source: str
    settings: dict[str, Any]
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, checkpoint: str, config: Config | None = None) -> Training:
        """Read a training.

        Args:
            name: Name of its config, for a checkpoint that does not say it.
            checkpoint: Path or address of its checkpoint.
            config: Its config, for a checkpoint without settings. Defaults to None.
        """
        content = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
        meta = content.get('meta') if isinstance(content, dict) else None
        meta = meta if isinstance(meta, dict) else {}
        experiment = str(meta.get('experiment_name') or '')  # CONFIG_DATE_TIME
        name = re.sub(r'_\d{8}_\d{6}$', '', experiment) or name
        saved = {key: saved_setting(meta.get('cfg'), key) for key in SECTIONS}
        if any(value is not None for value in saved.values()):
            return cls(name, 'the config that the training saved in its checkpoint', saved, meta)
        given = {key: config.get(key) for key in SECTIONS} if config is not None else {}
        source = 'the config that was given; the checkpoint has none' if given else UNKNOWN
        return cls(name, source, given, meta)

    @property
    def known(self) -> bool:
        """Whether the settings of the training are known, and not only those of the model."""
        return bool(self.get('train_cfg') and self.get('optim_wrapper'))

    def get(self, path: str) -> Any:
        """A setting by its dotted name; None if there is none."""
        node: Any = self.settings
        for part in path.split('.'):
            node = node.get(part) if isinstance(node, dict) else None
        return node


def data_lines(training: Training) -> list[str]:
    """Describe the data that was trained on, with the number of images if it is at hand.

    Args:
        training: The training.
    """
    found = selections(training.get('train_dataloader.dataset'))
    return data_set_lines(found, True) if found else [f'- data set: {UNKNOWN}']


def data_set_lines(found: list[dict[str, Any]], count: bool) -> list[str]:
    """Data sets, with the numbers of their images if they are counted."""
    lines: list[str] = []
    for part in found:
        rest = {key: value for key, value in part.items() if key not in ('type', '_scope_')}
        root = rest.pop('data_root', None)
        split = rest.pop('split', None)
        fold = rest.pop('part', None)
        lines += [
            f'- data set: `{part.get("type")}`',
            f'- root: {spell(root) if root else "none named"}',
        ]
        lines.append(f'- split: {spell(split) if split else "none named"}')
        if fold:
            which = 'part' if fold['test_mode'] else 'all but part'
            lines.append(
                f'- of these images: {which} {fold["fold"]} of {fold["num_splits"]}, counted '
                f'from 0 (KFoldDataset, seed={fold["seed"]})'
            )
        if rest:
            lines.append(f'- further settings: {spell(rest)}')
        if count:
            lines.append(f'- images: {_count(part)}')
    return lines


def _count(part: dict[str, Any]) -> str:
    """Number of images of a data set; it is built if its data is here."""
    config, fold = dict(part, pipeline=[]), part.get('part')
    if fold:
        config = dict(fold, type='KFoldDataset', dataset=dict(fold['dataset'], pipeline=[]))
    try:
        return f'{len(DATASETS.build(config)):,}, counted in the data at hand'
    except Exception:  # the data is somewhere else
        return f'{UNKNOWN}, because the data set is not at hand'


def setting_rows(training: Training) -> list[tuple[str, str]]:
    """Settings of a training, one row of a table each.

    Args:
        training: The training.
    """
    get, meta = training.get, training.meta
    train = get('train_cfg') or {}
    ends = [
        f'{key.split("_")[1]} {train[key]}' for key in ('max_epochs', 'max_iters') if key in train
    ]
    reached = [f'{key} {meta[key]}' for key in ('epoch', 'iter') if key in meta]
    seed = meta.get('seed', get('randomness.seed'))
    constant = 'none: a constant rate' if training.known else UNKNOWN
    rows = [
        ('network', spell(get('model.backbone')) if get('model.backbone') else UNKNOWN),
        ('head', spell(get('model.head')) if get('model.head') else UNKNOWN),
        ('length of the training', ', '.join(ends) or UNKNOWN),
        ('this checkpoint is of', ', '.join(reached) or UNKNOWN),
        ('batch size per process', spell(get('train_dataloader.batch_size') or UNKNOWN)),
        ('number of processes', UNKNOWN),
        ('optimizer', spell(get('optim_wrapper.optimizer') or UNKNOWN)),
        ('schedule', spell(get('param_scheduler') or constant)),
        ('seed', UNKNOWN if seed is None else str(seed)),
    ]
    return rows


def start_of(training: Training) -> tuple[str, Training | None]:
    """Find what the backbone starts from.

    Args:
        training: The training.

    Returns:
        Path of its checkpoint, empty if the config names none, and that training; None if the file
        is not at hand or of another kind.
    """
    start = training.get('model.backbone.init_cfg')
    start = start[0] if isinstance(start, list) and start else start
    path = start.get('checkpoint') if isinstance(start, dict) else None
    path = str(
        path or training.get('model.backbone.pretrained') or training.get('load_from') or ''
    )
    if not os.path.isfile(path):
        return path, None
    try:
        return path, Training.of(Path(path).parent.name, path)
    except Exception:  # a file of another kind
        return path, None


def start_lines(training: Training) -> list[str]:
    """Describe what the backbone starts from, with the settings of Stage I if they are at hand.

    Args:
        training: The training.
    """
    path, first = start_of(training)
    if not path:
        if training.known:
            return ['From random weights: the config names no checkpoint.']
        return ['This is not known.']
    lines = [f'From the checkpoint `{path}`.']
    if first is None:
        return [*lines, 'It is not at hand, so its settings are not known.']
    rows = stage_one_settings(first)
    if not rows:
        return [*lines, 'It names no settings of Stage I.']
    return [
        *lines,
        'Its settings, of self-supervised training without labels (Stage I):',
        '',
        table(rows),
        '',
        'It was trained on:',
        '',
        *data_lines(first),
    ]


def stage_one_settings(training: Training) -> list[tuple[str, str]]:
    """Settings of a self-supervised training by IP-IRM; those at their defaults are marked.

    Args:
        training: The training.

    Returns:
        Rows of name and value; empty if the checkpoint has no model with ``type``.
    """
    model = training.get('model') or {}
    if 'type' not in model:
        return []
    rows = [('method', str(model['type']))]
    network = MODELS.get(model['type'])
    if 'num_subsets' in _defaults(network):
        rows.append(('num_subsets', _value(model, 'num_subsets', network)))
    head = model.get('head') or {}
    cls = MODELS.get(head.get('type')) if isinstance(head.get('type'), str) else None
    known = _defaults(cls)
    rows += [(f'head.{key}', _value(head, key, cls)) for key in HEAD_SETTINGS if key in known]
    hooks = [hook for hook in training.get('custom_hooks') or [] if isinstance(hook, dict)]
    ours = [hook for hook in hooks if hook.get('type') == 'PartitionUpdateHook']
    if 'num_subsets' in _defaults(network) and not ours:
        rows.append(('partitions', 'none: the config has no PartitionUpdateHook'))
    for hook in ours:
        cls = HOOKS.get('PartitionUpdateHook')
        rows += [(f'partition {key}', _value(hook, key, cls)) for key in HOOK_SETTINGS]
        solver = hook.get('solver') or {}
        rows += [
            (f'partition {key}', _value(solver, key, PartitionSolver)) for key in SOLVER_SETTINGS
        ]
    return [*rows, *setting_rows(training)[2:]]


def _defaults(cls: Any) -> dict[str, Any]:
    """Arguments of a class and of its bases, with their defaults."""
    found: dict[str, Any] = {}
    for base in reversed(getattr(cls, '__mro__', ())):
        if '__init__' in vars(base) and base is not object:
            parameters = inspect.signature(base.__init__).parameters.values()
            found.update({one.name: one.default for one in parameters})
    return found


def _value(section: dict, key: str, cls: Any) -> str:
    if key in section:
        return spell(section[key])
    default = _defaults(cls).get(key, inspect.Parameter.empty)
    return UNKNOWN if default is inspect.Parameter.empty else f'{spell(default)} (default)'


def distillation_lines(training: Training) -> list[str]:
    """Describe the distillation losses and the teachers.

    Args:
        training: The training.
    """
    losses = training.get('model.distill_losses')
    if not losses:
        return ['None: no teacher.' if training.known else 'This is not known.']
    teachers = training.get('model.teacher')
    teachers = teachers if isinstance(teachers, (list, tuple)) else [teachers]
    lines = [f'- loss: {spell(loss)}' for loss in losses]
    for number, teacher in enumerate(teachers):
        teacher = teacher if isinstance(teacher, dict) else {}
        model = teacher.get('model')
        what = model.get('backbone') if isinstance(model, dict) else model
        lines.append(f'- teacher {number}: {spell(what) if what else UNKNOWN}')
        lines.append(f'- its checkpoint: `{teacher.get("checkpoint") or UNKNOWN}`')
    return lines
