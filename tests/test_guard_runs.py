"""The guard and the reports in whole runs, and what the tools refuse."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from helpers import fails_with, run_tool, train_stage_one
from PIL import Image
from test_tool_errors import CONFIG

from ipirm_mm.engine import TolerateReportsHook
from ipirm_mm.visualization.partition_report import partition_warning


def test_a_diverging_training_stops_and_leaves_no_checkpoint(tmp_path):
    finished = train_stage_one(
        tmp_path, 'optim_wrapper.optimizer.lr=1e30', 'train_cfg.max_epochs=1', check=False
    )
    fails_with(
        finished, 'training is stopped in iteration', 'not finite', 'its batch has 64 images: '
    )
    assert not list(tmp_path.glob('*.pth'))


class BrokenBackend:
    """A disk that is full."""

    def add_scalar(self, name, value, step=0):
        raise OSError(28, 'No space left on device')


def test_a_full_disk_for_reports_is_one_warning(tmp_path, capsys):
    logger = logging.Logger('reports')
    said = []
    logger.addHandler(logging.FileHandler('/dev/full'))
    listener = logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())
    logger.addHandler(listener)
    backend = BrokenBackend()
    runner = SimpleNamespace(
        logger=logger, visualizer=SimpleNamespace(_vis_backends=dict(broken=backend))
    )
    TolerateReportsHook().before_run(runner)
    for _ in range(3):
        backend.add_scalar('loss', 1.0)
        logger.warning('a line')
    assert len([text for text in said if 'BrokenBackend cannot write' in text]) == 1
    printed = capsys.readouterr().err
    assert printed.count('/dev/full cannot be written') == 1 and 'Traceback' not in printed


@pytest.mark.slow
def test_pictures_that_cannot_be_written_end_no_training(tmp_path):
    (tmp_path / 'partitions').write_text('a file where the folder would be')
    finished = train_stage_one(tmp_path, 'train_cfg.max_epochs=3')
    said = finished.stdout + finished.stderr
    assert said.count('is found and used, but its report in') >= 1
    assert (tmp_path / 'epoch_3.pth').exists()


@pytest.mark.parametrize(
    'sizes,nmi,words',
    [
        ([50, 50], [], None),
        ([95, 5], [0.2, 0.89], None),
        ([96, 4], [], 'its smallest subset has 4 of 100 images (collapsed'),
        ([0, 60, 40], [0.1], 'its smallest subset has 0 of 100'),
        ([50, 50], [0.1, 0.9], 'it repeats an earlier one (NMI 0.900'),
    ],
)
def test_a_partition_that_adds_little_is_reported(sizes, nmi, words):
    line = partition_warning(2, sizes, nmi)
    assert (line is None) == (words is None)
    if words:
        assert words in line and '\n' not in line


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A small classifier, and its checkpoint with something changed in it."""
    root = tmp_path_factory.mktemp('refused')
    for name in ('cat', 'dog'):
        (root / 'img' / name).mkdir(parents=True)
        for n in range(2):
            Image.new('RGB', (20, 20), (n, 99, 0)).save(root / f'img/{name}/{n}.png')
    text = CONFIG.format(root=root)
    (root / 'good.py').write_text(text)
    changes = dict(
        no_model=("model = dict(type='ImageClassifier'", "other = dict(type='ImageClassifier'"),
        large_batch=('batch_size=2', 'batch_size=64'),
        text_batch=('batch_size=2', "batch_size='2'"),
        text_epochs=('max_epochs=1', "max_epochs='1'"),
        no_epochs=('max_epochs=1', 'max_epochs=0'),
        negative_rate=('lr=0.1', 'lr=-0.1'),
        no_rate=('lr=0.1', "lr=float('nan')"),
        channels=('in_channels=16', 'in_channels=17'),
        deviation=('[60.0]', '[0.0]'),
        size=('scale=16', 'scale=0'),
        not_packed=(", dict(type='PackInputs')", ''),
        metric=("dict(type='Accuracy')", "dict(type='Accuracy', topk=(5,))"),
        exits=("default_scope = 'mmpretrain'", 'raise SystemExit(0)'),
    )
    for name, (old, new) in changes.items():
        assert old in text
        (root / f'{name}.py').write_text(text.replace(old, new))
    run_tool('tools/train.py', root / 'good.py', '--work-dir', root / 'work')
    good = torch.load(root / 'work/epoch_1.pth', weights_only=True)
    state = good['state_dict']
    heads = [key for key in state if key.startswith('head')]
    changed = dict(
        nan=dict(good, state_dict={**state, heads[0]: state[heads[0]] * float('nan')}),
        no_head=dict(good, state_dict={k: v for k, v in state.items() if k not in heads}),
        weights=dict(state_dict=state),
        words=dict(good, state_dict=dict.fromkeys(state, 'x')),
        numbers=dict(good, state_dict={1: torch.zeros(1)}),
        tensor=torch.zeros(3),
    )
    for name, content in changed.items():
        torch.save(content, root / f'{name}.pth')
    return root


