"""Loops, data sets and labels of other people's set-ups: the right values, or one sentence."""

from __future__ import annotations

import json
import pickle
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import fails_with, run_tool
from mmengine.config import Config
from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner, loops
from mmpretrain.datasets import KFoldDataset
from mmpretrain.datasets.samplers import RepeatAugSampler
from mmpretrain.registry import DATASETS
from mmpretrain.structures import DataSample
from torch.utils.data import Subset

from ipirm_mm import cli
from ipirm_mm.datasets import (
    FashionMNIST50,
    ImageNumbers,
    SeededTransforms,
    SeenIndex,
    UniqueImages,
    number_images,
    one_class,
    why_not_one_class,
)
from ipirm_mm.engine import PartitionUpdateHook
from ipirm_mm.engine.passes import PassSampler
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import KNNAccuracy, build_loader, extract_features

FLIP = dict(type='RandomResizedCrop', scale=8)
PACK = dict(type='PackInputs', meta_keys=('sample_idx', 'img_path'))
ONE_VIEW = [dict(type='SeededTransforms', transforms=[FLIP]), PACK]
TWO_VIEWS = [dict(type='SeededMultiView', num_views=2, transforms=[[FLIP]]), PACK]
IPIRM = dict(
    type='IPIRMSimCLR',
    backbone=dict(type='SmallConvNet', channels=(4, 8)),
    neck=dict(
        type='NonLinearNeck',
        in_channels=8,
        hid_channels=8,
        out_channels=4,
        norm_cfg=dict(type='BN1d'),
    ),
    head=dict(type='IPIRMContrastiveHead'),
)


class Still(BaseModel):
    """A model that learns nothing, to look at what it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=self.weight * 0)


class Watch(Hook):
    """What each batch had: number, path and bytes of each image."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        for image, sample in zip(data_batch['inputs'], data_batch['data_samples']):
            image = image[0] if isinstance(image, (list, tuple)) else image
            self.seen.append((sample.sample_idx, sample.get('img_path'), image.numpy().tobytes()))


def fashion(count=10, pipeline=ONE_VIEW, split='train'):
    return dict(type='FashionMNIST50', split=split, indices=count, pipeline=pipeline)


def run(
    path, dataset, hooks, model=None, batch_size=4, sampler=None, workers=0, resume=None, **loop
):
    """Train in this process; returns the runner and what the model was given."""
    loop = loop or dict(by_epoch=True, max_epochs=2)
    by_epoch = loop.get('by_epoch', True)
    end = loop.get('max_epochs', loop.get('max_iters'))
    if not by_epoch:
        loop['val_interval'] = 10**6
    loader = dict(
        batch_size=batch_size,
        num_workers=workers,
        persistent_workers=workers > 0,
        sampler=sampler or dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
        dataset=dataset,
    )
    runner = Runner(
        model=model or Still(),
        work_dir=str(path),
        train_dataloader=loader,
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        custom_hooks=hooks,
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=by_epoch, interval=end)
        ),
        log_processor=dict(by_epoch=by_epoch),
        default_scope='mmpretrain',
        experiment_name=f'{path.name}_{id(hooks)}',
        randomness=dict(seed=0),
        log_level='WARNING',
        **(resume or {}),
    )
    watch = Watch()
    runner.register_hook(watch)
    runner.train()
    return runner, watch.seen


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch):
    """MMEngine's loop of iterations sleeps for two seconds when the data begin again."""
    monkeypatch.setattr(loops.time, 'sleep', lambda seconds: None)


def expected_view(index, passes, pipeline=ONE_VIEW):
    """The view of an image, from a data set that no loader has touched."""
    dataset = DATASETS.build(fashion(pipeline=pipeline))
    dataset.pipeline.transforms[0].set_epoch(passes, 0)
    return dataset[index]['inputs'].numpy().tobytes()


