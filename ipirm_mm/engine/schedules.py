"""Schedules whose length is not that of the training, which MMEngine accepts without a word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.runner import Runner

from ipirm_mm.errors import UserError


def check_schedules(runner: Runner) -> None:
    """Refuse schedules that cannot be meant, and warn of those that end too early or too late.

    Args:
        runner: The runner, about to train.

    Raises:
        UserError: Such as for ``T_max=0``, with which the learning rate never falls.
    """
    given = runner.cfg.get('param_scheduler')
    loop = runner.cfg.get('train_cfg') or {}
    steps = runner.max_iters, len(runner.train_dataloader)
    faults = list(schedule_faults(given, loop, steps))
    errors = [text for level, text in faults if level == 'error']
    if errors:
        raise UserError(errors[0])
    for _, text in faults:
        runner.logger.warning(text)


def schedule_faults(
    given: Any, loop: dict[str, Any], steps: tuple[int, int] | None
) -> Iterator[tuple[str, str]]:
    """Find schedules that are not of the length of the training, which MMEngine accepts.

    Args:
        given: The config's ``param_scheduler``: one, a list of them, or lists by optimizer.
        loop: Options of the training loop.
        steps: Steps of the training and of each epoch; None if not known.

    Yields:
        Level and text of a finding.
    """
    if isinstance(given, dict) and 'type' not in given:  # one list per optimizer
        given = [one for several in given.values() for one in _as_list(several)]
    for number, one in enumerate(_as_list(given or [])):
        name = 'param_scheduler' if one is given else f'param_scheduler.{number}'
        if isinstance(one, dict):
            yield from _faults_of(one, name, loop, steps)


def _as_list(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _faults_of(
    one: Any, name: str, loop: dict[str, Any], steps: tuple[int, int] | None
) -> Iterator[tuple[str, str]]:
    kind = str(one.get('type'))
    by_epoch = one.get('by_epoch', True)
    unit = 'epoch' if by_epoch else 'iteration'
    if by_epoch:
        total = loop.get('max_epochs')
        if total is None and steps is not None:
            total = steps[0] // steps[1]
    else:
        total = loop.get('max_iters') or (steps or (None,))[0]
    if not total:
        return
    for key in ('begin', 'end', 'T_max'):
        if not isinstance(one.get(key, 0), (int, float, type(None))):
            yield 'error', f'{name}.{key} is {one[key]!r}, but must be a number of {unit}s'
            return
    begin, end = one.get('begin') or 0, one.get('end')
    whole = f'the training has {total:,} {unit}{"" if total == 1 else "s"}'
    if begin >= total:
        yield 'warning', f'{name} ({kind}) begins at {unit} {begin}, but {whole}: it has no effect'
        return
    if end is not None and end <= begin:
        yield 'error', f'{name}.end is {end}, but must be after its begin, {begin}'
        return
    if 'Cosine' in kind and 'Restart' not in kind:
        right = (total if end is None else min(end, total)) - begin
        period = one.get('T_max')
        if period is None and end is not None:
            period = end - begin
        if not period or period < 0:
            yield (
                'error',
                f'{name}.T_max is {one.get("T_max")}, with which the learning rate never falls: '
                f'give --cfg-options {name}.T_max={right}, the {unit}s from its begin to the end',
            )
        elif period < right:
            yield (
                'warning',
                f'{name}.T_max is {period}, but {right} {unit}s follow its begin ({whole}): the '
                f'learning rate rises again after {unit} {begin + period}; set '
                f'{name}.T_max={right}',
            )
        elif period > right and (end is None or end > total or period > end - begin):
            yield (
                'warning',
                f'{name}.T_max is {period}, but only {right} {unit}s follow its begin ({whole}): '
                f'the learning rate does not reach its end; set {name}.T_max={right}',
            )
    elif 'MultiStep' in kind:
        late = [place for place in one.get('milestones') or () if place >= total]
        if late:
            yield (
                'warning',
                f'{name}.milestones has {", ".join(map(str, late))}, but {whole}: they have no '
                'effect',
            )
    elif end is not None and end > total:
        yield (
            'warning',
            f'{name}.end is {end}, but {whole}: it does not come to its end; set '
            f'{name}.end={total}',
        )
    elif end is None and ('Linear' in kind or 'Poly' in kind):
        yield (
            'warning',
            f'{name} ({kind}) has no end, and so hardly changes: set {name}.end to the number '
            f'of {unit}s that it takes, at most {total}',
        )
