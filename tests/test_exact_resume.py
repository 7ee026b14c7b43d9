"""Signals and kills by the real tools: the resumed run is the undisturbed one, bit by bit."""

from __future__ import annotations

import pytest
from helpers import (
    MIM,
    ROOT,
    STAGE_ONE,
    checkpoint,
    fails_with,
    fork,
    free_port,
    losses,
    run_python,
    run_tool,
    same_training,
    train_stage_one,
)

ONE_WORKER = ('train_dataloader.num_workers=2', 'train_dataloader.persistent_workers=True')


def with_signal(path, base, **signal):
    """A config whose run gets a signal."""
    path.write_text(
        f'_base_ = [{str(ROOT / base)!r}]\n'
        "custom_imports = dict(imports=['ipirm_mm', 'signal_at'], allow_failed_imports=False)\n"
        "custom_hooks = [*_base_.get('custom_hooks', []), "
        f"dict(type='SignalAt', **{signal!r})]\n"
    )
    return path


@pytest.mark.parametrize(
    'tool,iteration,options',
    [
        # Epoch 3 of 5, after a partition was found; the last step of an epoch before one is.
        ('tools/train.py', 11, ()),
        pytest.param(MIM / 'tools/train.py', 19, ('SIGUSR1',), marks=pytest.mark.slow),
        pytest.param('tools/train.py', 10, ONE_WORKER, marks=pytest.mark.slow),
        pytest.param('tools/train.py', 0, (), marks=pytest.mark.slow),
        pytest.param('tools/train.py', 23, (), marks=pytest.mark.slow),
    ],
    ids=['within an epoch', "MMPretrain's tool, last step", 'workers', 'first', 'last but one'],
)
def test_stage_one_stopped_by_a_signal(stage_one, tmp_path, tool, iteration, options):
    name = 'SIGUSR1' if 'SIGUSR1' in options else 'SIGTERM'
    config = with_signal(tmp_path / 'run.py', STAGE_ONE, iteration=iteration, name=name)
    given = ['train_cfg.max_epochs=5', *(option for option in options if '=' in option)]
    stopped = train_stage_one(tmp_path / 'run', *given, config=config, tool=tool, check=False)
    assert stopped.returncode == {'SIGTERM': 143, 'SIGUSR1': 138}[name], stopped.stderr[-2000:]
    assert 'Traceback' not in stopped.stderr
    file = tmp_path / 'run' / f'iter_{iteration + 1}.pth'
    assert f'{name}: saved {file} after iteration {iteration + 1}' in (
        stopped.stdout + stopped.stderr
    )
    assert (tmp_path / 'run/last_checkpoint').read_text() == str(file)
    train_stage_one(tmp_path / 'run', *given, tool=tool, arguments=['--resume'])
    same_training(checkpoint(tmp_path / 'run', 5), checkpoint(stage_one, 5))
    assert losses(tmp_path / 'run') == losses(stage_one)
    assert not file.exists()  # the checkpoint after the last epoch takes its place


@pytest.mark.slow
def test_a_position_in_another_epoch_is_refused(stage_one, tmp_path):
    config = with_signal(tmp_path / 'run.py', STAGE_ONE, iteration=1)
    train_stage_one(tmp_path / 'run', config=config, check=False)
    given = dict(arguments=['--resume'], check=False)
    finished = train_stage_one(tmp_path / 'run', 'train_dataloader.batch_size=32', **given)
    fails_with(finished, 'saved after 2 of the 5 batches of an epoch, but an epoch has 10 now')