RESUME = ('train', 'good.py', '--cfg-options', 'train_cfg.max_epochs=2', '--resume')
REFUSED = {
    'nothing': (
        (('train', 'large_batch.py'), 'batch_size is 64, but there are only 4 training images'),
        (('test', 'good.py', '@/no_head.pth'), 'it lacks head.fc.weight'),
        ((*RESUME, '@/no_head.pth'), 'cannot be resumed, because it is not of this model'),
    ),
    'more': (
        (('train', 'no_rate.py'), 'training is stopped in iteration 2'),
        (('test', 'good.py', '@/nan.pth'), 'that are not finite (NaN or infinite)'),
        (('train', 'no_model.py'), 'no_model.py has no model'),
        (('test', 'no_model.py', '@/nan.pth'), 'no_model.py has no model'),
        (('train', 'good.py', '--cfg-options', 'model=3'), 'has model=3'),
        (('train', 'good.py', '--cfg-options', 'train_cfg=x'), 'must be a dict of settings'),
        (('train', 'text_batch.py'), 'the data loader (train_dataloader'),
        (('train', 'text_epochs.py'), "train_cfg.max_epochs must be a whole number, but is '1'"),
        (('train', 'no_epochs.py'), 'train_cfg.max_epochs must be at least 1, but is 0'),
        (('train', 'negative_rate.py'), 'optim_wrapper of the config cannot be used'),
        (('train', 'channels.py'), 'the layers of the model do not fit'),
        (('train', 'deviation.py'), 'training is stopped in iteration 1'),
        (('train', 'size.py'), 'Resize of the pipeline fails'),
        (('train', 'not_packed.py'), "the pipeline gives no 'inputs'"),
        (('train', 'metric.py'), 'val_evaluator or test_evaluator'),
        (('train', 'exits.py'), 'cannot be read: SystemExit'),
        (('train', 'good.py', '--launcher', 'slurm'), 'needs the variable SLURM_PROCID'),
        (('train', 'good.py', '--amp'), 'needs an accelerator'),
        ((*RESUME, '@/nan.pth'), 'that are not finite'),
        ((*RESUME, '@/weights.pth'), 'but not the epoch and iteration of a training'),
        ((*RESUME, '@/words.pth'), 'none of the weights'),
        ((*RESUME, '@/numbers.pth'), 'none of the weights'),
        ((*RESUME, '@/tensor.pth'), 'it holds a Tensor'),
        (('publish_model', 'good.py', '@/nan.pth'), 'that are not finite'),
        (('publish_model', 'good.py', '@/no_head.pth'), 'it lacks head.fc.weight'),
    ),
}


@pytest.mark.parametrize(
    'part', [REFUSED['nothing'], pytest.param(REFUSED['more'], marks=pytest.mark.slow)]
)
def test_what_cannot_be_meant_is_refused(trained, tmp_path, part):
    for (tool, config, *given), message in part:
        words = [word.replace('@', str(trained)) for word in given]
        where = ('--out',) if tool == 'publish_model' else ('--work-dir',)
        work = tmp_path / 'work'
        finished = run_tool(
            f'tools/{tool}.py', trained / config, *words, *where, work, check=False
        )
        fails_with(finished, message)
        assert not list(work.rglob('*.part')) and not list(work.rglob('epoch_2.pth'))


def test_another_batch_size_is_said_on_resume(trained, tmp_path):
    finished = run_tool(
        'tools/train.py',
        trained / 'good.py',
        *('--work-dir', tmp_path, '--resume', trained / 'work/epoch_1.pth', '--cfg-options'),
        *('train_cfg.max_epochs=2', 'train_dataloader.batch_size=4'),
    )
    said = finished.stdout + finished.stderr
    assert 'trained with train_dataloader.batch_size=2, and the run is resumed with 4' in said
