"""Mixed views that a partition is found from, against a computation by hand."""

from __future__ import annotations

import pytest
import torch
from mmengine.runner import Runner

from ipirm_mm.engine import partition_features as module
from ipirm_mm.engine.partition_features import partition_features
from ipirm_mm.errors import UserError


def runner(tmp_path, model_type='IPIRMSimCLRMixUp', images=150, **hook):
    # Nothing random in the views, so that they can be loaded again.
    pipeline = [
        dict(
            type='SeededMultiView', num_views=2, transforms=[[dict(type='RandomFlip', prob=1.0)]]
        ),
        dict(type='PackInputs'),
    ]
    head = 'IPIRMMixUpHead' if model_type.endswith('MixUp') else 'IPIRMContrastiveHead'
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
            head=dict(type=head),
        ),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            batch_size=32,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
            dataset=dict(type='FashionMNIST50', split='train', indices=images, pipeline=pipeline),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        custom_hooks=[dict(type='PartitionUpdateHook', interval=1, **hook)],
        default_scope='mmpretrain',
        experiment_name=tmp_path.name,
        randomness=dict(seed=0),
    )


def test_features_are_those_of_mixed_images(tmp_path, monkeypatch):
    run = runner(tmp_path, max_partitions=0)
    run.train()
    model = run.model.eval()
    loaded = {}
    views = model.two_views

    def remember(inputs):
        loaded['views'] = [*loaded.get('views', []), views(inputs)]
        return views(inputs)

    monkeypatch.setattr(model, 'two_views', remember)
    with torch.no_grad():
        z1, z2, data, mixing = partition_features(run, model, 1, 1, 2, None, True)
        assert z1.shape == z2.shape == (2, 150, 8)
        assert data['sample_idx'].tolist() == list(range(150))
        # Batches of whole groups: here 3 of 50 images, though the training has 32.
        assert [len(view) for view, _ in loaded['views']] == [50] * 6
        assert torch.bincount(mixing.groups).tolist() == [50] * 3
        assert torch.equal(mixing.groups[mixing.partners], mixing.groups.expand(2, -1))
        assert torch.equal(mixing.partners.sort(1).values, torch.arange(150).expand(2, -1))
        assert (mixing.lam >= 0.5).all() and not torch.equal(*mixing.lam)
        assert not torch.equal(*mixing.partners)
        order = mixing.groups.argsort(stable=True)
        for draw in range(2):
            batches = loaded['views'][3 * draw : 3 * draw + 3]
            first, second = (torch.cat(rows)[order.argsort()] for rows in zip(*batches))
            lam = mixing.lam[draw, :, None, None, None].float()
            mixed = lam * first + (1 - lam) * first[mixing.partners[draw]]
            torch.testing.assert_close(z1[draw], model.project(mixed))
            torch.testing.assert_close(z2[draw], model.project(second))
        # The draws depend on seed and time only, not on the batches or the ranks.
        again = partition_features(run, model, 1, 1, 1, 128, True)[3]
        assert torch.equal(again.partners[0], mixing.partners[0])
        assert torch.equal(again.lam[0], mixing.lam[0])
        other = partition_features(run, model, 2, 2, 1, None, True)[3]
        assert not torch.equal(other.groups, mixing.groups)
        # With more ranks than groups, a rank repeats one.
        monkeypatch.setattr(module, 'get_world_size', lambda: 4)
        parts = []
        for rank in range(4):
            monkeypatch.setattr(module, 'get_rank', lambda rank=rank: rank)
            parts.append(module._Mixer(model, 150, 0, 1).batches(32))
        assert sorted(sum(sum(parts[:3], []), [])) == list(range(150)) and parts[3] == parts[0]


def test_images_without_features(tmp_path, monkeypatch):
    """Partners are found by their numbers; a rejected image is no partner."""
    run = runner(tmp_path, max_partitions=0)
    run.train()
    batches = module._Mixer.batches
    monkeypatch.setattr(
        module._Mixer,
        'batches',
        lambda *args: [[i for i in batch if i % 7] for batch in batches(*args)],
    )
    with torch.no_grad():
        _, _, data, mixing = partition_features(run, run.model, 1, 1, 1, None, True)
    assert data['sample_idx'].tolist() == [i for i in range(150) if i % 7]
    count = len(data['sample_idx'])
    assert torch.equal(mixing.partners[0].sort().values, torch.arange(count))
    mixing.check(1, count, 64)


@pytest.mark.parametrize('strategy', ['authors', 'local'])
def test_training_with_mixed_partitions(tmp_path, strategy):
    solver = dict(strategy=strategy, starts=['kmeans'], epochs=3, block_size=64)
    run = runner(tmp_path, mixup=True, num_augmentations=2, solver=solver)
    run.train()
    assert run.model.partitions.found.unique().tolist() == [0, 1]


@pytest.mark.parametrize(
    'model_type,strategy,message',
    [
        ('IPIRMSimCLR', 'local', 'needs a model that is trained with MixUp, .* is a IPIRMSimCLR'),
        ('IPIRMSimCLRMixUp', 'kmeans', "no effect with solver.strategy='kmeans'"),
    ],
)
def test_mixup_is_refused(tmp_path, model_type, strategy, message):
    with pytest.raises(UserError, match=message):
        runner(tmp_path, model_type, mixup=True, solver=dict(strategy=strategy)).train()
