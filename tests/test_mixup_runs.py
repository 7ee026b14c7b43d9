"""MixUp by the real tools: two processes, a resumed run, and partitions from mixed views."""

from __future__ import annotations

import pytest
import torch
from helpers import ROOT, checkpoint, fork_ranks, losses, partitions, train_stage_one
from test_end_to_end import largest_difference, train_in_two_processes

# Three steps without, three with the partition; its 20 subsets have few images of a batch.
OPTIONS = (
    'train_dataloader.dataset.indices=192',
    'custom_hooks.0.interval=1',
    'model.head.irm_warmup_epochs=0',
    'train_cfg.max_epochs=2',
)
# Mixed in both steps: three groups of partners, in two blocks.
MIXED = (
    'model.num_subsets=2',
    'custom_hooks.0.mixup=True',
    'custom_hooks.0.num_augmentations=2',
    'custom_hooks.0.solver.strategy=authors',
    'custom_hooks.0.solver.block_size=128',
)


@pytest.mark.parametrize(
    'more,subsets', [((), 20), pytest.param(MIXED, 2, marks=pytest.mark.slow)]
)
def test_two_processes_and_a_resumed_run_train_like_one(tmp_path, more, subsets):
    """In double precision: rounding differs between one sum and two halves."""
    options = (*OPTIONS, *more)
    config = tmp_path / 'double.py'
    base = ROOT / 'configs/quickstart/ipirm_simclr_mixup.py'
    config.write_text(
        f'_base_ = [{str(base)!r}]\n'
        "custom_imports = dict(imports=['ipirm_mm', 'double_precision'])\n"
        "data_preprocessor = dict(type='DoubleBatchedViews')\n"
    )
    train_stage_one(tmp_path / 'one', *options, config=config)
    one = losses(tmp_path / 'one')
    assert len(one) == 6
    assert partitions(tmp_path / 'one', 2).unique().tolist() == list(range(subsets))

    train_in_two_processes(tmp_path / 'two', *options, config=config, start=fork_ranks)
    assert largest_difference(one, losses(tmp_path / 'two')) < 1e-8
    assert torch.equal(partitions(tmp_path / 'two', 2), partitions(tmp_path / 'one', 2))

    resumed = tmp_path / 'resumed'
    train_stage_one(resumed, *options, 'train_cfg.max_epochs=1', config=config)
    train_stage_one(resumed, *options, config=config, arguments=['--resume'])
    assert largest_difference(one, losses(resumed)) == 0
    expected = checkpoint(tmp_path / 'one', 2)['state_dict']
    for name, value in checkpoint(resumed, 2)['state_dict'].items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name)
