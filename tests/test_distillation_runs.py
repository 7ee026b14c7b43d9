"""Stage II by the real tools, each run a process, on real images."""

from __future__ import annotations

import json
import re

import pytest
import torch
from helpers import (
    MIM,
    ROOT,
    accuracy,
    checkpoint,
    fails_with,
    fork_ranks,
    launch,
    run_python,
    run_tool,
)
from mmengine.config import Config
from mmpretrain import get_model

# 320 of the 500 labeled images: five steps per epoch, and a checkpoint at the end.
SMALL = (
    'train_dataloader.dataset.indices=320',
    'train_dataloader.batch_size=64',
    'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.interval=10',
    'default_hooks.checkpoint.max_keep_ckpts=-1',
    'train_cfg.val_interval=10',
    'log_processor.type=LogProcessor',
    'log_processor.window_size=1',
)
STUDENTS = ('kl', 'feature_kl', 'ofd', 'ofd_last', 'crd', 'dist', 'dkd', 'crd_kl')


def train(work_dir, config, *options, arguments=(), start=run_tool, **more):
    given = ('--work-dir', work_dir, *arguments, '--cfg-options', *SMALL, *options)
    return start('tools/train.py', config, *given, **more)


@pytest.fixture(scope='session')
def chain(tmp_path_factory):
    """Encoder and teacher, each of few steps; the options that name them."""
    folder = tmp_path_factory.mktemp('chain')
    train(folder / 'encoder', 'configs/quickstart/ipirm_simclr_sum.py', 'train_cfg.max_epochs=1')
    encoder = f'model.backbone.init_cfg.checkpoint={folder}/encoder/epoch_1.pth'
    finished = train(
        folder / 'teacher', 'configs/quickstart/teacher.py', encoder, 'train_cfg.max_epochs=4'
    )
    assert 'SmallConvNet: 18 of 18 keys loaded' in finished.stdout + finished.stderr
    return encoder, f'model.teacher.checkpoint={folder}/teacher/epoch_4.pth'


@pytest.mark.parametrize(
    'student,start',
    [
        # What the launcher adds does not depend on the losses: one start by it is enough.
        ('crd_kl', launch),
        *(pytest.param(student, fork_ranks, marks=pytest.mark.slow) for student in STUDENTS[:-1]),
        *(pytest.param(student, launch, marks=pytest.mark.slow) for student in STUDENTS[:-1]),
    ],
)
def test_two_processes_train_like_one(chain, tmp_path, student, start):
    """Losses, weights and memories over 20 steps, in double precision.

    Group normalization stands in for batch normalization, which on processors is each process's
    own.
    """
    config = tmp_path / 'double.py'
    group_norm = "dict(type='GN', num_groups=8, _delete_=True)"
    text = (
        f'_base_ = [{str(ROOT / f"configs/quickstart/student_{student}.py")!r}]\n'
        "custom_imports = dict(imports=['ipirm_mm', 'double_precision'])\n"
        "data_preprocessor = dict(type='DoubleClsBatchedViews')\n"
        f'model = dict(backbone=dict(init_cfg=None, norm_cfg={group_norm}))\n'
        "custom_hooks = [*_base_.custom_hooks, dict(type='MeanLossHook')]\n"
    )
    if 'ofd' in student:
        text += (
            'model["distill_losses"] = [\n'
            '    {**loss, "norm_cfg": dict(type="GN", num_groups=8)}\n'
            '    for loss in _base_.model.distill_losses\n]\n'
        )
    config.write_text(text)
    options = (chain[1], 'train_cfg.max_epochs=4')
    train(tmp_path / 'one', config, *options)
    given = ('--work-dir', tmp_path / 'two', '--cfg-options', *SMALL, *options)
    start('train', 2, config, *given, 'train_dataloader.batch_size=32')
    one, two = (
        [json.loads(line) for line in (tmp_path / name / 'losses.jsonl').read_text().splitlines()]
        for name in ('one', 'two')
    )
    assert len(one) == 20
    assert one == pytest.approx(two, rel=0, abs=1e-5)
    ours, theirs = (checkpoint(tmp_path / name, 4)['state_dict'] for name in ('one', 'two'))
    assert ours.keys() == theirs.keys()
    assert ('crd' in student) == any('memory' in name for name in ours)
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    'student,resume',
    [
        ('ofd', run_tool),
        pytest.param('crd_kl', run_python, marks=pytest.mark.slow),
        # Without a state of their own.
        *(pytest.param(name, run_tool, marks=pytest.mark.slow) for name in ('kl', 'dkd', 'dist')),
    ],
)
def test_resume_continues_the_run_to_the_last_bit(chain, tmp_path, student, resume):
    config = f'configs/quickstart/student_{student}.py'
    options = ('train_cfg.max_epochs=3', 'default_hooks.checkpoint.interval=2')
    train(tmp_path / 'whole', config, *chain, *options)
    # As if it had been stopped after the second epoch.
    stopped = tmp_path / 'whole' / 'epoch_2.pth'
    train(
        tmp_path / 'part',
        config,
        *chain,
        'train_cfg.max_epochs=3',
        arguments=['--resume', stopped],
        start=resume,
    )
    ours, expected = (checkpoint(tmp_path / name, 3)['state_dict'] for name in ('part', 'whole'))
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(ours[name], value), name


