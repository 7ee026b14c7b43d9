"""MixUp by the real tools: two processes, a resumed run, and partitions from mixed views."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import ROOT, checkpoint, fork_ranks, losses, partitions, run_tool, train_stage_one
from mmengine.config import Config
from mmengine.runner import Runner
from test_end_to_end import largest_difference, train_in_two_processes

from ipirm_mm.engine.partition_features import partition_features
from ipirm_mm.partition import PartitionSolver

CONFIG = ROOT / 'configs/quickstart/ipirm_simclr_mixup.py'

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
    'more,subsets',
    [pytest.param((), 20, marks=pytest.mark.slow), pytest.param(MIXED, 2, marks=pytest.mark.slow)],
)
def test_two_processes_and_a_resumed_run_train_like_one(tmp_path, more, subsets):
    """In double precision: rounding differs between one sum and two halves."""
    options = (*OPTIONS, *more)
    config = tmp_path / 'double.py'
    config.write_text(
        f'_base_ = [{str(CONFIG)!r}]\n'
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


@pytest.mark.slow
def test_partitions_from_mixed_views(tmp_path):
    """All from one encoder, and compared on views and partners that no solver has seen."""
    options = ['train_cfg.max_epochs=6', 'train_cfg.val_interval=6', 'model.num_subsets=2']
    hook = dict(strategy='authors', epochs=31)
    options += [f'custom_hooks.0.solver.{name}={value}' for name, value in hook.items()]
    options += ['default_hooks.checkpoint.interval=6', 'train_dataloader.dataset.indices=2000']
    new = ['custom_hooks.0.num_augmentations=31', 'custom_hooks.0.mixup=True']
    found, about_color = {}, {}
    for name, more in (
        ('plain', ['custom_hooks.0.num_augmentations=31']),
        ('own', new),
        ('pair', [*new, 'custom_hooks.0.solver.query_weight=pair']),
    ):
        folder = tmp_path / name
        run_tool('tools/train.py', CONFIG, '--work-dir', folder, '--cfg-options', *options, *more)
        found[name] = partitions(folder, 6)[0].long()
        record = json.loads((folder / 'partitions/partition_01.json').read_text())
        about_color[name] = record['nmi_with_factor']

    config = Config.fromfile(CONFIG)
    config.work_dir = str(tmp_path)
    config.load_from = str(tmp_path / 'own/epoch_6.pth')
    config.model.num_subsets = 2
    config.train_dataloader.dataset.indices = 2000
    config.custom_hooks = [dict(type='PartitionUpdateHook', max_partitions=0)]
    runner = Runner.from_cfg(config)
    _ = runner.train_loop  # builds the data loader
    runner.call_hook('before_run')
    runner.load_or_resume()
    with torch.no_grad():
        z1, z2, _, mixing = partition_features(runner, runner.model, 1, 1000, 4, None, True)

    def objective(partition, query_weight):
        solver = PartitionSolver(temperature=0.2, strategy='factor', query_weight=query_weight)
        return solver.solve(z1, z2, factor=partition, mixing=mixing).objective

    found['random'] = torch.arange(len(found['own'])) % 2
    for query_weight in ('own', 'pair'):
        value = {name: objective(found[name], query_weight) for name in found}
        assert min(value['own'], value['plain']) > value['random'] + 0.1
        # With 'pair', the solver has separated partners, and these are others.
        assert abs(value['pair'] - value['random']) < 0.1
    assert about_color['own'] > 0.1 and about_color['pair'] < 0.05
