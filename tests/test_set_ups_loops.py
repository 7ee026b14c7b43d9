"""Loops, data sets and labels of other people's set-ups: the right values, or one sentence."""

from __future__ import annotations

import json
import pickle
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, fails_with, fork_ranks, losses, run_tool
from mmengine.config import Config
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset
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
from ipirm_mm.engine.passes import PassSampler
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import KNNAccuracy, build_loader, extract_features, features

FLIP = dict(type='RandomResizedCrop', scale=8)
PACK = dict(type='PackInputs', meta_keys=('sample_idx', 'img_path'))
ONE_VIEW = [dict(type='SeededTransforms', transforms=[FLIP]), PACK]
TWO_VIEWS = [dict(type='SeededMultiView', num_views=2, transforms=[[FLIP]]), PACK]
IPIRM = dict(
    type='IPIRMSimCLR',
    backbone=dict(type='SmallConvNet', channels=(8, 16)),
    neck=dict(
        type='NonLinearNeck',
        in_channels=16,
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
        images = data_batch['inputs']
        images = torch.stack(images, 1) if isinstance(images, (list, tuple)) else images
        for image, sample in zip(images, data_batch['data_samples']):
            self.seen.append((sample.sample_idx, sample.get('img_path'), image.numpy().tobytes()))


def fashion(count=10, pipeline=ONE_VIEW, split='train'):
    return dict(type='FashionMNIST50', split=split, indices=count, pipeline=pipeline)


def run(
    path,
    dataset,
    hooks,
    model=None,
    batch_size=4,
    sampler=None,
    workers=0,
    resume=None,
    drop_last=False,
    **loop,
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
        drop_last=drop_last,
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
    # Ends workers that live on. Python's collector of cycles would do it some time later, in no
    # useful order: their queues first, and each worker is waited for five seconds in vain.
    runner.train_dataloader._iterator = None
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
@pytest.mark.parametrize('workers', [0, pytest.param(2, marks=pytest.mark.slow)])
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


@pytest.mark.slow
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


def stage_one(path, dataset=None, hooks=(), resume=None, loop=None, **options):
    """Train Stage I on 24 images in batches of 8; ``options`` are those of the hook."""
    hook = dict(type='PartitionUpdateHook', solver=dict(strategy='kmeans'), **options)
    return run(
        path,
        dataset or fashion(24, TWO_VIEWS),
        [hook, *hooks],
        model=dict(IPIRM),
        batch_size=8,
        resume=resume,
        **(loop or dict(by_epoch=True, max_epochs=3)),
    )[0]


ITERATIONS = dict(by_epoch=False, max_iters=9)  # three passes


def test_partitions_of_a_loop_of_iterations(tmp_path):
    """Every three iterations, or every pass: then as in a loop of epochs, to the last bit."""
    by_iteration = stage_one(tmp_path / 'i', interval=4, loop=dict(ITERATIONS))
    records = sorted((tmp_path / 'i' / 'partitions').glob('*.json'))
    assert [json.loads(record.read_text())['iteration'] for record in records] == [4, 8]
    assert len(by_iteration.model.partitions) == 2 == by_iteration.model.partitions.capacity
    by_pass = stage_one(tmp_path / 'p', interval=1, by_epoch=True, loop=dict(ITERATIONS))
    records = sorted((tmp_path / 'p' / 'partitions').glob('*.json'))
    assert [json.loads(record.read_text())['iteration'] for record in records] == [3, 6]
    by_epoch = stage_one(tmp_path / 'e', interval=1, by_epoch=None)
    assert len(by_epoch.model.partitions) == len(by_pass.model.partitions) == 2


def test_both_loops_see_the_same_views(tmp_path):
    hook = dict(type='PartitionUpdateHook', interval=1, solver=dict(strategy='random'))
    seen = [
        run(tmp_path / str(n), fashion(24, TWO_VIEWS), [hook], dict(IPIRM), 8, **loop)[1]
        for n, loop in enumerate((dict(by_epoch=True, max_epochs=3), dict(ITERATIONS)))
    ]
    assert len(seen[0]) == 72 and seen[0] == seen[1]


def test_iterations_as_the_clock_of_a_loop_of_epochs(tmp_path):
    stage_one(tmp_path, interval=4, by_epoch=False)
    records = sorted((tmp_path / 'partitions').glob('*.json'))
    assert [json.loads(record.read_text())['iteration'] for record in records] == [4, 8]


def test_warm_up_counts_passes_in_a_loop_of_iterations(tmp_path):
    weights = []

    class Look(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            weights.append(runner.model.head.current_weight)

    model = dict(IPIRM, head=dict(type='IPIRMContrastiveHead', irm_warmup_epochs=1))
    run(
        tmp_path,
        fashion(24, TWO_VIEWS),
        [dict(type='PartitionUpdateHook', max_partitions=0), Look()],
        model=model,
        batch_size=8,
        by_epoch=False,
        max_iters=5,
    )
    assert weights == [0, 0, 0, 0.2, 0.2]


def resumed(path, name, **more):
    return dict(resume=True, load_from=str(path / name), **more)


def test_a_resumed_loop_of_iterations_goes_on_with_its_partitions(tmp_path):
    whole = stage_one(tmp_path / 'whole', interval=2, loop=dict(ITERATIONS))
    stage_one(tmp_path / 'part', interval=2, loop=dict(ITERATIONS, max_iters=5))
    resume = resumed(tmp_path / 'part', 'iter_5.pth')
    again = stage_one(tmp_path / 'part', interval=2, resume=resume, loop=dict(ITERATIONS))
    assert torch.equal(whole.model.partitions.found, again.model.partitions.found)
    assert len(again.model.partitions) == 4


def test_load_from_starts_a_new_schedule(tmp_path, capfd):
    first = stage_one(tmp_path / '1', interval=1, max_partitions=1)
    found = first.model.partitions.found.clone()
    start = dict(load_from=str(tmp_path / '1' / 'epoch_3.pth'))
    look = LogLevel()
    again = stage_one(tmp_path / '2', interval=1, max_partitions=1, resume=start, hooks=[look])
    assert len(again.model.partitions) == 1
    assert 'load_from: 1 partitions of the checkpoint are dropped' in look.text(tmp_path / '2')
    look = LogLevel()
    other = fashion(30, TWO_VIEWS, 'val')
    given = dict(interval=1, max_partitions=1, keep_loaded=True, resume=start, hooks=[look])
    stage_one(tmp_path / '3', dataset=other, **given)
    assert 'they divide 24 images, and the training set has 30' in look.text(tmp_path / '3')
    kept = stage_one(tmp_path / '4', **given)
    assert len(kept.model.partitions) == 2
    assert torch.equal(kept.model.partitions.found[:1], found)
    # A resume of that run has room for what was kept and for what is found.
    given.update(max_partitions=3, hooks=())
    stage_one(tmp_path / '5', **given)
    given['resume'] = resumed(tmp_path / '5', 'epoch_3.pth')
    longer = stage_one(tmp_path / '5', loop=dict(by_epoch=True, max_epochs=4), **given)
    assert len(longer.model.partitions) == 4
    assert torch.equal(longer.model.partitions.found[:1], found)


class LogLevel(Hook):
    """Let the file of the log have lines of the level INFO."""

    priority = 0

    def before_run(self, runner):
        for handler in runner.logger.handlers:
            handler.setLevel('INFO')
        runner.logger.setLevel('INFO')

    def text(self, path):
        return ''.join(file.read_text() for file in Path(path).glob('*/*.log'))


@pytest.mark.parametrize('update_buffers', [False, True])
def test_averaged_models_have_the_partitions(tmp_path, update_buffers):
    ema = dict(type='EMAHook', update_buffers=update_buffers, momentum=0.1)
    first = stage_one(tmp_path / 'a', interval=1, hooks=[ema])
    path = tmp_path / 'a' / 'epoch_3.pth'
    state = torch.load(path, weights_only=True)
    for part, prefix in (('state_dict', ''), ('ema_state_dict', 'module.')):
        assert int(state[part][f'{prefix}partitions.count']) == 2
        saved = state[part][f'{prefix}partitions.assignments']
        assert torch.equal(saved, first.model.partitions.assignments)
    for resume in (resumed(tmp_path / 'a', 'epoch_3.pth'), dict(load_from=str(path))):
        given = dict(resume=resume, hooks=[ema], keep_loaded=True)
        loop = dict(by_epoch=True, max_epochs=4)
        again = stage_one(tmp_path / 'b', interval=1, loop=loop, **given)
        expected = 3 if 'resume' in resume else 5
        assert len(again.model.partitions) == expected
        assert torch.equal(again.model.partitions.found[:2], first.model.partitions.found)
        state = torch.load(tmp_path / 'b' / 'epoch_4.pth', weights_only=True)
        assert int(state['state_dict']['partitions.count']) == expected


class Rejects(FashionMNIST50):
    """A data set in which the pipeline rejects some images, as with ``ignore_empty``."""

    def prepare_data(self, idx):
        return None if idx in (2, 7) else super().prepare_data(idx)


def test_rejected_images_are_left_out_of_a_partition(tmp_path):
    dataset = Rejects(indices=24, pipeline=TWO_VIEWS)
    look = LogLevel()
    trained = stage_one(tmp_path, dataset=dataset, interval=1, hooks=[look])
    assert trained.model.partitions.found.shape == (2, 24)
    assert 'used 22 of 24 images' in look.text(tmp_path)
    record = json.loads((tmp_path / 'partitions' / 'partition_02.json').read_text())
    assert sum(record['sizes']) == 22
    # The rest is assigned as the solver has it: sizes over the images that were used.
    rows = [index for index in range(24) if index not in (2, 7)]
    sizes = torch.bincount(trained.model.partitions.found[1, rows].long(), minlength=2)
    assert sizes.tolist() == record['sizes']


def test_partitions_of_wrapped_data_sets(tmp_path):
    joined = dict(
        type='ConcatDataset', datasets=[fashion(10, TWO_VIEWS), fashion(14, TWO_VIEWS, 'val')]
    )
    whole = stage_one(tmp_path / 'c', dataset=joined, interval=1)
    assert whole.model.partitions.found.shape == (2, 24)
    assert (tmp_path / 'c' / 'partitions' / 'partition_02.png').is_file()


@pytest.mark.parametrize(
    'loop,message',
    [
        (dict(by_epoch=True, max_epochs=2), 'batch_size is 16, but there are only 10'),
        (dict(by_epoch=False, max_iters=2), 'batch_size is 16, but there are only 10'),
    ],
)
def test_a_run_without_a_step_is_refused_by_the_hooks(tmp_path, loop, message):
    with pytest.raises(UserError, match=message):
        run(
            tmp_path, fashion(), [dict(type='SetEpochHook')], drop_last=True, batch_size=16, **loop
        )
    assert not list(tmp_path.glob('*.pth'))


def test_a_resume_with_nothing_left_is_refused(tmp_path):
    stage_one(tmp_path, interval=1)
    with pytest.raises(UserError, match='after 3 of train_cfg.max_epochs=3: raise it'):
        stage_one(tmp_path, interval=1, resume=resumed(tmp_path, 'epoch_3.pth'))


def test_our_tool_refuses_a_run_without_a_step_before_it_writes(tmp_path):
    options = ('train_dataloader.dataset.indices=100', 'train_dataloader.batch_size=101')
    given = ('--work-dir', tmp_path / 'run', '--cfg-options', *options)
    finished = run_tool('tools/train.py', 'configs/quickstart/simclr.py', *given, check=False)
    fails_with(finished, 'batch_size to at most 100')
    assert not (tmp_path / 'run').exists()


def prepared(changes=None, **flags):
    config = Config.fromfile('configs/quickstart/simclr.py')
    config.train_dataloader.drop_last = False
    for key, value in (changes or {}).items():
        config[key] = value
    cli.prepare_training(config, **flags)
    return config


@pytest.mark.parametrize(
    'changes,flags,message',
    [
        (dict(optim_wrapper=None), dict(amp=True), 'has no optim_wrapper'),
        (dict(train_dataloader=None, train_cfg=None), {}, 'no train_dataloader, train_cfg, so'),
        (dict(auto_scale_lr=None), dict(auto_scale_lr=True), 'base_batch_size, but it is None'),
        (dict(auto_scale_lr=dict(enable=True)), {}, 'base_batch_size, but it is None'),
        (dict(train_cfg=dict(max_epochs=0)), {}, 'max_epochs must be at least 1, but is 0'),
        ({}, dict(amp=True), 'needs an accelerator'),
        (dict(optim_wrapper=dict(type='AmpOptimWrapper')), {}, 'needs an accelerator'),
        (dict(optim_wrapper=dict(type='ApexOptimWrapper')), dict(amp=True), 'it is ApexOptim'),
    ],
)
def test_flags_without_their_sections(changes, flags, message, monkeypatch):
    monkeypatch.setattr(cli, 'get_device', lambda: 'cpu')
    with pytest.raises(UserError, match=message):
        prepared(changes, **flags)


def test_flags_with_their_sections(monkeypatch):
    monkeypatch.setattr(cli, 'get_device', lambda: 'cuda')
    assert prepared(amp=True).optim_wrapper.loss_scale == 'dynamic'
    assert prepared(auto_scale_lr=True).auto_scale_lr == dict(enable=True, base_batch_size=256)


@pytest.mark.parametrize(
    'label,expected',
    [
        (3, 3),
        (np.int64(3), 3),
        (np.array(3), 3),
        (np.array([3]), 3),
        (torch.tensor(3), 3),
        (torch.tensor([3]), 3),
        ([3], 3),
        ((np.uint8(3),), 3),
        ([0, 2], None),
        ([], None),
        (np.array([0.2, 0.8]), None),
        (0.5, None),
        (True, None),
        (None, None),
    ],
)
def test_one_class(label, expected):
    assert one_class(label) == expected


def test_why_images_have_not_one_class_each():
    assert why_not_one_class([None, None]) == 'have no labels'
    assert why_not_one_class([None, 1]) == 'have labels only in part (1 of 2)'
    assert '(1 of 2 images)' in why_not_one_class([1, [0, 2]])


class Labeled(FashionMNIST50):
    """A data set with labels of another form."""

    def __init__(self, form, **kwargs):
        self.form = form
        super().__init__(**kwargs)

    def get_data_info(self, idx):
        info = super().get_data_info(idx)
        label = self.form(info.pop('gt_label'), idx)
        return info if label is None else {**info, 'gt_label': label}


PLAIN = [PACK]


@pytest.mark.parametrize(
    'form,why',
    [
        (lambda label, idx: np.int64(label), None),
        (lambda label, idx: np.array([label]), None),
        (lambda label, idx: torch.tensor([label]), None),
        (lambda label, idx: [label], None),
        (lambda label, idx: [0, 2] if idx % 2 else [1], 'have several labels'),
        (lambda label, idx: label if idx else None, 'have labels only in part (9 of 10)'),
        (lambda label, idx: None, 'have no labels'),
    ],
)
def test_labels_of_every_form(tmp_path, form, why):
    loader = build_loader(dict(dataset=Labeled(form, indices=10, pipeline=PLAIN), batch_size=4))
    found = extract_features(cli_model(), loader)
    if why is None:
        assert found['gt_label'].tolist() == [
            FashionMNIST50().get_data_info(i)['gt_label'] for i in range(10)
        ]
    else:
        assert 'gt_label' not in found and why in found['why_no_label']
    # Stage I uses no label.
    dataset = Labeled(form, indices=10, pipeline=TWO_VIEWS)
    trained = stage_one(tmp_path, dataset=dataset, interval=1)
    assert len(trained.model.partitions) == 2
    record = json.loads((tmp_path / 'partitions' / 'partition_01.json').read_text())
    assert ('bits_about_class' in record) == (why is None)


def test_the_metric_of_neighbors_needs_one_class():
    sample = dict(feature=torch.ones(2), gt_label=torch.tensor([0, 2]))
    with pytest.raises(UserError, match='needs one class per image, but .* have several labels'):
        KNNAccuracy().process(None, [sample])


def test_features_of_joined_data_sets_are_not_merged():
    parts = [
        FashionMNIST50(indices=6, pipeline=PLAIN),
        FashionMNIST50('val', indices=5, pipeline=PLAIN),
    ]
    model = cli_model()
    found = extract_features(model, build_loader(dict(dataset=ConcatDataset(parts), batch_size=4)))
    assert found['num_images'] == 11 and found['sample_idx'].tolist() == list(range(11))
    alone = [extract_features(model, build_loader(dict(dataset=part))) for part in parts]
    for key in ('gt_label', 'features'):
        both = [part[key] if key == 'gt_label' else part[key][0] for part in alone]
        whole = found[key] if key == 'gt_label' else found[key][0]
        torch.testing.assert_close(whole, torch.cat(both))
    balanced = ClassBalancedDataset(parts[0], 0.9)
    found = extract_features(model, build_loader(dict(dataset=balanced)))
    assert len(balanced) > 6 and found['sample_idx'].tolist() == list(range(6))
    fold = KFoldDataset(dict(type='FashionMNIST50', indices=10, pipeline=PLAIN), num_splits=2)
    assert len(extract_features(model, build_loader(dict(dataset=fold)))['sample_idx']) == 5


def test_features_say_how_many_images_were_used(monkeypatch):
    said = []
    monkeypatch.setattr(features, 'print_log', lambda text, **_: said.append(text))
    loader = build_loader(
        dict(dataset=FashionMNIST50(indices=10, pipeline=PLAIN), batch_size=4, drop_last=True)
    )
    found = extract_features(cli_model(), loader)
    assert len(found['sample_idx']) == 8 and found['num_images'] == 10
    assert said[0].startswith('features: used 8 of 10 images; the others were rejected')


def test_loaders_without_what_the_tools_add():
    """No collate_fn, no sampler, and persistent workers without workers."""
    config = dict(
        dataset=fashion(10, PLAIN),
        batch_size=4,
        num_workers=0,
        persistent_workers=True,
        pin_memory=True,
    )
    model = cli_model()
    expected = extract_features(model, build_loader(config))
    listed = build_loader(dict(config, collate_fn=dict(type='pseudo_collate')))
    found = extract_features(model, listed)
    torch.testing.assert_close(found['features'][0], expected['features'][0])
    views = dict(config, dataset=fashion(10, TWO_VIEWS), collate_fn=dict(type='pseudo_collate'))
    assert [len(view) for view in extract_features(model, build_loader(views))['features']] == [
        10,
        10,
    ]


def test_neighbors_in_a_loop_of_iterations(tmp_path):
    plain = dict(dataset=fashion(10, PLAIN), batch_size=4)
    hook = dict(type='KNNHook', interval=2, k=3, bank_dataloader=plain, query_dataloader=plain)
    look = LogLevel()
    stage_one(tmp_path, interval=100, hooks=[hook, look], loop=dict(by_epoch=False, max_iters=5))
    text = look.text(tmp_path)
    assert [f'Iteration {number}: k-NN accuracy' in text for number in range(1, 6)] == [
        False,
        True,
        False,
        True,
        True,
    ]


def crd(path, dataset, resume=None, look=None, **loop):
    teacher = dict(
        type='ImageClassifier',
        backbone=dict(type='SmallConvNet', channels=(8, 16)),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=16),
    )
    weights = path.parent / 'teacher.pth'
    if not weights.exists():
        from mmpretrain.registry import MODELS

        torch.save(dict(state_dict=MODELS.build(teacher).state_dict()), weights)
    model = dict(
        teacher,
        type='DistillingClassifier',
        teacher=dict(model=teacher, checkpoint=str(weights)),
        distill_losses=[dict(type='CRD', feat_dim=4, num_negatives=4)],
    )
    hooks = [dict(type='CRDMemoryHook'), dict(type='SetEpochHook'), *([look] if look else [])]
    return run(path, dataset, hooks, model=model, resume=resume, **loop)[0].model.distill_losses[0]


def test_memories_of_wrapped_data_sets_loops_and_labels(tmp_path):
    """Rows per image of all parts, with labels of NumPy; ``load_from`` begins with new ones."""
    parts = [
        Labeled(lambda label, idx: np.int64(label), split=split, indices=6, pipeline=ONE_VIEW)
        for split in ('train', 'val')
    ]
    loss = crd(tmp_path / 'a', ConcatDataset(parts), by_epoch=False, max_iters=5)
    labels = [part.get_data_info(i)['gt_label'] for part in parts for i in range(6)]
    assert loss.labels.tolist() == labels and int(loss.steps) == 5
    look = LogLevel()
    start = dict(load_from=str(tmp_path / 'a' / 'iter_5.pth'))
    loss = crd(tmp_path / 'b', fashion(8), resume=start, look=look)
    assert len(loss.memory_student) == 8 and int(loss.steps) == 4
    assert 'the memories of CRD in the checkpoint, of 12 images, are' in look.text(tmp_path / 'b')
    several = Labeled(lambda label, idx: [0, 2], indices=6, pipeline=ONE_VIEW)
    with pytest.raises(UserError, match='one class per training image, .* have several labels'):
        crd(tmp_path / 'c', several)


ITERATIONS_CONFIG = """
_base_ = ['{root}/configs/quickstart/ipirm_simclr_report.py']
inner = dict(type='FashionMNIST50', pipeline=_base_.train_pipeline)
train_dataloader = dict(
    batch_size={batch},
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[dict(inner, split='train', indices=50), dict(inner, split='val', indices=40)],
    ),
)
train_cfg = dict(_delete_=True, by_epoch=False, max_iters={iterations}, val_interval=1000)
custom_hooks = [dict(type='PartitionUpdateHook', interval=3, solver=dict(strategy='kmeans'))]
default_hooks = dict(
    logger=dict(interval=1, log_metric_by_epoch=False),
    checkpoint=dict(_delete_=True, type='CheckpointHook', by_epoch=False, interval=4),
)
log_processor = dict(type='LogProcessor', by_epoch=False, window_size=1)
"""


@pytest.mark.slow
def test_a_loop_of_iterations_on_two_processes_and_resumed(tmp_path):
    """Losses and partitions are those of one process without an interruption."""
    states = {}
    for name, batch, start in (('one', 32, run_tool), ('two', 16, fork_ranks)):
        config = tmp_path / f'{name}.py'
        text = ITERATIONS_CONFIG.replace('{root}', str(ROOT)).replace('{batch}', str(batch))
        for iterations, arguments in ((4, ()), (8, ('--resume',))):
            if name == 'one' and iterations == 4:
                continue
            config.write_text(text.replace('{iterations}', str(iterations)))
            given = (config, '--work-dir', tmp_path / name, *arguments)
            if start is run_tool:
                run_tool('tools/train.py', *given[:3])
            else:
                fork_ranks('train', 2, *given)
        states[name] = torch.load(tmp_path / name / 'iter_8.pth', weights_only=True)['state_dict']
    one, two = losses(tmp_path / 'one'), losses(tmp_path / 'two')
    assert len(one) == 8 and one.keys() == two.keys()
    for step, value in one.items():
        assert two[step] == pytest.approx(value, rel=1e-3), step
    found = [state['partitions.assignments'] for state in states.values()]
    assert torch.equal(*found) and found[0].shape == (2, 90)
