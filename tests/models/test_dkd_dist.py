"""DKD and DIST within a distilling classifier: targets, labels, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from ipirm_mm.errors import UserError
from ipirm_mm.functional import dist_loss, dkd_loss
from ipirm_mm.models.utils import single_labels

LABELS = (3, 0, 1, 3)


def network(head='LinearClsHead', classes=4, **options):
    return dict(
        type='ImageClassifier',
        backbone=dict(type='SmallConvNet', channels=(8, 16)),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type=head, num_classes=classes, in_channels=16),
        **options,
    )


NETWORK = network()


def distiller(losses, teachers=(NETWORK,), student=None, **options):
    """A student whose teachers have random weights; no checkpoint is read."""
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            copy.deepcopy(student or network()),
            type='DistillingClassifier',
            teacher=[dict(model=copy.deepcopy(one), checkpoint='none') for one in teachers],
            distill_losses=losses,
            **options,
        )
    )
    for frozen in model.beside:
        frozen.loaded = True
        nn.init.normal_(frozen.network.head.fc.weight)
    return model.train()


def images(count=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, 28, 28, generator=generator)


def samples(labels=LABELS):
    return [DataSample().set_gt_label(label) for label in labels]


FUNCTIONS = {
    'DKD': lambda s, t: dkd_loss(s, t, torch.tensor(LABELS), 2.0, 3.0, 1.5),
    'DIST': lambda s, t: dist_loss(s, t, 2.0, 3.0, 1.5),
}
OPTIONS = {
    'DKD': dict(type='DKD', alpha=2.0, beta=3.0, temperature=1.5),
    'DIST': dict(type='DIST', beta=2.0, gamma=3.0, temperature=1.5),
}


@pytest.mark.parametrize('name', FUNCTIONS)
@pytest.mark.parametrize('count', [1, 2])
def test_loss_is_its_function_of_the_logits(name, count):
    """Of several teachers the target is the mean of their probabilities at the temperature."""
    model = distiller(dict(OPTIONS[name], loss_weight=0.5), [network()] * count)
    x = images()
    logits = [frozen(x).logits for frozen in model.beside]
    assert count == 1 or not torch.equal(logits[0], logits[1])
    target = 1.5 * torch.stack([(z / 1.5).softmax(1) for z in logits]).mean(0).log()
    twin = copy.deepcopy(model)
    own = twin.head(twin.extract_feat(x))
    expected = 0.5 * FUNCTIONS[name](own, target)
    losses = model.loss(x, samples())
    torch.testing.assert_close(losses[f'loss_{name.lower()}'], expected)
    losses[f'loss_{name.lower()}'].backward()
    expected.backward()
    for (key, p), (_, q) in zip(model.named_parameters(), twin.named_parameters()):
        assert p.grad.abs().sum() > 0
        torch.testing.assert_close(p.grad, q.grad, msg=key)


@pytest.mark.parametrize('name', FUNCTIONS)
def test_teachers_logits_are_in_the_order_of_the_students_classes(name):
    model = distiller(OPTIONS[name])
    x = images()
    (frozen,) = model.beside
    own_order = frozen(x).logits
    frozen.class_order = torch.tensor([2, 0, 3, 1])
    twin = copy.deepcopy(model)
    expected = FUNCTIONS[name](twin.head(twin.extract_feat(x)), own_order[:, [2, 0, 3, 1]])
    torch.testing.assert_close(model.loss(x, samples())[f'loss_{name.lower()}'], expected)
    assert model.distill_losses[0].compares_classes


@pytest.mark.parametrize('name', FUNCTIONS)
def test_mixed_precision_of_the_networks(name):
    model = distiller(OPTIONS[name])
    with torch.autocast('cpu', torch.bfloat16):
        losses = model.loss(images(), samples())
    loss = losses[f'loss_{name.lower()}']
    assert loss.dtype == torch.float32 and torch.isfinite(loss)
    whole = distiller(OPTIONS[name]).loss(images(), samples())[f'loss_{name.lower()}']
    torch.testing.assert_close(loss, whole, rtol=0.1, atol=0.02)


def test_mixed_images_go_with_dist_but_not_with_dkd():
    mixed = dict(
        train_cfg=dict(augments=dict(type='Mixup', alpha=0.2)),
        data_preprocessor=dict(num_classes=4),
    )
    model = distiller(dict(type='DIST'), **copy.deepcopy(mixed))
    data = model.data_preprocessor(dict(inputs=images(), data_samples=samples()), training=True)
    assert torch.isfinite(model.loss(**data)['loss_dist'])
    with pytest.raises(UserError, match='DKD needs the class of each image, but.*Mixup'):
        distiller(dict(type='DKD'), **copy.deepcopy(mixed))
    # A hook that begins to mix later, such as SwitchRecipeHook.
    model = distiller(dict(type='DKD'))
    model.data_preprocessor.batch_augments = nn.Identity()
    with pytest.raises(UserError, match='DKD needs the class of each image'):
        model.train()


def test_classes_of_a_batch():
    assert single_labels(samples()).tolist() == list(LABELS)
    assert single_labels(samples([[1], [2]])).tolist() == [1, 2]
    weighted = samples()
    weighted[2].set_gt_score(torch.tensor([0.5, 0.5, 0.0, 0.0]))
    for bad in (samples([[1, 2], [0]]), samples([[], [0]]), [DataSample()], weighted):
        assert single_labels(bad) is None


def test_dkd_refuses_weights_of_classes_in_the_place_of_labels():
    weighted = [DataSample().set_gt_score(torch.full((4,), 0.25)) for _ in range(4)]
    for sample in weighted:
        sample.set_gt_label(0)
    model = distiller(dict(type='DKD'), data_preprocessor=dict(num_classes=4))
    with pytest.raises(UserError, match='DKD needs the class of each image, but an image of the'):
        model.loss(images(), weighted)


@pytest.mark.parametrize('name', FUNCTIONS)
def test_heads_without_softmax_are_refused(name):
    several = network('MultiLabelLinearClsHead')
    loss = dict(type=name)
    both = f'{name} compares probabilities of one label per image, by softmax, but '
    with pytest.raises(UserError, match=both + r'teacher 1 scores its logits by sigmoid'):
        distiller(loss, [network(), several])
    with pytest.raises(UserError, match=both + r'the student .* by sigmoid .*: use LogitKL'):
        distiller(loss, [several], several)
    with pytest.raises(UserError, match=f'teacher 0 has 5 classes, .* 4: {name} needs the same'):
        distiller(loss, [network(classes=5)])
    encoder = dict(network(), head=None)
    with pytest.raises(UserError, match=f'{name} needs classes, but teacher 0 is an encoder'):
        distiller(loss, [encoder])


@pytest.mark.parametrize(
    'loss,message',
    [
        (dict(type='DKD', alpha=-1), 'DKD.alpha must not be negative, but is -1'),
        (dict(type='DKD', beta=float('nan')), 'DKD.beta must not be negative, but is nan'),
        (dict(type='DKD', temperature=0), 'DKD.temperature must be positive, but is 0'),
        (dict(type='DIST', beta=-2), 'DIST.beta must not be negative'),
        (dict(type='DIST', gamma=-2), 'DIST.gamma must not be negative'),
        (dict(type='DIST', temperature=-2), 'DIST.temperature must be positive'),
        (dict(type='DIST', loss_weight=-2), 'DIST.loss_weight must not be negative'),
    ],
)
def test_bad_options_get_one_sentence(loss, message):
    with pytest.raises(UserError, match=message):
        distiller(loss)


def test_dkd_needs_two_classes():
    one = network(classes=1)
    with pytest.raises(UserError, match='the student has one class: set model.head.num_classes'):
        distiller(dict(type='DKD'), [one], one)