@pytest.mark.slow
def test_two_processes_stop_together(tmp_path):
    """A signal to one of them is enough, and both leave after the same step."""
    config = with_signal(tmp_path / 'run.py', STAGE_ONE, iteration=6, rank=1)
    options = ('train_cfg.max_epochs=3', 'train_dataloader.batch_size=32')

    def train(work_dir, config, status, *arguments):
        common = dict(
            WORLD_SIZE=2, LOCAL_WORLD_SIZE=2, MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port()
        )

        def start(script, *given, **more):
            given = (script, '--launcher', 'pytorch', *given)
            with (
                fork(*given, RANK=0, LOCAL_RANK=0, **common) as first,
                fork(*given, RANK=1, LOCAL_RANK=1, **common) as second,
            ):
                ends = [first(), second()]
            assert [end.returncode for end in ends] == [status] * 2, ends[0].stderr[-3000:]

        train_stage_one(work_dir, *options, config=config, arguments=arguments, start=start)

    train(tmp_path / 'whole', STAGE_ONE, 0)
    train(tmp_path / 'run', config, 143)
    assert (tmp_path / 'run/iter_8.pth').exists()  # known one step after it came
    train(tmp_path / 'run', STAGE_ONE, 0, '--resume')
    same_training(checkpoint(tmp_path / 'run', 3), checkpoint(tmp_path / 'whole', 3))


DROPOUT = """
model = dict(backbone=dict(init_cfg=None), head=dict(
    _delete_=True, type='StackedLinearClsHead', num_classes=10, in_channels=128,
    mid_channels=[16], dropout_rate=0.5,
))
"""


@pytest.mark.slow
def test_dropout_repeats_after_a_signal_and_after_an_evaluation(tmp_path):
    """Draws of a step depend on its number, not on what the process has drawn before."""
    base = tmp_path / 'base.py'
    base.write_text(f'_base_ = [{str(ROOT / "configs/quickstart/supervised.py")!r}]\n' + DROPOUT)
    config = with_signal(tmp_path / 'signal.py', base, iteration=4)
    options = (
        'train_dataloader.dataset.indices=192',
        'train_cfg.max_epochs=3',
        'default_hooks.checkpoint.interval=1',
    )

    def train(work_dir, config, *more, check=True, arguments=()):
        given = ('--work-dir', work_dir, *arguments, '--cfg-options', *options, *more)
        return run_tool('tools/train.py', config, *given, check=check)

    train(tmp_path / 'whole', base, 'train_cfg.val_interval=1')
    assert train(tmp_path / 'run', config, check=False).returncode == 143
    train(tmp_path / 'run', base, arguments=['--resume'])
    same_training(checkpoint(tmp_path / 'run', 3), checkpoint(tmp_path / 'whole', 3))


@pytest.mark.slow
def test_stage_two_stopped_by_a_signal(tmp_path):
    """Student, memories of CRD and constants of the loss go on within an epoch."""
    options = (
        'train_dataloader.dataset.indices=192',
        'train_cfg.max_epochs=3',
        'train_cfg.val_interval=10',
        'model.backbone.init_cfg=None',
        'default_hooks.checkpoint.interval=10',
    )

    def train(name, config, *more, check=True, arguments=()):
        given = ('--work-dir', tmp_path / name, *arguments, '--cfg-options', *options, *more)
        return run_tool('tools/train.py', config, *given, check=check)

    train('teacher', 'configs/quickstart/teacher.py', 'train_cfg.max_epochs=1')
    teacher = f'model.teacher.checkpoint={tmp_path}/teacher/epoch_1.pth'
    base = 'configs/quickstart/student_crd_kl.py'
    config = with_signal(tmp_path / 'signal.py', base, iteration=4)
    train('whole', base, teacher)
    assert train('run', config, teacher, check=False).returncode == 143
    assert (tmp_path / 'run/iter_5.pth').exists()
    train('run', base, teacher, arguments=['--resume'])
    whole, run = checkpoint(tmp_path / 'whole', 3), checkpoint(tmp_path / 'run', 3)
    assert any('memory' in name for name in whole['state_dict'])
    same_training(run, whole)


@pytest.mark.slow
def test_kills_at_random_moments(tmp_path):
    """A few of the kills whose figures are in docs/reliability.md."""
    given = (tmp_path, '--stage-one', 6, '--stage-two', 3, '--seed', 1)
    finished = run_python('tests/kill_runs.py', *given)
    assert '9 kills' in finished.stdout and '9 survived, 0 lost' in finished.stdout