@pytest.mark.parametrize('sampler', ['DefaultSampler', 'InfiniteSampler'])
@pytest.mark.parametrize('workers', [0, 2])
def test_each_pass_of_a_loop_of_iterations_has_its_own_draws(tmp_path, sampler, workers):
    """Also where a pass ends within a batch, and where workers load in advance."""
    batches = 6
    _, seen = run(
        tmp_path,
        fashion(),
        [dict(type='SetEpochHook')],
        sampler=dict(type=sampler, shuffle=True),
        workers=workers,
        by_epoch=False,
        max_iters=batches,
    )
    counts = defaultdict(int)
    for index, _, image in seen:
        assert image == expected_view(index, counts[index])
        counts[index] += 1
    assert len(seen) == (24 if sampler == 'InfiniteSampler' else 20)
    assert set(counts.values()) <= {2, 3}


def test_a_resumed_loop_of_iterations_sees_what_an_uninterrupted_one_sees(tmp_path):
    given = dict(
        dataset=fashion(), hooks=[dict(type='SetEpochHook')], sampler=dict(type='InfiniteSampler')
    )
    _, whole = run(tmp_path / 'a', **given, by_epoch=False, max_iters=6)
    _, first = run(tmp_path / 'b', **given, by_epoch=False, max_iters=3)
    resume = dict(resume=True, load_from=str(tmp_path / 'b' / 'iter_3.pth'))
    _, second = run(tmp_path / 'b', **given, resume=resume, by_epoch=False, max_iters=6)
    assert first + second == whole


WRAPPERS = dict(
    repeat=lambda inner: dict(type='RepeatDataset', dataset=inner, times=2),
    concat=lambda inner: dict(
        type='ConcatDataset', datasets=[inner, dict(inner, split='val', indices=7)]
    ),
    balanced=lambda inner: dict(type='ClassBalancedDataset', dataset=inner, oversample_thr=0.9),
    kfold=lambda inner: dict(type='KFoldDataset', dataset=inner, num_splits=2, seed=1),
)


@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_wrappers_have_a_number_per_image_and_draws_per_item(tmp_path, wrapper):
    dataset = WRAPPERS[wrapper](fashion())
    _, seen = run(tmp_path, dataset, [dict(type='SetEpochHook')], workers=1 * (wrapper == 'kfold'))
    paths = defaultdict(set)
    for number, path, _ in seen:
        paths[number].add(path)
    # One number per image and one image per number, from 0 on.
    assert all(len(group) == 1 for group in paths.values())
    assert len({path for _, path, _ in seen}) == len(paths)
    assert set(paths) == set(range(len(paths)))
    assert len(paths) == dict(repeat=10, concat=17, balanced=10, kfold=5)[wrapper]
    views = {(path, image) for _, path, image in seen}
    assert len(views) > 0.9 * len(seen)  # two crops of so small images may be the same


def test_repeated_augmentation_repeats_no_view(tmp_path):
    dataset = FashionMNIST50(indices=6)
    sampler = RepeatAugSampler(dataset, num_repeats=3, seed=0)
    indices = list(PassSampler(sampler, 6, by_epoch=True))
    assert [int(i) for i in indices] == list(sampler)
    assert [i.repeat for i in indices] == [0, 1, 2, 0, 1, 2]
    assert all(i.passes is None for i in indices)


def test_an_index_survives_the_way_to_a_worker():
    index = pickle.loads(pickle.dumps(SeenIndex(7, 3, 2)))
    assert (index, index.passes, index.repeat) == (7, 3, 2) and index - 2 == 5
    dataset = FashionMNIST50(indices=6, pipeline=ONE_VIEW)
    number_images(dataset)
    copied = pickle.loads(pickle.dumps(dataset))
    assert len(copied.__getitems__([1, SeenIndex(2, 1)])) == 2


def test_numbers_of_nested_wrappers():
    plain, other = FashionMNIST50(indices=6), FashionMNIST50(split='val', indices=4)
    numbers = ImageNumbers(RepeatDataset(plain, 2))
    assert [numbers.number(i) for i in (0, 5, 6, 11)] == [0, 5, 0, 5]
    joined = ConcatDataset([plain, other, plain])
    numbers = ImageNumbers(joined)
    assert numbers.num_images == 10 and len(joined) == 16
    assert [numbers.number(i) for i in (0, 5, 6, 9, 10, 15)] == [0, 5, 6, 9, 0, 5]
    assert numbers.number(7, sample_idx=3) == 9  # a replaced image of the second part
    subset = ImageNumbers(Subset(plain, [4, 2, 4]))
    assert subset.num_images == 2 and [subset.number(i) for i in range(3)] == [1, 0, 1]
    images = UniqueImages(Subset(joined, [12, 7]))
    infos = [dataset.get_data_info(index) for dataset, index in map(images.locate, range(2))]
    assert [info['img_path'] for info in infos] == ['train/2', 'val/1']


