"""Options of the hooks, and which epochs get a partition."""

from __future__ import annotations

import pytest
import torch
from mmengine.runner import Runner

from ipirm_mm.engine import KNNHook, PartitionUpdateHook
from ipirm_mm.errors import UserError
from ipirm_mm.partition import PartitionSolver


@pytest.mark.parametrize(
    'options,message',
    [
        (dict(interval=0), 'interval must be at least 1, but is 0'),
        (dict(max_partitions=-1), 'max_partitions must be at least 0, but is -1'),
        (dict(max_partitions_kept=0), 'max_partitions_kept must be at least 1, but is 0'),
        (dict(num_augmentations=0), 'num_augmentations must be at least 1, but is 0'),
        (dict(replace='newest'), "replace must be one of .* but is 'newest'"),
    ],
)
def test_bad_partition_options(options, message):
    with pytest.raises(UserError, match=message):
        PartitionUpdateHook(**options)


@pytest.mark.parametrize('options', [dict(interval=0), dict(k=0), dict(temperature=0)])
def test_bad_knn_options(options):
    with pytest.raises(UserError, match=f'KNNHook.{next(iter(options))} must be'):
        KNNHook(dict(), dict(), **options)


def loader(split, batch_size=32, **dataset):
    return dict(
        batch_size=batch_size,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
        dataset=dict(type='FashionMNIST50', split=split, **dataset),
    )


def runner(tmp_path, model_type='IPIRMSimCLR', epochs=4, dataset=None, **hook):
    views = dict(
        type='SeededMultiView', num_views=2, transforms=[[dict(type='RandomFlip', prob=0.5)]]
    )
    pipeline = [views, dict(type='PackInputs')]
    train = loader('train', indices=64, pipeline=pipeline)
    if dataset is not None:
        train['dataset'] = dataset(train['dataset'])
    head = (
        dict(type='IPIRMContrastiveHead')
        if model_type == 'IPIRMSimCLR'
        else dict(type='ContrastiveHead', loss=dict(type='CrossEntropyLoss'))
    )
    plain = [dict(type='PackInputs')]
    return Runner(
        model=dict(
            type=model_type,
            backbone=dict(type='SmallConvNet', channels=(8, 16)),
            neck=dict(
                type='NonLinearNeck',
                in_channels=16,
                hid_channels=16,
                out_channels=8,
                norm_cfg=dict(type='BN1d'),
            ),
            head=head,
        ),
        work_dir=str(tmp_path),
        train_dataloader=train,
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        custom_hooks=[
            dict(type='PartitionUpdateHook', **hook) if model_type == 'IPIRMSimCLR' else None,
            dict(
                type='KNNHook',
                interval=3,
                bank_dataloader=loader('train', indices=40, pipeline=plain),
                query_dataloader=loader('val', indices=30, pipeline=plain),
            ),
        ][model_type != 'IPIRMSimCLR' :],
        default_scope='mmpretrain',
        experiment_name=tmp_path.name,
        randomness=dict(seed=0),
    )


@pytest.mark.parametrize(
    'hook,count',
    [
        (dict(interval=1), 3),
        (dict(interval=1, update_before_train=True), 4),
        (dict(interval=2), 1),
        (dict(interval=50), 0),
        (dict(interval=1, max_partitions=2), 2),
        (dict(interval=1, max_partitions=0), 0),
    ],
)
def test_number_of_partitions(tmp_path, hook, count):
    run = runner(tmp_path, solver=dict(strategy='random'), **hook)
    run.train()
    assert len(run.model.partitions) == count == run.model.partitions.capacity
    assert len(list((tmp_path / 'partitions').glob('*.png'))) == count


