"""Checkpoints against kills, full disks and damage: what is left, and what is resumed."""

from __future__ import annotations

import os
import random
import resource
import signal
import time

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner, loops

from ipirm_mm import engine
from ipirm_mm.engine import ExactResumeHook, newest_checkpoint
from ipirm_mm.errors import UserError
from ipirm_mm.utils import io


class Line(torch.nn.Module):
    """A model of one weight."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def train_step(self, data, optim_wrapper):
        # Draws from all three generators, as dropout and augmentation in a model do.
        noise = torch.rand(()) + np.random.rand() + random.random()
        loss = (self.weight * data.float() - noise).pow(2).mean()
        optim_wrapper.update_params(loss)
        return dict(loss=loss)

    def val_step(self, data):
        return [0]


class Score(Evaluator):
    """An evaluator whose score grows."""

    def __init__(self):
        super().__init__([])
        self.score = 0

    def process(self, **_):
        """Ignore the images."""

    def evaluate(self, size):
        self.score += 1
        return dict(acc=self.score)


def loader(shuffle=True):
    return dict(
        batch_size=2,
        dataset=list(range(1, 9)),
        sampler=dict(type='DefaultSampler', shuffle=shuffle),
        collate_fn=dict(type='default_collate'),
    )


def run(path, epochs=3, resume=False, hooks=(), loop=None, **checkpoint):
    """Train the model of one weight with MMEngine's own hook, four steps per epoch."""
    checkpoint = {'interval': 1, **checkpoint}
    best = 'save_best' in checkpoint
    runner = Runner(
        model=Line(),
        work_dir=str(path),
        train_dataloader=loader(),
        train_cfg=loop or dict(by_epoch=True, max_epochs=epochs, val_interval=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        val_dataloader=loader() if best else None,
        val_cfg=dict() if best else None,
        val_evaluator=Score() if best else None,
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', **checkpoint)),
        custom_hooks=[ExactResumeHook(), *hooks],
        default_scope='mmpretrain',
        experiment_name=f'{path.name}_{time.time_ns()}',
        randomness=dict(seed=0),
        log_level='ERROR',
        resume=resume,
    )
    runner.train()
    return runner


def files(path):
    return sorted(file.name for file in path.glob('*.pth*'))


def in_child(work):
    """Do something in a fork; returns the status, that of a signal as a negative number."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(9)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def die_in(owner, name, at, before=True):
    """Replace a function by one that kills the process at one of its calls."""
    original, calls = getattr(owner, name), [0]

    def function(*args, **kwargs):
        calls[0] += 1
        if before and calls[0] == at:
            die()
        result = original(*args, **kwargs)
        if calls[0] == at:
            die()
        return result

    setattr(owner, name, function)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    """The last checkpoint of a run that nothing disturbs."""
    path = tmp_path_factory.mktemp('whole')
    run(path, max_keep_ckpts=1)
    return torch.load(path / 'epoch_3.pth')


# Each save flushes file and folder and replaces, for the checkpoint and for last_checkpoint; then
# it removes. The second save is the first that can lose something.
SECOND = [*(('fsync', n) for n in range(5, 9)), ('replace', 3), ('replace', 4), ('remove', 1)]
FURTHER = [
    (name, at) for name, last in (('fsync', 12), ('replace', 6)) for at in range(1, last + 1)
]


@pytest.mark.parametrize(
    'name,at,before',
    [
        *((*point, True) for point in SECOND),
        *(pytest.param(*point, False, marks=pytest.mark.slow) for point in (*SECOND, *FURTHER)),
        *(pytest.param(*p, True, marks=pytest.mark.slow) for p in FURTHER if p not in SECOND),
    ],
)
def test_killed_while_it_saves(tmp_path, undisturbed, name, at, before):
    """With one checkpoint kept, a run that is killed at any call of a save resumes exactly."""

    def first():
        die_in(LocalBackend if name == 'remove' else io.os, name, at, before)
        run(tmp_path, max_keep_ckpts=1)

    assert in_child(first) == -signal.SIGKILL
    complete = [file for file in files(tmp_path) if file.endswith('.pth')]
    # Nothing is lost but what the first save had not completed; a part has another name.
    assert complete or (name, at) in (('fsync', 1), ('replace', 1))
    for file in complete:
        assert io.why_damaged(tmp_path / file) is None
    run(tmp_path, resume=True, max_keep_ckpts=1)
    ours = torch.load(tmp_path / 'epoch_3.pth')
    assert torch.equal(ours['state_dict']['weight'], undisturbed['state_dict']['weight'])
    assert torch.equal(
        ours['optimizer']['state'][0]['momentum_buffer'],
        undisturbed['optimizer']['state'][0]['momentum_buffer'],
    )


def test_the_bridges_are_what_keeps_a_checkpoint(tmp_path):
    """Without them MMEngine loses the run at the same kill: the test above can fail."""
    run(tmp_path, epochs=1, max_keep_ckpts=1)

    def again():
        for name in ('_save_checkpoint_with_step', '_save_best_checkpoint'):
            setattr(CheckpointHook, name, getattr(CheckpointHook, name).__wrapped__)
        LocalBackend.put = LocalBackend.put.__wrapped__
        import mmengine.fileio.backends.local_backend as module

        module.open = die
        run(tmp_path, epochs=2, resume=True, max_keep_ckpts=1)

    assert in_child(again) == -signal.SIGKILL
    assert files(tmp_path) == []


def test_the_best_checkpoint_is_kept_until_the_next_best_is_complete(tmp_path):
    best = dict(save_best='acc', rule='greater', max_keep_ckpts=1)
    run(tmp_path / 'a', epochs=2, **best)
    assert files(tmp_path / 'a') == ['best_acc_epoch_2.pth', 'epoch_2.pth']

    def first():
        def save(self, out_dir, filename, *args, **kwargs):
            if filename == 'best_acc_epoch_2.pth':
                die()
            return original(self, out_dir, filename, *args, **kwargs)

        original, Runner.save_checkpoint = Runner.save_checkpoint, save
        run(tmp_path / 'b', epochs=2, **best)

    assert in_child(first) == -signal.SIGKILL
    assert files(tmp_path / 'b') == ['best_acc_epoch_1.pth', 'epoch_2.pth']


@pytest.mark.parametrize('keep', [1, 2, 3])
def test_as_many_are_kept_as_asked_for(tmp_path, keep):
    run(tmp_path, epochs=4, max_keep_ckpts=keep)
    assert files(tmp_path) == [f'epoch_{n}.pth' for n in range(5 - keep, 5)]


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path):
    run(tmp_path, epochs=1, max_keep_ckpts=1)
    size = (tmp_path / 'epoch_1.pth').stat().st_size
    message = tmp_path / 'message'

    def again():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            original = CheckpointHook.before_train

            def limit(hook, *args):
                original(hook, *args)
                resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

            CheckpointHook.before_train = limit
            run(tmp_path, epochs=2, resume=True, max_keep_ckpts=1)
        except UserError as error:
            message.write_text(str(error))
            os._exit(1)

    assert in_child(again) == 1
    assert 'epoch_2.pth' in message.read_text() and 'earlier files are as' in message.read_text()
    assert files(tmp_path) == ['epoch_1.pth']
    assert (tmp_path / 'last_checkpoint').read_text().endswith('epoch_1.pth')
    assert io.why_damaged(tmp_path / 'epoch_1.pth') is None


@pytest.fixture
def trained(tmp_path):
    """A folder with the checkpoints of three epochs."""
    run(tmp_path, max_keep_ckpts=3)
    return tmp_path


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    weight = torch.load(path)['state_dict']['weight'].numpy().tobytes()
    data[data.index(weight) + 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize('damage', [truncate, flip, lambda path: path.write_bytes(b'')])
def test_a_damaged_newest_one_is_named_and_the_one_before_is_used(trained, damage):
    damage(trained / 'epoch_3.pth')
    found, lines = newest_checkpoint(str(trained))
    assert found == str(trained / 'epoch_2.pth')
    assert len(lines) == 2 and f'{trained}/epoch_3.pth is ' in lines[0]
    runner = run(trained, resume=True, max_keep_ckpts=3)
    assert runner.epoch == 3 and newest_checkpoint(str(trained)) == (
        str(trained / 'epoch_3.pth'),
        [],
    )


@pytest.mark.parametrize(
    'record,line',
    [
        (None, 'last_checkpoint is missing: resuming'),
        ('', 'last_checkpoint is empty: resuming'),
        ('\n', 'last_checkpoint is empty: resuming'),
        ('{}/epoch_9.pth', 'epoch_3.pth is there: resuming the latter'),
        ('{}/epoch_1.pth', 'epoch_3.pth was written later: resuming the latter'),
        ('{}/epoch_3.pth', None),
        ('\udcff\x00', 'is there: resuming the latter'),
    ],
)
def test_last_checkpoint_is_no_more_than_a_hint(trained, record, line):
    path = trained / 'last_checkpoint'
    path.unlink()
    if record is not None:
        path.write_bytes(record.format(trained).encode(errors='surrogateescape'))
    found, lines = newest_checkpoint(str(trained))
    assert found == str(trained / 'epoch_3.pth')
    assert [line in text for text in lines] == ([] if line is None else [True])


def test_nothing_left_is_an_error_and_nothing_there_a_new_start(trained, tmp_path_factory):
    for number in (1, 2, 3):
        truncate(trained / f'epoch_{number}.pth')
    with pytest.raises(
        UserError, match='there is no checkpoint to resume in .*epoch_1.pth is tru'
    ):
        run(trained, resume=True)
    for number in (1, 2, 3):
        (trained / f'epoch_{number}.pth').unlink()
    with pytest.raises(UserError, match='names .*epoch_3.pth, which is not there'):
        run(trained, resume=True)
    (trained / 'last_checkpoint').write_text('')
    with pytest.raises(UserError, match='last_checkpoint is empty'):
        run(trained, resume=True)
    empty = tmp_path_factory.mktemp('empty')
    assert newest_checkpoint(str(empty)) == (None, [])
    assert run(empty, resume=True).epoch == 3


def test_an_earlier_training_in_the_folder_is_not_taken_for_the_newest(trained):
    """Its epochs are more, but a new training has begun since."""
    for number in (1, 2, 3):
        file = trained / f'epoch_{number}.pth'
        saved = torch.load(file)
        saved['meta'].update(time=f'20200101_00000{number}', iter=1000 * number)
        torch.save(saved, trained / f'epoch_{100 * number}.pth')
        if number > 1:
            file.unlink()
    assert newest_checkpoint(str(trained))[0] == str(trained / 'epoch_1.pth')


def test_other_folders_and_names_of_checkpoints_are_searched(tmp_path):
    out = tmp_path / 'out'
    given = dict(out_dir=str(out), filename_tmpl='state_{}.pth')
    run(tmp_path / 'run', epochs=1, **given)
    assert files(out / 'run') == ['state_1.pth']
    (tmp_path / 'run/last_checkpoint').unlink()
    assert run(tmp_path / 'run', epochs=2, resume=True, **given).iter == 8
    assert files(out / 'run') == ['state_1.pth', 'state_2.pth']


def test_weights_and_other_files_are_not_resumed(trained):
    torch.save(dict(state_dict={}), trained / 'epoch_7.pth')
    torch.save([1], trained / 'epoch_8.pth')
    (trained / 'epoch_9.pth').write_text('text')
    torch.save(torch.load(trained / 'epoch_3.pth'), trained / 'other.pth')
    found, lines = newest_checkpoint(str(trained))
    assert found == str(trained / 'epoch_3.pth') and len(lines) == 3


def test_bridges_twice_change_nothing_more():
    before = LocalBackend.put, Runner.load_or_resume, CheckpointHook._save_best_checkpoint
    engine.apply_bridges()
    assert before == (
        LocalBackend.put,
        Runner.load_or_resume,
        CheckpointHook._save_best_checkpoint,
    )


class SignalIn(Hook):
    """Send a signal to this process in a step."""

    def __init__(self, iteration, number=signal.SIGTERM):
        self.iteration, self.number = iteration, number

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Send it."""
        if runner.iter == self.iteration:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize('iteration', [0, 3, 5])
def test_draws_of_steps_repeat_after_a_signal_and_without_an_evaluation(
    tmp_path, undisturbed, iteration
):
    """The last step of an epoch included; validation draws numbers as well."""
    given = dict(save_best='acc', rule='greater')

    def first():
        try:
            run(tmp_path, hooks=[SignalIn(iteration)], **given)
        except SystemExit as end:
            os._exit(end.code)

    assert in_child(first) == 143
    assert f'iter_{iteration + 1}.pth' in files(tmp_path)
    run(tmp_path, resume=True, **given)
    ours = torch.load(tmp_path / 'epoch_3.pth')
    assert torch.equal(ours['state_dict']['weight'], undisturbed['state_dict']['weight'])
    assert not list(tmp_path.glob('iter_*'))


def test_a_loop_of_iterations_stops_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(loops.time, 'sleep', lambda seconds: None)  # two seconds per pass
    given = dict(by_epoch=False, interval=4)
    loop = dict(by_epoch=False, max_iters=10)
    run(tmp_path / 'whole', loop=dict(loop), **given)

    def first():
        try:
            run(tmp_path / 'run', loop=dict(loop), hooks=[SignalIn(5, signal.SIGUSR1)], **given)
        except SystemExit as end:
            os._exit(end.code)

    assert in_child(first) == 128 + signal.SIGUSR1
    assert files(tmp_path / 'run') == ['iter_4.pth', 'iter_6.pth']
    run(tmp_path / 'run', loop=dict(loop), resume=True, **given)
    one, two = (torch.load(tmp_path / name / 'iter_10.pth') for name in ('whole', 'run'))
    assert torch.equal(one['state_dict']['weight'], two['state_dict']['weight'])


def test_checkpoints_by_iteration_in_a_loop_of_epochs_resume_within_the_epoch(tmp_path):
    """MMEngine would train on the first batches of the epoch twice."""
    given = dict(by_epoch=False, interval=3)
    run(tmp_path / 'whole', **given)
    (tmp_path / 'run').mkdir()
    (tmp_path / 'whole/iter_6.pth').rename(tmp_path / 'run/iter_6.pth')
    assert run(tmp_path / 'run', resume=True, **given).iter == 12
    one, two = (torch.load(tmp_path / name / 'iter_12.pth') for name in ('whole', 'run'))
    assert torch.equal(one['state_dict']['weight'], two['state_dict']['weight'])
