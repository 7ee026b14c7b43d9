"""The doctor finds what is planted, and one failing check hides no other."""

from __future__ import annotations

import runpy
import shutil
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import ROOT, SMALL_STAGE_ONE, STAGE_ONE, run_tool, train_stage_one
from mmengine.config import Config, ConfigDict
from mmengine.hooks import CheckpointHook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS, MODELS
from PIL import Image

from ipirm_mm.doctor import Findings, environment, estimates
from ipirm_mm.doctor.building import Setup
from ipirm_mm.doctor.checkpoints import check_checkpoints
from ipirm_mm.doctor.data import check_data
from ipirm_mm.doctor.dry_run import StepTimer
from ipirm_mm.doctor.environment import check_machine, check_packages
from ipirm_mm.doctor.findings import counted, in_units
from ipirm_mm.doctor.images import chosen, dangling_links, file_fault, read_images
from ipirm_mm.doctor.space import check_space
from ipirm_mm.errors import UserError

MODEL = dict(
    type='ImageClassifier',
    backbone=dict(type='SmallConvNet', channels=(8, 16)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=16, topk=(1,)),
)
CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['ipirm_mm'])
data_preprocessor = dict(num_classes=2, mean=[80.0] * 3, std=[60.0] * 3)
model = {model}
pipe = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=16), dict(type='PackInputs')]
train_dataloader = dict(batch_size=4, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root='{root}/train', pipeline=pipe))
val_dataloader = dict(batch_size=4, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root='{root}/val', pipeline=pipe))
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='Accuracy', topk=(1,))
train_cfg = dict(by_epoch=True, max_epochs=3)
val_cfg = test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
param_scheduler = dict(type='CosineAnnealingLR', T_max=3)
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1))
work_dir = '{root}/work'
"""


@pytest.fixture
def root(tmp_path):
    """Two classes of random images, which are all different, and a config."""
    pixels = np.random.default_rng(0)
    for split, count in (('train', 5), ('val', 2)):
        for name in ('cat', 'dog'):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = Image.fromarray(pixels.integers(0, 255, (20, 24, 3), np.uint8))
                image.save(folder / f'{number}.jpg')
    (tmp_path / 'config.py').write_text(CONFIG.format(root=tmp_path, model=MODEL))
    return tmp_path


def plant(root):
    """Plant a truncated file, an empty one, a link to nothing, and a duplicate."""
    cut = root / 'train/cat/1.jpg'
    cut.write_bytes(cut.read_bytes()[:400])
    (root / 'val/cat/0.jpg').write_bytes(b'')
    (root / 'train/dog/lost.jpg').symlink_to(root / 'nothing.jpg')
    shutil.copy(root / 'train/dog/0.jpg', root / 'val/dog/copy.jpg')


def setup_of(root, loaders=(), model=None, **options):
    """A setup with data sets, as if they had been built, and a model."""
    init_default_scope('mmpretrain')
    values = runpy.run_path(str(root / 'config.py'))  # Config.fromfile takes half a second
    cfg = Config({key: values[key] for key in values if not key.startswith('_')})
    cfg.merge_from_dict(options)
    runner = None
    if model is not None:
        runner = SimpleNamespace(model=model, hooks=[], _load_from=None, _resume=False)
    setup = Setup(cfg, 1, str(root / 'trial'), runner)
    for name in loaders:
        # Serialization collects garbage, for a third of a second.
        dataset = DATASETS.build({**cfg[name].dataset, 'serialize_data': False})
        setup.loaders[name] = torch.utils.data.DataLoader(dataset, 4, collate_fn=list)
    return setup


def lines(findings, level=None):
    return [f.text for f in findings.found if level in (None, f.level)]


def test_a_check_that_fails_does_not_end_the_others(capsys):
    findings = Findings()
    for error in (UserError('set a=1'), UserError('set a=1'), ZeroDivisionError('by zero')):
        with findings.check('part'):
            raise error
    findings.add('ok', 'part', 'good')
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == 'error    part             set a=1'  # once
    assert 'ZeroDivisionError: by zero' in printed[1] and len(printed) == 3
    assert findings.count('error') == 2 and findings.count('ok') == 1


def test_packages_and_processors(monkeypatch):
    findings = Findings()
    check_packages(findings)
    versions, bridges = lines(findings, 'ok')
    assert f'torch {torch.__version__.split("+")[0]}' in versions and 'numpy' in versions
    assert 'labels of NumPy' in bridges
    cfg = ConfigDict(train_dataloader=dict(num_workers=2))
    monkeypatch.setattr(environment, 'available_processors', lambda: 3)
    check_machine(findings, cfg, 1)
    assert findings.count('warning') == 0 and '3 processors' in findings.found[-1].text
    check_machine(findings, cfg, 4)
    assert 'num_workers=1' in lines(findings, 'warning')[-1]


def test_numbers_are_said_in_words():
    assert counted(1, 'class') == '1 class' and counted(1000, 'process') == '1,000 processes'
    assert [in_units(size) for size in (2e3, 3e6, 4.5e9)] == ['2.0 kB', '3.0 MB', '4.5 GB']
    assert [estimates.duration(s) for s in (60, 600, 36000)] == ['60 s', '10 min', '10.0 h']


def test_faults_of_files(root):
    plant(root)
    assert file_fault(str(root / 'train/cat/0.jpg')) == ''
    assert file_fault(str(root / 'train/cat/1.jpg')) == 'is truncated'
    assert file_fault(str(root / 'train/none.jpg')) == 'is missing'
    assert file_fault(str(root / 'train/dog/lost.jpg')) == 'is a link to a file that is not there'
    assert file_fault(str(root / 'train/dog')) == 'is a folder'
    assert file_fault(str(root / 'val/cat/0.jpg')) == 'is empty'


def test_images_are_judged_after_the_pipeline():
    class Data(list):
        pass

    data = Data(
        [
            dict(inputs=torch.ones(3, 4, 4)),
            dict(inputs=[torch.ones(3, 4, 4), torch.full((3, 4, 4), float('nan'))]),
            dict(inputs=torch.ones(3, 0, 4)),
            None,
        ]
    )
    seen = list(read_images(data, range(5), 'images'))
    faults = [one.fault for one in seen]
    assert faults[0] == '' and seen[0].size == 3 * 4 * 4 * 4
    assert 'not finite' in faults[1] and faults[2] == 'has no pixels'
    assert 'rejected' in faults[3] and faults[4] == 'cannot be read'


def test_a_sample_is_the_same_each_time():
    assert chosen(5, None) == chosen(5, 5) == range(5)
    assert chosen(1000, 7) == chosen(1000, 7) and len(set(chosen(1000, 7))) == 7


def test_planted_data_is_found(root):
    plant(root)
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    setup = setup_of(root, loaders, MODELS.build(MODEL))
    findings = Findings()
    check_data(setup, findings, None)
    errors = lines(findings, 'error')
    assert len(errors) == 2
    assert f'1 image is truncated: {root}/train/cat/1.jpg' in errors[0]
    assert f'1 image is empty: {root}/val/cat/0.jpg' in errors[1]
    links, duplicates = lines(findings, 'warning')
    assert f'{root}/train/dog/lost.jpg' in links and f'find {root}/train/dog -xtype l' in links
    assert f'1 of 5 ({root}/val/dog/copy.jpg is {root}/train/dog/0.jpg)' in duplicates
    assert 'the same data as val_dataloader' in lines(findings, 'ok')
    assert '2 classes, with 5 to 5 images each' in lines(findings, 'ok')
    # What follows goes on without the broken images.
    dataset = setup.loaders['train_dataloader'].dataset
    assert all(dataset[index]['inputs'].shape == (3, 16, 16) for index in range(10))


def test_a_file_that_is_missing_is_found_beside_the_sample(root):
    setup = setup_of(root, ['train_dataloader'])
    for path in (root / 'train').rglob('*.jpg'):
        path.unlink()
    findings = Findings()
    check_data(setup, findings, 3)
    assert '10 images are missing' in ' '.join(lines(findings, 'error'))


@pytest.mark.parametrize(
    ('change', 'level', 'said'),
    [
        (lambda root: shutil.rmtree(root / 'train/dog'), 'error', 'all 5 images have the class 0'),
        (
            lambda root: shutil.copytree(root / 'train/dog', root / 'train/eel'),
            'error',
            'label [2]',
        ),
        (lambda root: None, None, ''),
    ],
)
def test_labels_are_compared_with_the_head(root, change, level, said):
    change(root)
    findings = Findings()
    check_data(setup_of(root, ['train_dataloader'], MODELS.build(MODEL)), findings, None)
    found = [one for one in findings.found if one.level != 'ok']
    assert [one.level for one in found] == ([] if level is None else [level])
    assert all(said in one.text for one in found)


def test_classes_without_images(root):
    model = MODELS.build({**MODEL, 'head': {**MODEL['head'], 'num_classes': 4}})
    findings = Findings()
    check_data(setup_of(root, ['val_dataloader'], model), findings, None)
    assert '2 of 4 classes have no images: 2, 3' in lines(findings, 'warning')[0]


def test_no_links_are_looked_for_where_a_list_names_the_images(root):
    plant(root)
    (root / 'list.txt').write_text('train/cat/0.jpg 0\n')
    init_default_scope('mmpretrain')
    dataset = DATASETS.build(
        dict(type='CustomDataset', data_root=str(root), ann_file='list.txt', pipeline=[])
    )
    assert dangling_links(dataset) == []


def save(root, name, model, without=()):
    state = {k: v for k, v in model.state_dict().items() if k.split('.')[0] not in without}
    torch.save(dict(state_dict=state), root / name)
    return str(root / name)


def test_checkpoints_are_compared_with_the_model(root):
    model = MODELS.build(MODEL)
    wide = MODELS.build({**MODEL, 'backbone': dict(type='SmallConvNet', channels=(16, 16))})
    cut = root / 'cut.pth'
    cut.write_bytes(Path(save(root, 'good.pth', model)).read_bytes()[:900])
    torch.save(dict(other=torch.zeros(3)), root / 'other.pth')
    torch.save(dict(state_dict={}, path=root), root / 'code.pth')  # a type that is not allowed
    given = [
        str(root / 'good.pth'),
        save(root, 'headless.pth', model, ['head']),
        save(root, 'wide.pth', wide),
        str(root / 'none.pth'),
        str(cut),
        str(root / 'other.pth'),
        str(root / 'code.pth'),
    ]
    findings = Findings()
    check_checkpoints(setup_of(root, model=model), findings, given)
    good, headless, wide_one, none, truncated, other, code = findings.found
    assert good.level == 'ok' and 'the head too' in good.text
    assert headless.level == 'warning' and 'the head is not loaded' in headless.text
    assert wide_one.level == 'error' and '(16,' in wide_one.text and '(8,' in wide_one.text
    assert none.level == 'error' and 'there is no checkpoint' in none.text
    assert truncated.level == 'error' and 'truncated' in truncated.text
    assert code.level == 'error' and 'could run code' in code.text
    assert other.level == 'error' and 'does not fit ImageClassifier' in other.text


def test_what_a_model_starts_from_is_checked(root):
    path = save(root, 'wide.pth', MODELS.build(MODEL).backbone)
    backbone = {**MODEL['backbone'], 'init_cfg': dict(type='Pretrained', checkpoint=path)}
    for checkpoint, level in ((path, 'ok'), (f'{path}x', 'error')):
        backbone['init_cfg']['checkpoint'] = checkpoint
        model = MODELS.build({**MODEL, 'backbone': dict(backbone)})
        setup, findings = setup_of(root, model=model), Findings()
        check_checkpoints(setup, findings, ())
        assert [one.level for one in findings.found] == [level]
        assert findings.found[0].part == 'backbone.init_cfg'
        assert setup.left_random == ([] if level == 'ok' else ['backbone.init_cfg'])


def test_load_from_and_resume_are_checked_as_a_training_does(root):
    model = MODELS.build(MODEL)
    path = save(root, 'weights.pth', model)
    findings = Findings()
    check_checkpoints(setup_of(root, model=model, load_from=path), findings, ())
    assert [one.level for one in findings.found] == ['ok']
    check_checkpoints(setup_of(root, model=model, load_from=path, resume=True), findings, ())
    assert 'cannot be resumed' in findings.found[-1].text
    check_checkpoints(setup_of(root, model=model, resume=True), findings, ())
    assert 'there is no checkpoint in' in findings.found[-1].text


def test_a_full_disk_and_small_shared_memory(root, monkeypatch):
    setup = setup_of(root, ['train_dataloader'], MODELS.build(MODEL))
    loader = setup.loaders['train_dataloader'].dataset
    setup.loaders['train_dataloader'] = torch.utils.data.DataLoader(loader, 4, num_workers=2)
    setup.sample_bytes = 1000
    usage = namedtuple('usage', 'total used free')
    findings = Findings()
    check_space(setup, findings)
    assert [one.level for one in findings.found] == ['ok', 'ok']
    assert '16.0 kB' in findings.found[1].text  # 4 images, 2 workers, 2 batches
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(100, 99, 1))
    setup.runner.hooks.append(CheckpointHook(interval=1, max_keep_ckpts=1))
    check_space(setup, findings)
    disk, shared = findings.found[2:]
    assert disk.level == 'error' and '2 checkpoints' in disk.text and 'work_dir' in disk.text
    assert shared.level == 'error' and '--shm-size' in shared.text
    assert not (root / 'work').exists()


def test_the_first_steps_are_not_timed():
    timer = StepTimer(3)
    timer.times = [0.0, 9.0, 12.0, 13.0, 14.0, 15.0]
    assert timer.seconds() == 1.0
    timer.times = [0.0, 9.0]  # an epoch of one step
    assert timer.seconds() == 9.0
    timer.times = [0.0]
    assert timer.seconds() is None


def test_slow_data_workers_bound_the_steps(root, monkeypatch):
    setup = setup_of(root, ['train_dataloader'], MODELS.build(MODEL))
    setup.runner._val_loop = None
    check_data(setup, Findings(), None)
    loader = setup.loaders['train_dataloader']
    assert 0 < setup.image_seconds < 1
    setup.image_seconds = 0.5
    monkeypatch.setattr(estimates, 'available_processors', lambda: 8)
    for workers, seconds in ((0, 0.0), (1, 2.0), (4, 0.5), (16, 0.25)):
        loader.num_workers = workers
        assert estimates.loading_seconds(setup) == seconds
    findings = Findings()
    estimates.say_time(setup, findings, 0.1, 0)
    assert '0.250 s per step (the data workers need that' in findings.found[0].text


def test_the_tool_finds_all_at_once_and_leaves_nothing(root):
    plant(root)
    before = sorted(root.rglob('*'))
    options = ('param_scheduler.T_max=0', 'optim_wrapper.optimizer.lr=0.01')
    finished = run_tool(
        'tools/check_setup.py',
        *(root / 'config.py', '--steps', 1, '--checkpoint', root / 'none.pth'),
        *('--cfg-options', *options),
        check=False,
    )
    assert finished.returncode == 1 and 'Traceback' not in finished.stderr
    for said in (
        'param_scheduler.T_max is 0',
        'is truncated',
        'is empty',
        'lead to no file',
        'training set too',
        'there is no checkpoint',
        'peak memory',
        's per step',
        '4 errors, 2 warnings',
    ):
        assert said in finished.stdout, finished.stdout
    assert [p for p in sorted(root.rglob('*')) if '__pycache__' not in p.parts] == before


@pytest.mark.parametrize('workers', [1.5, -1, '2', True])
def test_workers_are_a_whole_number(root, workers):
    """A fraction ended in a traceback at the first batch."""
    cfg = setup_of(root).cfg.train_dataloader
    with pytest.raises(UserError, match='num_workers of the data loader of CustomDataset is'):
        Runner.build_dataloader({**cfg, 'num_workers': workers})


def check(config, *given):
    finished = run_tool('tools/check_setup.py', config, *given, check=False)
    assert 'Traceback' not in finished.stderr
    assert not (ROOT / 'work_dirs' / Path(config).stem).exists()
    return finished


@pytest.mark.slow
def test_stage_one_of_the_quickstart():
    finished = check('configs/quickstart/ipirm_simclr.py')
    assert finished.returncode == 0, finished.stdout
    assert '0 errors, 0 warnings' in finished.stdout
    assert '1 partition ' in finished.stdout and 'k-NN' in finished.stdout


@pytest.mark.slow
def test_a_training_that_is_resumed(tmp_path):
    """Its partitions are not taken for those of the dry run."""
    train_stage_one(tmp_path, 'train_cfg.max_epochs=3', 'default_hooks.checkpoint.interval=3')
    path = tmp_path / 'epoch_3.pth'
    options = (*SMALL_STAGE_ONE, f'work_dir={tmp_path}', 'resume=True')
    finished = check(STAGE_ONE, '--checkpoint', path, '--cfg-options', *options)
    assert finished.returncode == 0, finished.stdout
    assert finished.stdout.count('epoch_3.pth: 14 of 14 keys') == 2
    assert 's per step' in finished.stdout
    finished = check(STAGE_ONE, '--cfg-options', *options, 'train_cfg.max_epochs=3')
    assert 'nothing is left to train' in finished.stdout


@pytest.mark.slow
def test_stage_two_of_the_quickstart_without_and_with_its_checkpoints(tmp_path):
    config = 'configs/quickstart/student_ofd.py'
    finished = check(config)
    assert finished.returncode == 1
    assert 'for the teacher: train one' in finished.stdout
    assert 'random weights in the place of: backbone.init_cfg, teacher 0' in finished.stdout
    assert 's per step' in finished.stdout
    init_default_scope('mmpretrain')
    cfg = Config.fromfile(ROOT / 'configs/quickstart/teacher.py')
    cfg.model.backbone.init_cfg = None
    teacher = save(tmp_path, 'teacher.pth', MODELS.build(cfg.model))
    finished = check(
        config,
        *('--gpus', 2, '--cfg-options', f'model.teacher.checkpoint={teacher}'),
        f'model.backbone.init_cfg.checkpoint={teacher}',
    )
    assert finished.returncode == 0, finished.stdout


@pytest.mark.slow
def test_a_config_that_inherits_ours(root):
    """On images of its own, in a loop of iterations."""
    text = f"""
_base_ = ['ipirm_mm::ipirm_simclr_r50.py']
data = dict(data_root='{root}', num_classes=2, per_class=None)
model = dict(backbone=dict(_delete_=True, type='SmallConvNet', channels=(8, 16)),
    neck=dict(in_channels=16, hid_channels=16, out_channels=8, norm_cfg=dict(type='BN1d')))
train_dataloader = dict(batch_size=4, num_workers=2, dataset=data)
val_dataloader = test_dataloader = dict(batch_size=4, num_workers=0, dataset=data)
knn_bank = dict(batch_size=4, dataset=data)
train_cfg = dict(_delete_=True, by_epoch=False, max_iters=9, val_interval=9)
custom_hooks = [dict(type='PartitionUpdateHook', interval=3)]
auto_scale_lr = None
work_dir = '{root}/work'
"""
    (root / 'own.py').write_text(text)
    finished = check(root / 'own.py')
    assert finished.returncode == 0, finished.stdout
    assert '2 partitions' in finished.stdout and '9 steps in all' in finished.stdout
