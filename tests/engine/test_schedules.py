"""Schedules of another length than the training: found, and refused where they cannot be meant."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from mmengine.config import Config

from ipirm_mm.engine.schedules import check_schedules, schedule_faults
from ipirm_mm.errors import UserError


@pytest.mark.parametrize(
    ('options', 'level', 'said'),
    [
        (dict(type='CosineAnnealingLR', T_max=0), 'error', 'T_max=30'),
        (dict(type='CosineAnnealingLR'), 'error', 'T_max=30'),
        (dict(type='CosineAnnealingLR', T_max=20), 'warning', 'rises again after epoch 20'),
        (dict(type='CosineAnnealingLR', T_max=40), 'warning', 'set param_scheduler.0.T_max=30'),
        (dict(type='CosineAnnealingLR', T_max=20, begin=10, end=30), None, ''),
        (dict(type='CosineAnnealingLR', begin=10, end=30), None, ''),
        (dict(type='CosineAnnealingLR', T_max=20, end=20), None, ''),
        (dict(type='CosineAnnealingLR', T_max=300, by_epoch=False), None, ''),
        (dict(type='LinearLR', begin=0, end=50), 'warning', 'end is 50'),
        (dict(type='LinearLR'), 'warning', 'no end'),
        (dict(type='LinearLR', end='30'), 'error', 'must be a number of epochs'),
        (dict(type='LinearLR', end=10), None, ''),
        (dict(type='StepLR', step_size=3, begin=30), 'warning', 'no effect'),
        (dict(type='StepLR', step_size=3, begin=9, end=9), 'error', 'after its begin'),
        (dict(type='MultiStepLR', milestones=[10, 40]), 'warning', 'has 40'),
        (dict(type='MultiStepLR', milestones=[10, 20]), None, ''),
    ],
)
def test_schedules_of_another_length_than_the_training(options, level, said):
    found = list(schedule_faults([options], dict(max_epochs=30), (300, 10)))
    assert [one for one, _ in found] == ([] if level is None else [level])
    assert all(said in text for _, text in found)


def runner_with(schedule):
    """A runner as far as the check needs it; what it says is in its ``said``."""
    cfg = Config(dict(param_scheduler=schedule, train_cfg=dict(by_epoch=True, max_epochs=30)))
    said = []
    logger = SimpleNamespace(warning=said.append)
    data = range(10)
    return SimpleNamespace(cfg=cfg, max_iters=300, train_dataloader=data, logger=logger, said=said)


def test_a_training_refuses_a_schedule_that_never_falls():
    with pytest.raises(UserError, match=r'param_scheduler\.0\.T_max is 0, .*T_max=30'):
        check_schedules(runner_with([dict(type='CosineAnnealingLR', T_max=0)]))


def test_a_training_warns_of_a_schedule_that_ends_too_early():
    runner = runner_with([dict(type='CosineAnnealingLR', T_max=20)])
    check_schedules(runner)
    assert len(runner.said) == 1 and 'rises again after epoch 20' in runner.said[0]
    for right in (None, [], [dict(type='CosineAnnealingLR', T_max=30)]):
        runner = runner_with(right)
        check_schedules(runner)
        assert not runner.said
