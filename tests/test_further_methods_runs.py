"""MoCo v3, BYOL and Barlow Twins with IP-IRM by the real tools: resume, and two processes."""

from __future__ import annotations

import pytest
import torch
from helpers import (
    ROOT,
    SMALL_STAGE_ONE,
    checkpoint,
    fork_ranks,
    losses,
    partitions,
    train_stage_one,
)

METHODS = ('mocov3', 'byol', 'barlowtwins')
ENCODERS = {'mocov3': 'momentum_encoder', 'byol': 'target_net'}
EARLY = ('custom_hooks.0.interval=1', 'model.num_subsets=2', 'model.head.irm_warmup_epochs=1')
# Batch normalization, which is each process's own on processors, by another.
GROUP_NORM = (
    'model.neck.norm_cfg.type=GN',
    'model.neck.norm_cfg.num_groups=8',
    'model.neck.with_last_bn=False',
)
PREDICTOR_GROUP_NORM = (
    'model.head.predictor.norm_cfg.type=GN',
    'model.head.predictor.norm_cfg.num_groups=8',
)


def config_of(method):
    return f'configs/quickstart/ipirm_{method}.py'


@pytest.mark.parametrize(
    'method',
    ['mocov3', *(pytest.param(method, marks=pytest.mark.slow) for method in METHODS[1:])],
)
def test_resume_continues_the_run(tmp_path, method):
    """Two epochs are one and a resumed one, momentum encoder and its count of steps included."""
    options = (*EARLY, 'train_cfg.max_epochs=2', 'default_hooks.checkpoint.interval=1')
    config = config_of(method)
    whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
    keep = 'default_hooks.checkpoint.max_keep_ckpts=2'
    train_stage_one(whole, *options, keep, config=config)
    arguments = ('--resume', whole / 'epoch_1.pth')
    train_stage_one(resumed, *options, config=config, arguments=arguments)
    ours, expected = checkpoint(resumed, 2)['state_dict'], checkpoint(whole, 2)['state_dict']
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=0, msg=name)
    assert len(partitions(whole, 2)) == 1
    if method in ENCODERS:
        name = ENCODERS[method]
        assert int(expected[f'{name}.steps']) == 10
        behind, ahead = (
            torch.cat([value.flatten() for key, value in expected.items() if key.startswith(part)])
            for part in (f'{name}.module.0.', 'backbone.')
        )
        assert behind.shape == ahead.shape and not torch.equal(behind, ahead)


@pytest.mark.slow
@pytest.mark.parametrize('method', METHODS)
def test_two_processes_train_like_one(tmp_path, method):
    """Over 15 steps and two partitions, in double precision."""
    config = tmp_path / 'double.py'
    config.write_text(
        f'_base_ = [{str(ROOT / config_of(method))!r}]\n'
        "custom_imports = dict(imports=['ipirm_mm', 'double_precision'])\n"
        "data_preprocessor = dict(type='DoubleBatchedViews')\n"
    )
    options = [*EARLY, *GROUP_NORM, 'train_cfg.max_epochs=3', 'custom_hooks.0.max_partitions=2']
    if method in ENCODERS:
        options += PREDICTOR_GROUP_NORM
    train_stage_one(tmp_path / 'one', *options, config=config)
    given = ('--work-dir', tmp_path / 'two', '--cfg-options', *SMALL_STAGE_ONE)
    fork_ranks('train', 2, config, *given, 'train_dataloader.batch_size=32', *options)
    one, two = losses(tmp_path / 'one'), losses(tmp_path / 'two')
    assert one.keys() == two.keys() and len(one) == 15
    assert max(abs(one[step] - two[step]) for step in one) < 1e-5
    assert torch.equal(partitions(tmp_path / 'one', 3), partitions(tmp_path / 'two', 3))
    assert len(partitions(tmp_path / 'one', 3)) == 2
