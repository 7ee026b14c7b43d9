"""The guard against numbers that are not finite: when it stops, and what it leaves alone."""

from __future__ import annotations

import copy
import re
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.models import BaseClassifier
from mmpretrain.registry import DATASETS, MODELS
from mmpretrain.structures import DataSample
from torch import nn
from torch.utils.data import Dataset

from ipirm_mm.engine import NonFiniteGuardHook
from ipirm_mm.engine.batches import describe_batch
from ipirm_mm.engine.hooks.non_finite_guard_hook import gradient_flag
from ipirm_mm.errors import UserError
from ipirm_mm.utils.finite import find_non_finite

NAN = float('nan')


@DATASETS.register_module()
class GuardedPoints(Dataset):
    """Twelve images of noise, of which some have a pixel that is not finite."""

    metainfo = dict(classes=('a', 'b'))

    def __init__(self, bad=()):
        self.bad = bad

    def __len__(self):
        return 12

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        image = torch.rand(3, 4, 4, generator=generator)
        if index in self.bad:
            image[1, 2, 3] = NAN
        sample = DataSample(metainfo=dict(img_path=f'image_{index}.png', sample_idx=index))
        return dict(inputs=image, data_samples=sample.set_gt_label(index % 2))


@MODELS.register_module()
class GuardedNetwork(BaseClassifier):
    """A network with running statistics; ``wrong`` says what of the third step is not finite."""

    def __init__(self, wrong=None, **kwargs):
        super().__init__(**kwargs)
        self.norm, self.linear = nn.BatchNorm2d(3), nn.Linear(48, 2)
        self.register_buffer('mask', torch.tensor([float('-inf')]))  # finite nowhere, by design
        self.wrong, self.steps = wrong, 0

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.steps += 1
        score = self.linear(self.norm(inputs).flatten(1))
        loss = nn.functional.cross_entropy(
            score, torch.cat([sample.gt_label for sample in data_samples])
        )
        values = dict(loss=loss, penalty=loss.detach())
        if self.steps == 3:
            if self.wrong == 'penalty':
                values['penalty'] = loss.detach() * NAN
            elif self.wrong == 'gradient':  # finite, but its gradient is infinite
                values['loss'] = loss + (self.linear.bias.sum() * 0).sqrt()
            elif self.wrong == 'weights':
                self.linear.weight.data[0, 0] = float('inf')
            elif self.wrong == 'statistics':
                self.norm.running_var.data[1] = NAN
        return values


class Watch(Hook):
    """Keeps the state of the model after each step."""

    def __init__(self):
        self.states = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.states.append(copy.deepcopy(runner.model.state_dict()))


def run(tmp_path, bad=(), wrong=None, epochs=2, by_iter=False, hooks=(), **guard):
    loop = dict(by_epoch=False, max_iters=8) if by_iter else dict(max_epochs=epochs, by_epoch=True)
    runner = Runner(
        model=dict(type='GuardedNetwork', wrong=wrong),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            batch_size=3,
            num_workers=0,
            collate_fn=dict(type='default_collate'),
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(type='GuardedPoints', bad=bad),
        ),
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.1)),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=not by_iter),
            guard=dict(type='NonFiniteGuardHook', **guard),
        ),
        custom_hooks=list(hooks),
        default_scope='mmpretrain',
        randomness=dict(seed=0),
        log_level='WARNING',
        experiment_name=re.sub(r'\W', '_', str(tmp_path)),
    )
    runner.train()
    return runner


def saved(tmp_path):
    """What the checkpoints hold, by their names."""
    return {
        path.stem: torch.load(path, weights_only=True) for path in sorted(tmp_path.glob('*.pth'))
    }


@pytest.mark.parametrize('by_iter', [False, True])
@pytest.mark.parametrize(
    'wrong,message',
    [
        ('penalty', 'iteration 3, because penalty is not finite: its batch has 3 images: '),
        ('gradient', 'iteration 3, because the gradient is not finite: '),
        ('weights', 'iteration (3|4)'),
        ('statistics', 'no checkpoint is written, because state_dict.norm.running_var has values'),
    ],
)
def test_every_kind_of_number_stops_the_training(tmp_path, wrong, message, by_iter):
    with pytest.raises(UserError, match=message) as error:
        run(tmp_path, wrong=wrong, by_iter=by_iter)
    if wrong != 'statistics' and wrong != 'weights':
        assert 'image_6.png, image_7.png, image_8.png' in str(error.value)
    for state in saved(tmp_path).values():
        assert (
            find_non_finite({k: v for k, v in state['state_dict'].items() if k != 'mask'}) is None
        )
        assert find_non_finite(state['optimizer']) is None
    last = f'the last checkpoint is {tmp_path}/iter_2.pth' if by_iter else 'no checkpoint was'
    assert last in str(error.value)


