"""Check 4: checkpoints that a run loads: there, whole, safe, and of this model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.runner import CheckpointLoader
from torch import nn

from ipirm_mm.engine import RequireStepsHook, check_end, newest_checkpoint
from ipirm_mm.models.utils.weights import (
    CheckedPretrained,
    LoadedWeights,
    load_state,
    load_weights,
    plain_state,
    unwrapped_state,
)
from ipirm_mm.utils import check_checkpoint

from .building import Setup, work_dir_of
from .findings import Findings, listed

# Buffers of the training, which a checkpoint may have for other data: they are not compared.
OF_TRAINING = ('partitions', 'data_preprocessor')


def check_checkpoints(setup: Setup, findings: Findings, given: Sequence[str]) -> None:
    """Check all checkpoints of a config, and further ones.

    Args:
        setup: What was built.
        findings: Gets the findings.
        given: Paths of further checkpoints, of the model of the config.
    """
    before = len(findings.found)
    _check_load_from(setup, findings)
    _check_pretrained(setup, findings)
    _check_teachers(setup, findings)
    for path in given:
        with findings.check('checkpoint'):
            check_checkpoint(path, ': --checkpoint takes a file that tools/train.py saved')
            _compare(setup, findings, 'checkpoint', path)
    if len(findings.found) == before:
        findings.add('ok', 'checkpoint', 'the config names none')


def _check_load_from(setup: Setup, findings: Findings) -> None:
    cfg, path = setup.cfg, setup.cfg.get('load_from')
    with findings.check('load_from'):
        name = 'load_from'
        if cfg.get('resume') and path is None:
            name = 'resume'
            path, lines = newest_checkpoint(str(work_dir_of(cfg)))
            for line in lines:
                findings.add('warning', name, line)
            if path is None:
                text = f'there is no checkpoint in {cfg.work_dir}: the training begins anew'
                findings.add('warning', name, text)
        if path is None:
            return
        check_checkpoint(path, ': load_from must be a file that tools/train.py saved')
        if setup.runner is not None and setup.trains:
            _refuse_as_training(setup, path)
        _compare(setup, findings, name, path)


def _refuse_as_training(setup: Setup, path: str) -> None:
    """Let the training's own hook look at a checkpoint, as before it is loaded."""
    runner = setup.runner
    kept = runner._load_from, runner._resume
    runner._load_from, runner._resume = path, bool(setup.cfg.get('resume'))
    try:
        content = CheckpointLoader.load_checkpoint(path, map_location='cpu')
        RequireStepsHook().after_load_checkpoint(runner, content)
        for done, end in (('epoch', 'max_epochs'), ('iter', 'max_iters')):
            if runner._resume and setup.loop.get(end) is not None:
                check_end(content['meta'][done], setup.loop[end], end)
    finally:
        runner._load_from, runner._resume = kept


def _check_pretrained(setup: Setup, findings: Findings) -> None:
    """Check what parts of the model start from (``init_cfg`` of the type ``Pretrained``)."""
    modules = [] if setup.model is None else list(setup.model.named_modules())
    for name, module in modules:
        options = getattr(module, 'init_cfg', None)
        for one in options if isinstance(options, (list, tuple)) else [options]:
            if not isinstance(one, dict) or one.get('type') != 'Pretrained':
                continue
            part = f'{name or "model"}.init_cfg'
            # A dry run goes on from random weights.
            module.init_cfg = None
            setup.left_random.append(part)
            with findings.check(part):
                given = {key: value for key, value in one.items() if key != 'type'}
                CheckedPretrained(**given).check(module)
                found = load_weights(module, one['checkpoint'], one.get('prefix'))
                _judge(findings, part, module, one['checkpoint'], found)
                module.init_cfg = options
                setup.left_random.remove(part)


def _check_teachers(setup: Setup, findings: Findings) -> None:
    for number, frozen in enumerate(getattr(setup.model, 'beside', ())):
        with findings.check('teacher'):
            try:
                frozen.load()
                findings.add(
                    'ok', 'teacher', f'teacher {number}: all keys loaded from {frozen.checkpoint}'
                )
            except Exception:
                _leave_random(setup.model, number, frozen)
                setup.left_random.append(f'teacher {number}')
                raise
            frozen.loaded = False  # the training loads it again, and tells its losses


def _leave_random(model: Any, number: int, frozen: Any) -> None:
    """Let a dry run go on with random weights of a teacher."""
    frozen.loaded, frozen.checkpoint = True, None
    for loss in model.distill_losses:
        if loss.teacher == number:
            loss.teacher_loaded(frozen.network)


def _compare(setup: Setup, findings: Findings, part: str, path: str) -> None:
    """Compare a checkpoint with the model."""
    content = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    if setup.model is None:
        findings.add('ok', part, f'{path} is whole; without a model it is not compared')
        return
    model = setup.model
    student = getattr(model, 'student_parts', None)
    children = [name for name, _ in model.named_children()]
    optional = [] if student is None else [name for name in children if name not in student]
    state = unwrapped_state(plain_state(content))
    for key in [key for key in state if key.split('.', 1)[0] in OF_TRAINING]:
        del state[key]
    found = load_state(model, state, path, optional=[*optional, *OF_TRAINING])
    _judge(findings, part, model, path, found)


def _judge(
    findings: Findings, part: str, module: nn.Module, path: str, found: LoadedWeights
) -> None:
    """Say how well a checkpoint fits a module."""
    name = type(module).__name__
    total = found.loaded + len(found.missing)
    counts = f'{path}: {found.loaded} of {total} keys of {name} are loaded'
    if found.left_over:
        counts += f', {found.left_over} of the file are left over'
    other = {key: shapes for key, shapes in found.other_shape.items() if not _is_head(key)}
    body = [key for key in found.missing if not _is_head(key) and key not in other]
    head = [key for key in found.missing if _is_head(key)]
    if other:
        key, (its, own) = next(iter(other.items()))
        findings.add(
            'error',
            part,
            f'{counts}; {len(other)} have another shape, such as {key}: {its} in the file, {own} '
            'in the model: give a checkpoint of this network, or the config that it was trained '
            'with',
        )
    if body:
        findings.add(
            'warning',
            part,
            f'{counts}; {len(body)} are missing in the file and stay random: {listed(body)}',
        )
    if head:
        why = 'another shape' if set(head) & set(found.other_shape) else 'missing'
        findings.add(
            'warning',
            part,
            f'{counts}; the head is not loaded ({why}: {listed(head)}) and stays random: right '
            'for a new task, wrong for a test or a teacher',
        )
    if not found.missing:
        has_head = any(_is_head(key) for key, _ in module.named_parameters())
        findings.add('ok', part, counts + (', the head too' if has_head else ''))


def _is_head(key: Any) -> bool:
    return str(key).split('.', 1)[0] == 'head'
