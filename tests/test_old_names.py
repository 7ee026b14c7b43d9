"""A config of the old spelling trains, and says once for each old name what it is called now."""

from __future__ import annotations

import pytest
from helpers import ROOT, SMALL_STAGE_ONE, checkpoint, run_tool

OLD = """
_base_ = [{base!r}]
model = dict(head=dict(reduction='sum', penalise_batch=True, irm_begin=1, irm_growth=2))
custom_hooks = [
    dict(
        type='PartitionUpdateHook',
        interval=1,
        max_kept=1,
        drop='most_alike',
        draws=2,
        solver=dict(strategy='kmeans'),
    ),
    _base_.knn_hook,
]
"""
NEW = """
_base_ = [{base!r}]
model = dict(
    head=dict(
        objective='report', penalize_batch=True, irm_warmup_epochs=1, irm_rampup_epochs=2
    )
)
custom_hooks = [
    dict(
        type='PartitionUpdateHook',
        interval=1,
        max_partitions_kept=1,
        replace='most_similar',
        num_augmentations=2,
        solver=dict(strategy='kmeans'),
    ),
    _base_.knn_hook,
]
"""
RENAMED = dict(
    reduction='objective',
    penalise_batch='penalize_batch',
    irm_begin='irm_warmup_epochs',
    irm_growth='irm_rampup_epochs',
    max_kept='max_partitions_kept',
    drop='replace',
    draws='num_augmentations',
)


@pytest.mark.slow
def test_a_config_of_the_old_spelling_trains_like_one_of_the_new(tmp_path):
    states = []
    for name, text in (('old', OLD), ('new', NEW)):
        config = tmp_path / f'{name}.py'
        config.write_text(text.format(base=str(ROOT / 'configs/quickstart/ipirm_simclr.py')))
        options = (
            *(option for option in SMALL_STAGE_ONE if not option.startswith('custom_hooks.0')),
            'default_hooks.checkpoint.interval=3',
            'train_cfg.max_epochs=3',
        )
        finished = run_tool(
            'tools/train.py', config, '--work-dir', tmp_path / name, '--cfg-options', *options
        )
        said = finished.stderr.count('FutureWarning')
        assert said == (len(RENAMED) if name == 'old' else 0), finished.stderr[-3000:]
        if name == 'old':
            for before, now in RENAMED.items():
                assert finished.stderr.count(f': {before} is now called {now}.') == 1
        states.append(checkpoint(tmp_path / name, 3)['state_dict'])
    for key, value in states[0].items():
        assert value.equal(states[1][key]), key