def test_an_image_is_named_that_is_not_finite(tmp_path):
    with pytest.raises(UserError) as error:
        run(tmp_path, bad=(7,))
    expected = 'in iteration 3, because loss, penalty, the gradient are not finite: 1 image: '
    assert expected + 'image_7.png, with pixels' in str(error.value)
    assert not list(tmp_path.glob('*.pth'))


def test_a_finite_training_is_that_without_the_guard(tmp_path):
    guarded = run(tmp_path / 'a').model.state_dict()
    skipping = run(tmp_path / 'b', action='skip').model.state_dict()
    plain = Runner.register_hook
    try:
        Runner.register_hook = lambda self, hook, *args: (
            None
            if isinstance(hook, dict) and hook['type'] == 'NonFiniteGuardHook'
            else plain(self, hook, *args)
        )
        runner = run(tmp_path / 'c')
    finally:
        Runner.register_hook = plain
    assert not any(isinstance(hook, NonFiniteGuardHook) for hook in runner.hooks)
    for key, value in runner.model.state_dict().items():
        assert value.equal(guarded[key]) and value.equal(skipping[key])


@pytest.mark.parametrize('bad', [(7,), (0, 1)])
def test_a_step_that_is_skipped_changes_nothing(tmp_path, bad):
    """Weights and statistics are as before, and so is the optimizer's momentum."""
    watch = Watch()
    run(tmp_path, bad=bad, action='skip', hooks=[watch])
    step = bad[0] // 3
    for number, (before, after) in enumerate(zip(watch.states, watch.states[1:]), 1):
        same = all(before[key].equal(after[key]) for key in before if 'num_batches' not in key)
        assert same == (number % 4 == step)
    final = saved(tmp_path)['epoch_2']
    assert find_non_finite(final['optimizer']) is None
    assert final['message_hub']['log_scalars']['train/skipped_steps'].data[0][-1] == 2


def test_too_many_skips_stop_the_training(tmp_path):
    with pytest.raises(UserError, match='max_skips=3 that were left out in a row'):
        run(tmp_path, bad=range(12), action='skip', max_skips=3)
    run(tmp_path / 'other', bad=range(3, 12), epochs=3, action='skip', max_skips=3)


def test_a_log_value_that_no_skip_mends_stops(tmp_path):
    with pytest.raises(UserError, match='because penalty is not finite'):
        run(tmp_path, wrong='penalty', action='skip')


def test_flags_are_read_late_but_before_a_checkpoint(tmp_path, monkeypatch):
    """As on an accelerator that is behind: no flag has arrived, and no step waits."""
    from ipirm_mm.engine.hooks.non_finite_guard_hook import _Step

    monkeypatch.setattr(_Step, 'arrived', lambda self: False)
    with pytest.raises(UserError, match='in iteration 3, .*image_6.png'):
        run(tmp_path / 'epoch', wrong='penalty')
    with pytest.raises(UserError, match='in iteration 3, .*image_6.png'):
        run(tmp_path / 'iteration', wrong='penalty', by_iter=True)
    assert [path.stem for path in (tmp_path / 'iteration').glob('*.pth')]
    for name, state in saved(tmp_path / 'iteration').items():
        assert state['meta']['iter'] < 3, name


def test_the_gradient_flag_is_right_for_every_type():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for value, expected in ((1.0, False), (NAN, True), (float('-inf'), True), (6e4, False)):
            parameters = [nn.Parameter(torch.ones(5, dtype=dtype)) for _ in range(3)]
            for parameter in parameters[:2]:
                parameter.grad = torch.full_like(parameter, 6e4)
            parameters[1].grad[2] = value
            flag = gradient_flag(torch.optim.SGD(parameters, lr=0.1))
            assert flag.shape == () and bool(flag) == expected, (dtype, value)
    assert gradient_flag(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)) is None


def test_images_are_named_of_two_views_and_without_paths():
    samples = [SimpleNamespace(sample_idx=number) for number in range(10)]
    views = [torch.zeros(10, 3, 2, 2), torch.zeros(10, 3, 2, 2)]
    text = describe_batch(samples, dict(inputs=views))
    assert text.startswith('its batch has 10 images: sample_idx 0, ') and text.endswith(', ...')
    views[1][4, 0] = NAN
    assert describe_batch(samples, dict(inputs=views)).startswith('1 image: sample_idx 4, with')
    lists = [[view[n] for n in range(10)] for view in views]
    assert describe_batch(samples, dict(inputs=lists)).startswith('1 image: sample_idx 4, with')
    assert describe_batch(None) == 'the images of its batch are not known'


@pytest.mark.parametrize('options', [dict(action='go on'), dict(max_skips=0), dict(interval=0)])
def test_bad_options(options):
    with pytest.raises(UserError, match=f'NonFiniteGuardHook.{next(iter(options))} must be'):
        NonFiniteGuardHook(**options)
