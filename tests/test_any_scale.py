"""One, two and four processes give the same numbers from the same batches, in double precision."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import (
    ROOT,
    SMALL_STAGE_ONE,
    STAGE_ONE,
    checkpoint,
    fork_ranks,
    losses,
    partitions,
    run_tool,
)
from mmengine.dataset import sampler
from mmengine.runner import Runner

BATCH = 64  # of all processes
DOUBLE = """
_base_ = [{base!r}]
custom_imports = dict(imports=['ipirm_mm', 'double_precision'])
data_preprocessor = dict(type='{preprocessor}')
custom_hooks = [*_base_.custom_hooks, dict(type='MeanLossHook'), dict(type='FirstGradientsHook')]
"""
# The last batch of an epoch has 12 images, three on each of four processes; or the images are no
# multiple of the processes, and what is left over is dropped: 62 of them, of which four processes
# could still make a batch if two were shown twice.
SHARES = [(332, False), (318, True)]


def double_config(path, base, preprocessor, more=''):
    text = DOUBLE.format(base=str(ROOT / base), preprocessor=preprocessor) + more
    path.write_text(text)
    return path


def train(folder, config, *options):
    """Train on one, two and four processes; gives their folders."""
    folders = {}
    for world in (1, 2, 4):
        folders[world] = folder / f'on_{world}'
        size = f'train_dataloader.batch_size={BATCH // world}'
        given = (config, '--work-dir', folders[world], '--cfg-options', *options, size)
        if world == 1:
            run_tool('tools/train.py', *given)
        else:
            fork_ranks('train', world, *given)
    return folders


def same_numbers(one, other, epochs):
    """See that gradients, losses and what is saved are equal, and print how far they differ."""
    ours, theirs = (torch.load(path / 'gradients.pth') for path in (one, other))
    assert ours.keys() == theirs.keys() and any(bool(grad.any()) for grad in ours.values())
    gradients = max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
    steps = [
        [json.loads(line) for line in (path / 'losses.jsonl').read_text().splitlines()]
        for path in (one, other)
    ]
    assert len(steps[0]) == len(steps[1]) >= 50
    differences = max(abs(a - b) for a, b in zip(*steps))
    ours, theirs = (checkpoint(path, epochs)['state_dict'] for path in (one, other))
    assert ours.keys() == theirs.keys()
    saved = max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
    print(f'{other.name}: gradients {gradients:.1e}, losses {differences:.1e}, saved {saved:.1e}')
    assert gradients < 1e-6
    assert differences < 1e-4
    assert saved < 1e-6


def knn(work_dir):
    """The k-NN accuracies of a run."""
    lines = [
        json.loads(line)
        for path in work_dir.glob('*/vis_data/scalars.json')
        for line in path.read_text().splitlines()
    ]
    return [line['knn_monitor/top1'] for line in lines if 'knn_monitor/top1' in line]


@pytest.mark.parametrize('images', range(8, 25))
def test_drop_last_leaves_out_the_same_images(images, monkeypatch):
    """Batches of eight images, whatever the number of processes."""

    def batches(rank, world):
        monkeypatch.setattr(sampler, 'get_dist_info', lambda: (rank, world))
        cfg = dict(
            batch_size=8 // world,
            dataset=list(range(images)),
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
            drop_last=True,
        )
        loader = Runner.build_dataloader(cfg, seed=0)
        found = [batch.tolist() for batch in loader]
        assert len(found) == len(loader)
        return found

    whole = batches(0, 1)
    assert len(whole) == images // 8
    for world in (2, 4, 8):
        ranks = [batches(rank, world) for rank in range(world)]
        # As gather_batch puts them together: the first image of each rank, the second, ...
        together = [[image for row in zip(*step) for image in row] for step in zip(*ranks)]
        assert together == whole
        assert {len(steps) for steps in ranks} == {len(whole)}


@pytest.mark.slow
@pytest.mark.parametrize('images,drop_last', SHARES)
def test_stage_one(tmp_path, images, drop_last):
    epochs = 13 if drop_last else 9
    config = double_config(tmp_path / 'double.py', STAGE_ONE, 'DoubleBatchedViews')
    folders = train(
        tmp_path,
        config,
        *SMALL_STAGE_ONE,
        f'train_cfg.max_epochs={epochs}',
        f'train_dataloader.dataset.indices={images}',
        f'train_dataloader.drop_last={drop_last}',
        'custom_hooks.0.interval=4',
        'custom_hooks.1.interval=4',
        'custom_hooks.1.bank_dataloader.dataset.indices=331',
        'custom_hooks.1.query_dataloader.dataset.indices=203',
        'model.backbone.channels=(8,16,32)',
        'model.neck.in_channels=32',
    )
    for world in (2, 4):
        same_numbers(folders[1], folders[world], epochs)
        found = [partitions(folders[n], epochs) for n in (1, world)]
        assert len(found[0]) == (epochs - 1) // 4
        assert torch.equal(*found)
        assert knn(folders[1]) == knn(folders[world]) and len(knn(folders[1])) >= 3
        assert losses(folders[1]).keys() == losses(folders[world]).keys()


@pytest.mark.slow
@pytest.mark.parametrize('images,drop_last', SHARES)
def test_stage_two(tmp_path, images, drop_last):
    epochs = 13 if drop_last else 9
    options = ('train_cfg.max_epochs=1', 'model.backbone.init_cfg=None')
    run_tool(
        'tools/train.py',
        'configs/quickstart/teacher.py',
        *('--work-dir', tmp_path / 'teacher', '--no-validate', '--cfg-options', *options),
        *('train_dataloader.dataset.indices=128', 'default_hooks.checkpoint.interval=1'),
    )
    norm = "dict(type='GN', num_groups=8, _delete_=True)"
    config = double_config(
        tmp_path / 'double.py',
        'configs/quickstart/student_crd_kl.py',
        'DoubleClsBatchedViews',
        f'model = dict(backbone=dict(init_cfg=None, channels=(8, 16, 32), norm_cfg={norm}),\n'
        '    head=dict(in_channels=32),\n'
        f'    teacher=dict(checkpoint={str(tmp_path / "teacher/epoch_1.pth")!r}))\n',
    )
    folders = train(
        tmp_path,
        config,
        f'train_cfg.max_epochs={epochs}',
        'train_cfg.val_interval=20',
        f'train_dataloader.dataset.indices={images}',
        f'train_dataloader.drop_last={drop_last}',
    )
    for world in (2, 4):
        same_numbers(folders[1], folders[world], epochs)