class Mock:
    """A data set that is no data set of MMEngine."""

    metainfo = dict(classes=('a', 'b'))

    def __init__(self, count=8, pipeline=()):
        self.count = count
        self.seeded = SeededTransforms([FLIP])

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        image = torch.full((3, 8, 8), float(index))
        return dict(inputs=image, data_samples=DataSample().set_gt_label(index % 2))


def test_a_mock_data_set_is_numbered(tmp_path):
    _, seen = run(tmp_path, Mock(), [dict(type='SetEpochHook')])
    assert sorted(number for number, _, _ in seen) == sorted(list(range(8)) * 2)
    model = cli_model()
    found = extract_features(model, build_loader(dict(dataset=Mock(), batch_size=3)))
    assert found['sample_idx'].tolist() == list(range(8))
    assert found['gt_label'].tolist() == [0, 1] * 4


def cli_model():
    from mmpretrain.registry import MODELS

    return MODELS.build(IPIRM)


class Unknown:
    """A wrapper of which nobody knows which images it repeats."""

    metainfo: dict = {}

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return 2 * len(self.dataset)

    def __getitem__(self, index):
        return self.dataset[index // 2]


def test_an_unknown_wrapper_is_refused_where_it_is_ambiguous_only(tmp_path):
    dataset = Unknown(FashionMNIST50(indices=6, pipeline=ONE_VIEW))
    _, seen = run(tmp_path, dataset, [dict(type='SetEpochHook')])
    assert len({image for _, _, image in seen}) > 20
    dataset = Unknown(FashionMNIST50(indices=6, pipeline=TWO_VIEWS))
    with pytest.raises(UserError, match='is a Unknown, in which one sample_idx may stand for sev'):
        run(tmp_path, dataset, [dict(type='PartitionUpdateHook')], model=IPIRM)


def stage_one(path, dataset=None, interval=1, resume=None, hooks=(), batch_size=8, **more):
    given = dict(by_epoch=True, max_epochs=3)
    options = {
        key: more.pop(key) for key in ('by_epoch', 'keep_loaded', 'max_partitions') if key in more
    }
    given.update(more.pop('loop', {}))
    hook = dict(
        type='PartitionUpdateHook', interval=interval, solver=dict(strategy='kmeans'), **options
    )
    return run(
        path,
        dataset or fashion(24, TWO_VIEWS),
        [hook, *hooks],
        model=dict(IPIRM),
        batch_size=batch_size,
        resume=resume,
        **more,
        **given,
    )[0]


def test_partitions_of_a_loop_of_iterations(tmp_path):
    """Every three iterations, or every pass: then as in a loop of epochs, to the last bit."""
    run_ = stage_one(tmp_path / 'i', interval=3, loop=dict(by_epoch=False, max_iters=8))if False else None
    by_iteration = iterations(tmp_path / 'i', interval=3)
    records = sorted((tmp_path / 'i' / 'partitions').glob('*.json'))
    assert [json.loads(record.read_text())['iteration'] for record in records] == [3, 6]
    assert len(by_iteration.model.partitions) == 2 == by_iteration.model.partitions.capacity
    by_pass = iterations(tmp_path / 'p', by_epoch=True)
    by_epoch = stage_one(tmp_path / 'e')
    for name, value in by_epoch.model.state_dict().items():
        if not name.startswith('partitions'):
            assert torch.equal(value, by_pass.model.state_dict()[name]), name
    assert len(by_epoch.model.partitions) == 2
    assert run_ is None


def iterations(path, interval=1, **options):
    """Nine iterations, which are three passes."""
    hook = dict(
        type='PartitionUpdateHook', interval=interval, solver=dict(strategy='kmeans'), **options
    )
    return run(
        path,
        fashion(24, TWO_VIEWS),
        [hook],
        model=dict(IPIRM),
        batch_size=8,
        by_epoch=False,
        max_iters=9,
    )[0]
