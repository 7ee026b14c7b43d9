"""Each wrapper of data sets in each loop, on one process and on two, and resumed half way."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import ROOT, fails_with, fork_ranks, run_tool
from mmpretrain.registry import MODELS

pytestmark = pytest.mark.slow

CONFIG = f"""
_base_ = ['{ROOT}/configs/_base_/default_runtime.py']
custom_imports = dict(imports=['ipirm_mm', 'double_precision', 'watch_ranks'])
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9))
param_scheduler = [dict(type='PolyLR', eta_min=0.01, begin=0, end=4, by_epoch=True)]
default_hooks = dict(
    checkpoint=dict(_delete_=True, type='CheckpointHook'),
    logger=dict(interval=100, log_metric_by_epoch=False),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(_delete_=True, type='UniversalVisualizer', vis_backends=vis_backends)
"""
NET = dict(
    backbone=dict(type='SmallConvNet', channels=(8, 16)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=16),
)
MEANS = dict(mean=[73.0] * 3, std=[90.0] * 3, to_rgb=True)
SIMCLR = dict(
    type='IPIRMSimCLR',
    data_preprocessor=dict(type='DoublePreprocessor', **MEANS),
    backbone=NET['backbone'],
    neck=dict(
        type='NonLinearNeck',
        in_channels=16,
        hid_channels=8,
        out_channels=4,
        norm_cfg=dict(type='GN', num_groups=2),
    ),
    head=dict(type='IPIRMContrastiveHead'),
)
PARTITION_HOOK = dict(type='PartitionUpdateHook', interval=1, solver=dict(strategy='kmeans'))
CRD = dict(type='CRD', feat_dim=4, num_negatives=4)
FLIP = dict(type='RandomResizedCrop', scale=8)
PACK = dict(type='PackInputs', meta_keys=('sample_idx', 'img_path'))
VIEWS = dict(
    stage1=dict(type='SeededMultiView', num_views=2, transforms=[[FLIP]]),
    stage2=dict(type='SeededTransforms', transforms=[FLIP]),
)


def images(pipeline, count=16, split='train'):
    return dict(type='FashionMNIST50', split=split, indices=count, pipeline=pipeline)


def wrap(kind, inner, **options):
    return dict(type=kind, dataset=inner, **options)


def concat(*parts):
    return dict(type='ConcatDataset', datasets=list(parts))


FOLD = dict(fold=1, num_splits=4, seed=1)
# By name: the data set from the pipeline, the number of its images, and that of its items.
DATA_SETS = dict(
    plain=(images, 16, 16),
    indices=(lambda p: images(p, [30, 4, 17, 5, 1, 40, 22, 9, 13, 31, 2, 3]), 12, 12),
    concat=(lambda p: concat(images(p, 9), images(p, 8, 'val')), 17, 17),
    repeat=(lambda p: wrap('RepeatDataset', images(p, 8), times=2), 8, 16),
    balanced=(lambda p: wrap('ClassBalancedDataset', images(p), oversample_thr=0.12), 16, 20),
    kfold=(lambda p: wrap('KFoldDataset', images(p), **FOLD), 12, 12),
    nested=(
        lambda p: wrap(
            'RepeatDataset',
            concat(
                wrap('KFoldDataset', images(p, 8), **FOLD),
                wrap('ClassBalancedDataset', images(p, 5, 'val'), oversample_thr=0.5),
            ),
            times=2,
        ),
        11,
        32,
    ),
    # MMEngine's num_batch_per_epoch: the first images only.
    sliced=(images, 12, 12),
)
EPOCHS = dict(by_epoch=True, max_epochs=4)
ITERATIONS = dict(by_epoch=False, max_iters=8, val_interval=100)
REPEATED = dict(type='RepeatAugSampler', num_repeats=3)
# By name: the loop and its sampler.
LOOPS = dict(
    epochs=(EPOCHS, dict(type='DefaultSampler', shuffle=True)),
    iterations=(ITERATIONS, dict(type='InfiniteSampler', shuffle=True)),
    restarted_iterations=(ITERATIONS, dict(type='DefaultSampler', shuffle=True)),
    repeated_epochs=(EPOCHS, REPEATED),
    repeated_iterations=(ITERATIONS, REPEATED),
)
CASES = [
    *((name, loop) for name in DATA_SETS for loop in ('epochs', 'iterations')),
    *(('plain', loop) for loop in list(LOOPS)[2:]),
]


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.manual_seed(0)
    torch.save(
        dict(state_dict=MODELS.build(dict(type='ImageClassifier', **NET)).state_dict()), path
    )
    return path


def write_config(path, stage, name, loop, world, teacher):
    """Write the config of a run; a global batch has four images, from one process or from two."""
    loop_cfg, sampler = LOOPS[loop]
    by_epoch = loop_cfg['by_epoch']
    if stage == 'stage1':
        model, hooks = SIMCLR, [dict(PARTITION_HOOK, interval=1 if by_epoch else 2)]
    else:
        model = dict(
            NET,
            type='DistillingClassifier',
            data_preprocessor=dict(type='DoubleClsPreprocessor', num_classes=10, **MEANS),
            teacher=dict(model=dict(type='ImageClassifier', **NET), checkpoint=str(teacher)),
            distill_losses=[dict(type='LogitKL', temperature=2.0), CRD],
        )
        hooks = [dict(type='CRDMemoryHook'), dict(type='SetEpochHook')]
    loader = dict(
        batch_size=4 // world,
        num_workers=0,
        sampler=sampler,
        dataset=DATA_SETS[name][0]([VIEWS[stage], PACK]),
    )
    if name == 'sliced':
        loader['num_batch_per_epoch'] = 3
    settings = dict(
        model=model,
        train_dataloader=loader,
        train_cfg=loop_cfg,
        custom_hooks=[*hooks, dict(type='WatchRanksHook')],
    )
    text = CONFIG + ''.join(f'{key} = {value!r}\n' for key, value in settings.items())
    half = 2 if by_epoch else 4
    text += f'default_hooks["checkpoint"].update(interval={half}, by_epoch={by_epoch})\n'
    if not by_epoch:
        text += "log_processor = dict(type='LogProcessor', by_epoch=False)\n"
        text = text.replace('end=4, by_epoch=True', 'end=8, by_epoch=False')
    path.write_text(text)
    return path


def train(config, work_dir, world, *arguments):
    given = (config, '--work-dir', work_dir, *arguments)
    if world == 1:
        run_tool('tools/train.py', *given)
    else:
        fork_ranks('train', world, *given)


def watched(file):
    """What a rank of a run has seen, see tests/data/watch_ranks.py."""
    return torch.load(file, weights_only=True)


def same_bits(one, two):
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert torch.equal(value, two[key]), key


def whole_and_resumed(path, config, loop, world):
    """Train, and train again from the checkpoint half way, which changes nothing at all."""
    unit, last = ('epoch', 4) if LOOPS[loop][0]['by_epoch'] else ('iter', 8)
    train(config, path / 'whole', world)
    saved = torch.load(path / 'whole' / f'{unit}_{last}.pth', weights_only=True)['state_dict']
    ranks = [watched(path / 'whole' / f'rank{rank}_0.pth') for rank in range(world)]
    for whole in ranks:
        # All ranks hold what the first has saved: weights, partitions, memories, counts.
        same_bits(saved, whole['state'])
    train(config, path / 'half', world, '--resume', path / 'whole' / f'{unit}_{last // 2}.pth')
    for rank, whole in enumerate(ranks):
        (file,) = (path / 'half').glob(f'rank{rank}_*.pth')
        again, start = watched(file), int(file.stem.split('_')[1])
        assert 0 < start == len(whole['seen']) // 2
        for key in ('seen', 'losses'):
            assert whole[key][start:] == again[key]
        same_bits(saved, again['state'])
    return ranks


def check_images(path, stage, ranks, num_images):
    """One number per image, from 0 on; a partition has each image once, a memory one row each."""
    numbers = {}
    for rank in ranks:
        for batch in rank['seen']:
            for number, name, _ in batch:
                assert numbers.setdefault(number, name) == name
    assert len(set(numbers.values())) == len(numbers)
    assert set(numbers) <= set(range(num_images))
    state = ranks[0]['state']
    if stage == 'stage1':
        records = sorted((path / 'whole' / 'partitions').glob('*.json'))
        found = state['partitions.assignments']
        assert len(records) == 3 and found.shape == (3, num_images)
        for record, row in zip(records, found):
            sizes = json.loads(record.read_text())['sizes']
            assert sizes == torch.bincount(row.long(), minlength=2).tolist()
            assert sum(sizes) == num_images and min(sizes) > 0
    else:
        for memory in ('student', 'teacher'):
            assert state[f'distill_losses.1.memory_{memory}'].shape == (num_images, 4)
    return numbers


@pytest.mark.parametrize('name,loop', CASES)
@pytest.mark.parametrize('stage', VIEWS)
def test_wrappers(tmp_path, teacher, stage, name, loop):
    """Both processes together see, learn and save what one process does, and each resumes."""
    _, num_images, items = DATA_SETS[name]
    runs = []
    # Two processes once for each wrapper and loop.
    both = (stage == 'stage1') == LOOPS[loop][0]['by_epoch']
    for world in (1, 2) if both else (1,):
        path = tmp_path / str(world)
        path.mkdir()
        config = write_config(path / 'run.py', stage, name, loop, world, teacher)
        ranks = whole_and_resumed(path, config, loop, world)
        numbers = check_images(path, stage, ranks, num_images)
        if loop == 'epochs':
            assert len(numbers) == num_images
            assert len(ranks[0]['seen']) == 4 * -(-items // 4)
        else:
            assert len(ranks[0]['seen']) == (16 if loop == 'repeated_epochs' else 8)
        if 'repeated' in loop:
            # Six images a pass: of a full one three views each, none of them the same.
            first = [
                view for batch in zip(*(rank['seen'][:4] for rank in ranks)) for view in batch
            ]
            views = [view for batch in first for view in batch]
            assert len(views) == 16 and len({number for number, _, _ in views}) == 6
            assert len(set(views)) == 16
        runs.append(ranks)
    if not both:
        return
    (one,), two = runs
    if items % 2 == 0 or loop == 'iterations':  # else a process gets an image twice
        # Rows of the ranks are interleaved, as in the batch of one process.
        batches = zip(*(rank['seen'] for rank in two))
        assert [[view for pair in zip(*batch) for view in pair] for batch in batches] == one[
            'seen'
        ]
        for step, losses in enumerate(one['losses']):
            for key, value in losses.items():
                mean = sum(rank['losses'][step][key] for rank in two) / 2
                assert mean == pytest.approx(value, rel=1e-9), (step, key)
        for key, value in one['state'].items():
            torch.testing.assert_close(two[0]['state'][key], value, rtol=1e-8, atol=1e-10)


# MMEngine's options, by name: the processes, whether the result stays what it is without, options.
OPTIONS = dict(
    accumulated_1=(1, False, dict(accumulative_counts=2)),
    accumulated_2=(2, False, dict(accumulative_counts=2)),
    unused_2=(2, True, dict(find_unused_parameters=True)),
    compiled=(1, True, dict(backend='eager')),
)
WRITTEN = dict(
    accumulative_counts='optim_wrapper.accumulative_counts',
    find_unused_parameters='model_wrapper_cfg.find_unused_parameters',
    backend='compile.backend',
)


@pytest.mark.parametrize('stage', VIEWS)
def test_options_of_mmengine(tmp_path, teacher, stage):
    """Gradients are accumulated on two processes as on one; what only costs time changes nothing."""
    states = {}
    for name, (world, _, options) in dict(plain=(1, True, {}), **OPTIONS).items():
        config = write_config(tmp_path / f'{name}.py', stage, 'plain', 'epochs', world, teacher)
        given = [f'{WRITTEN[key]}={value}' for key, value in options.items()]
        if 'find_unused_parameters' in options:
            given.append('model_wrapper_cfg.type=MMDistributedDataParallel')
        arguments = ('--cfg-options', 'train_cfg.max_epochs=2', *given)
        train(config, tmp_path / name, world, *arguments)
        ranks = [watched(tmp_path / name / f'rank{rank}_0.pth') for rank in range(world)]
        for rank in ranks:
            same_bits(ranks[0]['state'], rank['state'])
        states[name] = ranks[0]['state']
        if stage == 'stage2':  # of each of the eight batches, whenever a step is made
            assert int(states[name]['distill_losses.1.steps']) == 8
    for name, (_, same, _) in OPTIONS.items():
        expected = states['plain' if same else 'accumulated_1']
        for key, value in expected.items():
            torch.testing.assert_close(states[name][key], value, rtol=1e-8, atol=1e-10, msg=key)
    weight = 'backbone.layers.0.conv.weight'
    assert not torch.allclose(states['plain'][weight], states['accumulated_1'][weight], rtol=1e-4)


def test_a_resume_between_accumulated_gradients_says_what_is_lost(tmp_path):
    """MMEngine does not save gradients, so that the weights differ from there on."""
    config = write_config(tmp_path / 'run.py', 'stage1', 'plain', 'iterations', 1, None)
    options = 'default_hooks.checkpoint.interval=3', 'train_cfg.max_iters=6'
    options = ('--cfg-options', 'optim_wrapper.accumulative_counts=2', *options)
    given = (config, '--work-dir', tmp_path / 'run')
    run_tool('tools/train.py', *given, *options)
    whole = watched(tmp_path / 'run' / 'rank0_0.pth')['state']
    again = run_tool('tools/train.py', *given, '--resume', tmp_path / 'run/iter_3.pth', *options)
    resumed = watched(tmp_path / 'run' / 'rank0_3.pth')['state']
    assert 'saved after 3 iterations, 1 after the last step' in again.stdout + again.stderr
    assert any(not torch.equal(whole[key], resumed[key]) for key in whole)


def test_ofd_with_unused_parameters(tmp_path):
    """Connectors, which stand beside the student's forward pass, get their gradients."""
    torch.manual_seed(0)
    net = dict(NET, backbone=dict(NET['backbone'], norm_cfg=dict(type='BN')))
    weights = MODELS.build(dict(type='ImageClassifier', **net)).state_dict()
    torch.save(dict(state_dict=weights), tmp_path / 'teacher.pth')
    config = write_config(
        tmp_path / 'run.py', 'stage2', 'plain', 'epochs', 2, tmp_path / 'teacher.pth'
    )
    changes = dict(distill_losses=[dict(type='OFD', kappa=10)], backbone=net['backbone'])
    text = config.read_text() + f'model.update({changes!r})\n'
    text += "model['teacher']['model'].update(backbone=model['backbone'])\n"
    config.write_text(text + 'del custom_hooks[0]\n')
    states = []
    for options in ((), ('model_wrapper_cfg.find_unused_parameters=True',)):
        options = ('model_wrapper_cfg.type=MMDistributedDataParallel', *options)
        work_dir = tmp_path / str(len(states))
        train(config, work_dir, 2, '--cfg-options', 'train_cfg.max_epochs=2', *options)
        states.append(torch.load(work_dir / 'epoch_2.pth', weights_only=True)['state_dict'])
    same_bits(*states)
    assert not states[0]['distill_losses.0.connectors.0.1.bias'].eq(0).all()


BALANCED = dict(kind='ClassBalancedDataset', oversample_thr=0.5)
REFUSED = dict(
    endless=(dict(sampler=dict(type='InfiniteSampler')), 'the first epoch would never end'),
    too_few=(dict(num_batch_per_epoch=5), 'takes the first 20 items of the data set (batches'),
    fold_of_a_wrapper=(
        dict(dataset=lambda p: wrap('KFoldDataset', concat(images(p), images(p)), **FOLD)),
        'KFoldDataset cannot wrap ConcatDataset, which has no get_subset',
    ),
    balance_of_a_wrapper=(
        dict(dataset=lambda p: wrap(inner=concat(images(p), images(p)), **BALANCED)),
        'ClassBalancedDataset cannot wrap ConcatDataset, which has no get_cat_ids',
    ),
)


@pytest.mark.parametrize('case', REFUSED)
def test_what_has_no_meaning_is_refused_in_one_sentence(tmp_path, case):
    changes, message = REFUSED[case]
    changes = {
        key: value([VIEWS['stage1'], PACK]) if callable(value) else value
        for key, value in changes.items()
    }
    config = write_config(tmp_path / 'run.py', 'stage1', 'plain', 'epochs', 1, None)
    config.write_text(config.read_text() + f'train_dataloader.update({changes!r})\n')
    given = (config, '--work-dir', tmp_path / 'run')
    fails_with(run_tool('tools/train.py', *given, check=False), message)
    assert not list(tmp_path.glob('run/*.pth'))


def test_a_run_is_not_resumed_on_other_first_images(tmp_path, teacher):
    """The number of images of ``num_batch_per_epoch`` depends on the number of processes."""
    for stage, message in (
        ('stage1', 'divide 12 images, but the training set has 8'),
        ('stage2', 'the memories of CRD in the checkpoint are of 12 images, but the training set'),
    ):
        path = tmp_path / stage
        path.mkdir()
        config = write_config(path / 'run.py', stage, 'sliced', 'epochs', 1, teacher)
        options = ('--cfg-options', 'train_cfg.max_epochs=2')
        train(config, path / 'run', 1, *options)
        options = ('--resume', '--cfg-options', 'train_dataloader.num_batch_per_epoch=2')
        given = (config, '--work-dir', path / 'run', *options)
        fails_with(run_tool('tools/train.py', *given, check=False), message)