@pytest.mark.parametrize('replace', ['oldest', 'most_similar'])
@pytest.mark.parametrize('max_partitions_kept', [1, 2])
def test_partitions_are_replaced(tmp_path, max_partitions_kept, replace):
    """Of what was found, the same in every epoch, only so many are kept."""
    run = runner(
        tmp_path,
        epochs=6,
        interval=1,
        max_partitions_kept=max_partitions_kept,
        replace=replace,
        solver=dict(strategy='random'),
    )
    seen = []
    add = run.model.partitions.add

    def remember(assignment, dropped=None):
        seen.append(assignment.clone())
        add(assignment, dropped)
        # The newest is always there, and nothing that was not found.
        found = run.model.partitions.found
        assert torch.equal(found[-1], assignment)
        assert all(any(torch.equal(row, other) for other in seen) for row in found)
        if replace == 'oldest':
            assert torch.equal(found, torch.stack(seen[-max_partitions_kept:]))

    run.model.partitions.add = remember
    run.train()
    assert len(seen) == 5 and len(run.model.partitions) == max_partitions_kept
    # Numbers go on, so that no picture is overwritten.
    assert len(list((tmp_path / 'partitions').glob('*.png'))) == 5


def test_the_most_similar_is_replaced():
    hook = PartitionUpdateHook(max_partitions_kept=3, replace='most_similar')
    a = torch.tensor([0, 1] * 8)
    b = torch.tensor([0, 0, 1, 1] * 4)
    nearly_a = torch.tensor([0, 1] * 7 + [1, 1])
    c = torch.tensor([0] * 8 + [1] * 8)
    assert hook._replaced(torch.stack((b, a, nearly_a)), c) in (1, 2)
    assert hook._replaced(torch.stack((b, a, c)), nearly_a) == 1
    assert hook._replaced(torch.stack((b, a)), c) is None


def test_features_of_several_augmentations(tmp_path, monkeypatch):
    run = runner(
        tmp_path, epochs=2, interval=1, num_augmentations=3, solver=dict(strategy='kmeans')
    )
    shapes = []

    def look(z1, z2, **kwargs):
        shapes.append((z1.shape, z2.shape))
        assert not torch.equal(z1[0], z1[1]) and not torch.equal(z1[1], z1[2])
        return solve(z1, z2, **kwargs)

    solve = PartitionSolver(strategy='kmeans').solve
    monkeypatch.setattr(PartitionSolver, 'solve', lambda _, *a, **k: look(*a, **k))
    run.train()
    assert shapes == [((3, 64, 8), (3, 64, 8))]


def test_repeated_data_set_and_ema(tmp_path):
    run = runner(
        tmp_path,
        interval=1,
        solver=dict(strategy='kmeans'),
        dataset=lambda inner: dict(type='RepeatDataset', dataset=inner, times=2),
    )
    run.train()
    assert run.model.partitions.found.shape == (3, 64)


def test_model_is_told_epoch_and_seed(tmp_path, monkeypatch):
    run = runner(tmp_path, epochs=3, solver=dict(strategy='random'))
    told = []
    monkeypatch.setattr(type(run.model), 'set_epoch', lambda _, *given: told.append(given))
    run.train()
    assert told == [(epoch, run.seed) for epoch in range(3)]


def test_too_many_subsets_are_refused(tmp_path):
    run = runner(tmp_path)
    run.model.partitions.num_subsets = 65
    with pytest.raises(UserError, match='num_subsets is 65, but the training set has only 64'):
        run.train()


def test_knn_of_a_stock_model_is_logged_and_disturbs_nothing(tmp_path):
    run = runner(tmp_path, model_type='SimCLR', epochs=2)
    hook = next(hook for hook in run.hooks if isinstance(hook, KNNHook))
    model = run.model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    run.train_loop._epoch = 1  # the last one
    hook.after_train_epoch(run)
    assert 0 <= run.message_hub.get_scalar('val/knn_monitor/top1').current() <= 100
    assert torch.equal(generator, torch.get_rng_state())
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(before[name], value), name


def test_another_model_is_refused(tmp_path):
    run = runner(tmp_path, model_type='SimCLR', epochs=2)
    run.register_hook(PartitionUpdateHook())
    with pytest.raises(UserError, match='needs an IP-IRM model, but the model is a SimCLR'):
        run.train()