def test_an_encoder_of_stage_one_teaches_without_being_fine_tuned(chain, tmp_path):
    """As the configs `*_stage1_teacher.py` have it; the losses of classes refuse it."""
    encoder = chain[0].split('=')[1]
    config = tmp_path / 'student.py'
    config.write_text(
        f'_base_ = [{str(ROOT / "configs/quickstart/student_feature_kl.py")!r}]\n'
        'model = dict(teacher=dict(\n'
        "    _delete_=True, model='ipirm_mm::quickstart/ipirm_simclr_sum.py',\n"
        f'    checkpoint={encoder!r},\n))\n'
    )
    train(tmp_path / 'run', config, chain[0], 'train_cfg.max_epochs=1')
    lines = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    first = json.loads(next(lines).read_text().splitlines()[0])
    # The student begins as its teacher, whose batch normalization does not move.
    assert 0 < first['loss_feature_kl'] < 10 and first['loss_ce'] > 0
    for loss in ('DKD', 'DIST'):
        options = (chain[0], f'model.distill_losses.0.type={loss}')
        finished = train(tmp_path / loss, config, *options, check=False)
        fails_with(finished, f'{loss} needs classes, but teacher 0 is an encoder without')


def test_published_student_scores_the_same_in_stock_tools(chain, tmp_path):
    config = tmp_path / 'student.py'
    config.write_text(
        f'_base_ = [{str(ROOT / "configs/quickstart/student_crd_kl.py")!r}]\n'
        "custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook')]\n"
    )
    train(tmp_path / 'run', config, *chain, 'train_cfg.max_epochs=2')
    path = tmp_path / 'run' / 'epoch_2.pth'
    state = checkpoint(tmp_path / 'run', 2)['state_dict']
    roots = {name.split('.')[0] for name in state}
    assert roots == {'backbone', 'head', 'distill_losses'}
    tested = run_tool(
        'tools/test.py',
        config,
        path,
        '--work-dir',
        tmp_path / 'test',
        '--cfg-options',
        chain[1],
    )
    out = tmp_path / 'published'
    finished = run_tool('tools/publish_model.py', config, path, '--out', out)
    assert '20 keys' in finished.stdout
    (weights,), (plain,) = out.glob('*.pth'), out.glob('*.py')
    model = get_model(Config.fromfile(plain), device='cpu')
    loaded = torch.load(weights, weights_only=True)['state_dict']
    assert loaded.keys() == model.state_dict().keys()
    stock = run_tool(MIM / 'tools/test.py', plain, weights, '--work-dir', tmp_path / 'stock')
    assert accuracy(stock) == accuracy(tested)
    noise = stock.stdout + stock.stderr
    assert 'missing keys' not in noise and 'unexpected key' not in noise


def test_teacher_accuracy_is_logged(chain, tmp_path):
    config = tmp_path / 'student.py'
    config.write_text(
        f'_base_ = [{str(ROOT / "configs/quickstart/student_kl.py")!r}]\n'
        'model = dict(predict_teacher=True)\n'
        "val_evaluator = [_base_.val_evaluator, dict(type='TeacherAccuracy')]\n"
        'train_cfg = dict(max_epochs=1, val_interval=1)\n'
    )
    finished = train(tmp_path, config, *chain, 'train_cfg.val_interval=1')
    assert re.search(r'teacher/top1: \d', finished.stdout + finished.stderr)


@pytest.mark.parametrize(
    'config,options,message',
    [
        ('student_kl', ['model.teacher.checkpoint='], 'the teacher has no checkpoint'),
        ('student_kl', ['model.teacher.checkpoint=/no.pth'], 'there is no checkpoint /no.pth'),
        ('student_kl', ['model.teacher.model.head.num_classes=7'], 'teacher 0 has 7 classes'),
        ('teacher', ['model.backbone.init_cfg.prefix=neck.'], 'does not fit SmallConvNet'),
        ('student_crd', ['custom_hooks=[]'], "put dict(type='CRDMemoryHook') into custom_hooks"),
    ],
)
def test_bad_input_gets_one_sentence(chain, tmp_path, config, options, message):
    given = chain if config != 'teacher' else chain[:1]
    finished = train(tmp_path, f'configs/quickstart/{config}.py', *given, *options, check=False)
    fails_with(finished, message)


def test_publishing_another_checkpoint_writes_nothing(chain, tmp_path):
    teacher = chain[1].split('=')[1]
    finished = run_tool(
        'tools/publish_model.py',
        'configs/quickstart/ipirm_simclr_sum.py',
        teacher,
        '--out',
        tmp_path / 'out',
        check=False,
    )
    assert finished.returncode != 0 and 'Traceback' not in finished.stderr
    assert not list(tmp_path.rglob('*.pth*'))
