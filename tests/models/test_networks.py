"""Networks of other kinds: input sizes, channels, features, heads, and where gradients arrive."""

from __future__ import annotations

import copy
import types

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import ExponentialMovingAverage
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from mmpretrain.models import (
    HuggingFaceClassifier,
    ImageClassifier,
    ResNet,
    TIMMBackbone,
    TimmClassifier,
)
from mmpretrain.models.utils.sparse_modules import SparseHelper
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample, MultiTaskDataSample
from torch import nn
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from ipirm_mm.errors import UserError
from ipirm_mm.functional import binary_kl_divergence, kl_divergence
from ipirm_mm.models.utils import pool_last, pooled_feature

RESNET = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
POOL = dict(type='GlobalAveragePooling')
LINEAR = dict(type='LinearClsHead', num_classes=4, in_channels=64)


def resnet(head=LINEAR, backbone=RESNET, **options):
    parts = dict(type='ImageClassifier', backbone=backbone, neck=POOL, head=head, **options)
    return copy.deepcopy(parts)


def distiller(losses, teacher=None, student=None, seed=0, **options):
    """A student in training; its teachers have random weights, and no checkpoint is read."""
    torch.manual_seed(seed)
    teachers = teacher if isinstance(teacher, list) else [teacher or resnet()]
    model = MODELS.build(
        dict(
            copy.deepcopy(student or resnet()),
            type='DistillingClassifier',
            teacher=[dict(model=copy.deepcopy(one), checkpoint='none') for one in teachers],
            distill_losses=losses,
            **options,
        )
    )
    for frozen in model.beside:
        frozen.loaded = True
    return model.train()


def samples(labels=(0, 1, 2, 3)):
    return [DataSample().set_gt_label(label) for label in labels]


def images(count=4, channels=3, size=32, seed=0):
    return torch.randn(count, channels, size, size, generator=torch.manual_seed(seed))


def total(losses):
    return sum(value for name, value in losses.items() if 'loss' in name)


# --- input sizes and channels -----------------------------------------------------------------

MIXER = dict(
    type='MlpMixer',
    arch=dict(
        embed_dims=16,
        num_layers=1,
        tokens_mlp_dims=8,
        channels_mlp_dims=16,
    ),
    img_size=48,
    patch_size=16,
)


def mixer():
    return dict(
        type='ImageClassifier',
        backbone=MIXER,
        neck=dict(POOL, dim=1),
        head=dict(LINEAR, in_channels=16),
    )


@pytest.mark.parametrize('loss', ['LogitKL', 'FeatureKL'])
def test_a_teacher_of_one_size_is_run_at_its_size(loss):
    model = distiller(dict(type=loss), mixer())
    losses = model.loss(images(size=48), samples())
    assert all(torch.isfinite(value) for value in losses.values())


def test_images_of_another_size_than_the_teacher_takes_are_refused():
    model = distiller(dict(type='LogitKL'), mixer())
    message = r'the teacher \(MlpMixer\) takes no images of the shape \(3, 64, 64\).*\(3, 48, 48\)'
    with pytest.raises(UserError, match=message):
        model.loss(images(size=64), samples())


def test_networks_without_a_common_size_are_refused_by_name():
    other = mixer()
    other['backbone'] = dict(MIXER, img_size=32)
    with pytest.raises(UserError, match=r'cannot run on the same image; tried .*MlpMixer'):
        distiller(dict(type='LogitKL'), [mixer(), other])
    with pytest.raises(UserError, match='tried 64x64 with'):
        distiller(dict(type='LogitKL'), mixer(), input_size=64)


def test_grey_images():
    grey = resnet(backbone=dict(RESNET, in_channels=1))
    model = distiller(dict(type='LogitKL'), grey, grey)
    assert torch.isfinite(total(model.loss(images(channels=1), samples())))
    with pytest.raises(UserError, match='teacher 0 .ResNet. takes images of 3 channels, but'):
        distiller(dict(type='LogitKL'), resnet(), grey)


def test_the_dry_run_draws_nothing():
    """The weights of the connectors are those of a run in which nothing else was drawn."""
    torch.manual_seed(0)
    MODELS.build(resnet())  # the student
    MODELS.build(mixer())  # the teacher
    expected = nn.Linear(64, 16).weight
    found = distiller(dict(type='FeatureKL'), mixer()).distill_losses[0].connector.weight
    assert torch.equal(found, expected)


# --- features ---------------------------------------------------------------------------------

VIT = dict(
    arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=16),
    img_size=32,
    patch_size=16,
)
TOKENS = {
    'class token': (dict(type='VisionTransformer', out_type='raw', **VIT), lambda x: x[:, 0]),
    'mean of tokens': (
        dict(type='VisionTransformer', out_type='raw', with_cls_token=False, **VIT),
        lambda x: x.mean(1),
    ),
    'MAE': (dict(type='MAEViT', arch='b', img_size=32, patch_size=16), lambda x: x[:, 0]),
    'mixer': (MIXER, lambda x: x.mean(2)),
    'feature map': (
        dict(type='VisionTransformer', out_type='featmap', **VIT),
        lambda x: x.mean((2, 3)),
    ),
    'pooled': (dict(type='VisionTransformer', out_type='cls_token', **VIT), lambda x: x),
    'distilled': (
        dict(type='DistilledVisionTransformer', **VIT),
        lambda x: (x[0] + x[1]) / 2,
    ),
    'distilled, raw': (
        dict(type='DistilledVisionTransformer', out_type='raw', **VIT),
        lambda x: (x[:, 0] + x[:, 1]) / 2,
    ),
}


@pytest.mark.parametrize('name', TOKENS)
def test_tokens_are_pooled_as_the_backbone_means_them(name):
    config, pool = TOKENS[name]
    torch.manual_seed(0)
    model = MODELS.build(dict(type='ImageClassifier', backbone=config)).eval()
    if name == 'MAE':
        model.backbone.forward = lambda x: type(model.backbone).forward(model.backbone, x, None)
    x = images(2, size=48 if name == 'mixer' else 32)
    with torch.no_grad():
        expected = pool(model.backbone(x)[-1])
        torch.testing.assert_close(pooled_feature(model, x), expected)
    assert expected.ndim == 2


class Odd(nn.Module):
    """A backbone that declares nothing about its features."""

    def __init__(self, feature):
        super().__init__()
        self.feature = feature

    def forward(self, x):
        return (self.feature,)


@pytest.mark.parametrize(
    'feature,message',
    [
        (torch.zeros(2, 5, 7), r'of Odd have the shape \(2, 5, 7\): which axis is which'),
        ([torch.zeros(2, 5), torch.zeros(2, 5)], 'last output of Odd has 2 parts'),
        (dict(a=torch.zeros(2, 5)), r"Odd gives a dict of features with \['a'\]"),
    ],
)
def test_features_that_nothing_is_known_about_are_refused(feature, message):
    model = ImageClassifier(backbone=Odd(feature))
    with pytest.raises(UserError, match=message):
        pooled_feature(model, images(2))


def test_pairs_and_dicts():
    rows, patches = torch.rand(2, 5), torch.rand(2, 5, 3, 3)
    odd = Odd(None)
    assert torch.equal(pool_last(([patches, rows],), odd), rows)
    assert torch.equal(pool_last(dict(pooler_output=rows, last_hidden_state=patches), odd), rows)
    conformer = MODELS.build(dict(type='Conformer', arch='tiny'))
    other = torch.rand(2, 3)
    assert torch.equal(pool_last(([rows, other],), conformer), torch.cat([rows, other], 1))


def test_sparse_backbones_see_whole_images():
    """Not what the mask of the last training batch leaves of them."""
    torch.manual_seed(0)
    sparse = ImageClassifier(backbone=dict(type='SparseResNet', depth=50)).eval()
    dense = ImageClassifier(backbone=dict(type='ResNet', depth=50)).eval()
    dense.load_state_dict(sparse.state_dict())
    x = images(2, size=64)
    with torch.no_grad():
        expected = pooled_feature(dense, x)
        for mask in (None, torch.zeros(2, 1, 2, 2, dtype=torch.bool)):
            SparseHelper._cur_active = mask
            torch.testing.assert_close(pooled_feature(sparse, x), expected)
            assert SparseHelper._cur_active is mask
    SparseHelper._cur_active = None


class FakeTimm(nn.Module):
    """What a network of timm offers: ``forward_features`` that are not pooled, a classifier."""

    num_prefix_tokens, num_features = 1, 12

    def __init__(self, classes=4):
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 16, 16)
        self.head = nn.Linear(12, classes) if classes else nn.Identity()

    def get_classifier(self):
        return self.head

    def forward_features(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        return torch.cat([tokens.square().mean(1, keepdim=True), tokens], 1)

    def forward(self, x):
        return self.head(self.forward_features(x)[:, 0])


class FakeHuggingFace(nn.Module):
    """What a network of Hugging Face offers: outputs with names, one called ``logits``."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Conv2d(3, 12, 16, 16)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))

    def forward(self, x):
        pooled = self.encoder(x).mean((2, 3), keepdim=True)
        return types.SimpleNamespace(logits=self.classifier(pooled))


def wrapped(kind, network):
    """A wrapper of MMPretrain around a network, where timm and transformers are not installed."""
    model = kind.__new__(kind)
    super(kind, model).__init__(data_preprocessor=dict(type='ClsDataPreprocessor'))
    model.model = network
    model.loss_module = nn.CrossEntropyLoss()
    model._register_state_dict_hook(kind._remove_state_dict_prefix)
    model._register_load_state_dict_pre_hook(kind._add_state_dict_prefix)
    return model


@MODELS.register_module()
def wrapped_timm(classes=4):
    return wrapped(TimmClassifier, FakeTimm(classes))


@MODELS.register_module()
def wrapped_hugging_face():
    return wrapped(HuggingFaceClassifier, FakeHuggingFace())


@pytest.mark.parametrize('name', ['wrapped_timm', 'wrapped_hugging_face'])
def test_classifiers_of_timm_and_hugging_face_teach(name, tmp_path):
    torch.manual_seed(3)
    original = MODELS.build(dict(type=name)).eval()
    path = tmp_path / 'teacher.pth'
    torch.save(original.state_dict(), path)
    assert not any(key.startswith('model.') for key in original.state_dict())
    model = distiller([dict(type='LogitKL'), dict(type='FeatureKL')], dict(type=name))
    (frozen,) = model.beside
    frozen.checkpoint, frozen.loaded = str(path), False
    x = images(size=32)
    model.loss(x, samples())
    outputs = frozen(x)
    with torch.no_grad():
        torch.testing.assert_close(outputs.logits, original(x))
        if name == 'wrapped_timm':
            expected = original.extract_feat(x)[:, 0]
        else:
            expected = original.model.encoder(x).mean((2, 3))
        torch.testing.assert_close(outputs.feature, expected)
        torch.testing.assert_close(pooled_feature(original, x), expected)


def test_a_timm_encoder_has_no_classes_and_its_backbones_are_pooled_by_what_they_declare():
    encoder = dict(type='wrapped_timm', classes=0)
    with pytest.raises(UserError, match='teacher 0 is an encoder without a classifier'):
        distiller(dict(type='LogitKL'), encoder)
    assert (
        distiller(dict(type='FeatureKL'), encoder).distill_losses[0].connector.out_features == 12
    )
    backbone = TIMMBackbone.__new__(TIMMBackbone)
    nn.Module.__init__(backbone)
    backbone.timm_model = FakeTimm()
    tokens = torch.rand(2, 5, 12)
    assert torch.equal(pool_last((tokens,), backbone), tokens[:, 0])
    backbone.timm_model.num_prefix_tokens = 0
    assert torch.equal(pool_last((tokens,), backbone), tokens.mean(1))
    with pytest.raises(UserError, match='which axis is which'):
        pool_last((tokens.transpose(1, 2),), backbone)
    backbone.timm_model.output_fmt = 'NHWC'
    maps = torch.rand(2, 3, 3, 12)
    assert torch.equal(pool_last((maps,), backbone), maps.flatten(1, 2).mean(1))


# --- heads ------------------------------------------------------------------------------------

ARC = dict(type='ArcFaceClsHead', num_classes=4, in_channels=64, num_subcenters=2)
HEADS = {
    'linear': LINEAR,
    'stacked': dict(type='StackedLinearClsHead', num_classes=4, in_channels=64, mid_channels=[8]),
    'arc face': ARC,
    'vit': dict(type='VisionTransformerClsHead', num_classes=4, in_channels=64, hidden_dim=8),
    'vig': dict(type='VigClsHead', num_classes=4, in_channels=64, hidden_dim=8),
    'levit': dict(type='LeViTClsHead', num_classes=4, in_channels=64, distillation=False),
    'efficientformer': dict(
        type='EfficientFormerClsHead', num_classes=4, in_channels=64, distillation=False
    ),
    'several labels': dict(type='MultiLabelLinearClsHead', num_classes=4, in_channels=64),
}
TEACHER_HEADS = {
    'levit, distilled': dict(HEADS['levit'], distillation=True),
    'efficientformer, distilled': dict(HEADS['efficientformer'], distillation=True),
}


def scores_of(network, x):
    with torch.no_grad():
        return torch.stack([sample.pred_score for sample in network.predict(x)])


@pytest.mark.parametrize('name', [*HEADS, *TEACHER_HEADS])
def test_logits_are_those_that_predict_uses(name):
    """A student that is its own teacher has no loss, and the logits give the predicted scores."""
    head = {**HEADS, **TEACHER_HEADS}[name]
    student = resnet(head if name in HEADS else LINEAR)
    model = distiller(dict(type='LogitKL'), resnet(head), student, predict_teacher=True)
    (frozen,) = model.beside
    if name in HEADS:
        state = model.state_dict()
        frozen.network.load_state_dict({key: state[key] for key in frozen.network.state_dict()})
    model.eval()
    x = images()
    several = name == 'several labels'
    expected = scores_of(frozen.network, x)
    logits = frozen(x).logits
    torch.testing.assert_close(logits.sigmoid() if several else logits.softmax(1), expected)
    predicted = torch.stack([sample.teacher_score for sample in model.predict(x)])
    torch.testing.assert_close(predicted, expected)
    assert model.distill_losses[0].kind == ('sigmoid' if several else 'softmax')
    labels = samples([[0, 2], [1], [], [0, 1, 3]] if several else (0, 1, 2, 3))
    loss = model.loss(x, labels)['loss_kl']
    if name in HEADS:
        assert abs(float(loss)) < 1e-5
    else:
        own = model.head(model.extract_feat(x))
        torch.testing.assert_close(loss, kl_divergence(own, logits))


def test_conformer_teaches_the_sum_of_its_branches():
    conformer = dict(
        type='ImageClassifier',
        backbone=dict(type='Conformer', arch='tiny'),
        head=dict(type='ConformerHead', num_classes=4, in_channels=[256, 384]),
    )
    model = distiller([dict(type='LogitKL'), dict(type='FeatureKL')], conformer)
    (frozen,) = model.beside
    x = images(1, size=64)
    outputs = frozen(x)
    torch.testing.assert_close(outputs.logits.softmax(1), scores_of(frozen.network, x))
    assert outputs.feature.shape == (1, 256 + 384)


def test_margin_and_several_labels_reach_the_loss():
    """With another teacher: the loss is that of the logits of ``predict``."""
    for head, labels, divergence in (
        (ARC, (0, 1, 2, 3), kl_divergence),
        (HEADS['several labels'], [[0, 2], [1], [], [3]], binary_kl_divergence),
    ):
        model = distiller(dict(type='LogitKL', temperature=2.0), resnet(head), resnet(head))
        x = images()
        twin = copy.deepcopy(model)
        loss = model.loss(x, samples(labels))['loss_kl']
        target = next(iter(model.beside))(x).logits
        own = twin.head(twin.extract_feat(x))
        torch.testing.assert_close(loss, divergence(own, target, 2.0))
        loss.backward()
        assert model.backbone.conv1.weight.grad.abs().sum() > 0


def test_heads_of_different_kinds_need_a_word():
    several = resnet(HEADS['several labels'])
    with pytest.raises(UserError, match='by softmax .* teacher 0 by sigmoid .*: set LogitKL.kind'):
        distiller(dict(type='LogitKL'), several)
    assert distiller(dict(type='LogitKL', kind='sigmoid'), several).distill_losses[0].kind
    with pytest.raises(UserError, match="LogitKL.kind must be one of .* but is 'binary'"):
        distiller(dict(type='LogitKL', kind='binary'))


def test_several_teachers_of_several_labels_are_averaged():
    several = resnet(HEADS['several labels'])
    model = distiller(dict(type='LogitKL'), [several, several], several, predict_teacher=True)
    x = images()
    scores = torch.stack([scores_of(frozen.network, x) for frozen in model.beside]).mean(0)
    model.eval()
    predicted = torch.stack([sample.teacher_score for sample in model.predict(x)])
    torch.testing.assert_close(predicted, scores)
    own = model.head(model.extract_feat(x))
    expected = F.binary_cross_entropy_with_logits(own, scores, reduction='sum') / 4
    entropy = F.binary_cross_entropy(scores, scores, reduction='sum') / 4
    loss = model.loss(x, samples([[0], [1], [2], [3]]))['loss_kl']
    torch.testing.assert_close(loss, expected - entropy, rtol=1e-4, atol=1e-5)


def task_samples():
    found = []
    for label in range(4):
        sample = MultiTaskDataSample()
        for task in ('color', 'shape'):
            sample.set_field(DataSample().set_gt_label(label), task)
        found.append(sample)
    return found


def test_several_tasks_go_with_features_and_not_with_logits():
    tasks = resnet(
        dict(type='MultiTaskHead', in_channels=64, task_heads=dict(color=LINEAR, shape=LINEAR))
    )
    message = r'has a MultiTaskHead, which gives one output per task \(color, shape\)'
    with pytest.raises(UserError, match=f'the student {message}'):
        distiller(dict(type='LogitKL'), student=tasks)
    with pytest.raises(UserError, match=f'teacher 0 {message}'):
        distiller(dict(type='LogitKL'), tasks)
    model = distiller(dict(type='FeatureKL'), tasks, tasks, ce_weight=0.5)
    twin = copy.deepcopy(model)
    losses = model.loss(images(), task_samples())
    plain = twin.head.loss(twin.extract_feat(images()), task_samples())
    for task in ('color', 'shape'):
        torch.testing.assert_close(losses[f'{task}_loss'], 0.5 * plain[f'{task}_loss'])
    assert losses['loss_feature_kl'] > 0
    predicting = distiller(dict(type='FeatureKL'), tasks, predict_teacher=True).eval()
    with pytest.raises(UserError, match=f'predict_teacher is True, but teacher 0 {message}'):
        predicting.predict(images())


def test_a_head_that_cannot_be_trained_is_named():
    model = distiller(dict(type='LogitKL'), student=resnet(TEACHER_HEADS['levit, distilled']))
    with pytest.raises(UserError, match='head LeViTClsHead cannot be trained.*distillation=False'):
        model.loss(images(), samples())


# --- where the gradient arrives ---------------------------------------------------------------


@MODELS.register_module()
class SmoothResNet(ResNet):
    """A ResNet without kinks, so that differences agree with derivatives."""

    def __init__(self, **options):
        super().__init__(**options)
        for module in self.modules():
            if hasattr(module, 'relu'):
                module.relu = nn.Softplus()
        self.maxpool = nn.AvgPool2d(2)


SMOOTH = dict(RESNET, type='SmoothResNet')
ALL_LOSSES = {
    'LogitKL': dict(type='LogitKL', temperature=2.0),
    'FeatureKL': dict(type='FeatureKL'),
    'OFD': dict(type='OFD', kappa=100.0),
    'CRD': dict(type='CRD', num_negatives=5, feat_dim=8),
    'DKD': dict(type='DKD'),
    'DIST': dict(type='DIST'),
}
# They reach the student as LogitKL does, by its logits.
AS_LOGIT_KL = ('DKD', 'DIST')


def smooth_distiller(loss, **backbone):
    teacher = resnet(backbone=dict(SMOOTH, base_channels=16), head=dict(LINEAR, in_channels=128))
    student = resnet(backbone=dict(SMOOTH, **backbone))
    model = distiller(copy.deepcopy(loss), teacher, student, ce_weight=0.0).double()
    generator = torch.Generator().manual_seed(1)
    for frozen in model.beside:
        frozen.double()
    for module in (model, *(frozen.network for frozen in model.beside)):
        for name, value in module.named_parameters():
            if value.ndim == 1 and 'weight' in name:  # gains that no block starts without
                value.data.copy_(0.5 + torch.rand(value.shape, generator=generator))
    for part in model.distill_losses:
        if hasattr(part, 'allocate'):
            part.allocate(torch.arange(8) % 4)
            part.constants.fill_(20.0)
            part._has_constants = True
        for frozen in model.beside:
            part.teacher_loaded(frozen.network)
    return model


def numbered():
    found = samples()
    for index, sample in enumerate(found):
        sample.set_field(index, 'sample_idx', field_type='metainfo')
    return found


def step(model):
    """The training step up to the gradient: what MMEngine sums and derives."""
    value, _ = model.parse_losses(model(images().double(), numbered(), mode='loss'))
    return value


MODES = {
    'plain': ({}, []),
    'with_cp': (dict(with_cp=True), []),
    'two stages recomputed': ({}, ['backbone.layer1', 'backbone.layer4']),
    'backbone recomputed': ({}, ['backbone']),
    'frozen': (dict(frozen_stages=2), []),
    'frozen and recomputed': (dict(frozen_stages=1), ['backbone.layer3', 'head']),
}
COMPILED = {
    'compiled': ({}, []),
    'compiled, with_cp': (dict(with_cp=True), []),
    'compiled, recomputed': ({}, ['backbone.layer1', 'backbone.layer4']),
    'compiled, frozen': (dict(frozen_stages=2), []),
}


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=pytest.mark.slow) if name in AS_LOGIT_KL else name
        for name in ALL_LOSSES
    ],
)
@pytest.mark.parametrize(
    'mode', [*MODES, *(pytest.param(mode, marks=pytest.mark.slow) for mode in COMPILED)]
)
def test_gradients_are_differences(name, mode):
    options, recomputed = {**MODES, **COMPILED}[mode]
    model = smooth_distiller(ALL_LOSSES[name], **options)
    twin = copy.deepcopy(model)  # of the plain network at the same weights
    turn_on_activation_checkpointing(model, recomputed)
    if 'compiled' in mode:
        torch._dynamo.reset()
        model.forward = torch.compile(model.forward, backend='aot_eager')
    if (name, mode) == ('OFD', 'compiled, with_cp'):
        with pytest.raises(UserError, match='torch.compile and with_cp=True'):
            step(model)
        return
    value = step(model)
    value.backward()
    own = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    generator = torch.Generator().manual_seed(2)
    reached = [key for key in own if key.startswith('backbone.')]
    assert reached and all(own[key].abs().sum() > 0 for key in reached)
    assert all(own[key].abs().sum() > 0 for key in own if key.startswith('distill_losses.'))
    if name in ('LogitKL', *AS_LOGIT_KL):
        assert own['head.fc.weight'].abs().sum() > 0
    for part in ('backbone.conv1', 'backbone.layer1', 'backbone.layer4', ''):
        keys = [key for key in own if key.startswith(part)]
        if not keys:  # frozen
            assert 'frozen' in mode
            continue
        direction = {
            key: torch.randn(own[key].shape, generator=generator).double() for key in keys
        }
        ends = []
        for sign in (1, -1):
            moved = copy.deepcopy(twin)
            with torch.no_grad():
                for key, parameter in moved.named_parameters():
                    if key in direction:
                        parameter += sign * 1e-7 * direction[key]
                ends.append(step(moved))
        difference = (ends[0] - ends[1]) / 2e-7
        derivative = sum((own[key] * direction[key]).sum() for key in keys)
        torch.testing.assert_close(derivative, difference, rtol=1e-5, atol=1e-7)
    with torch.no_grad():
        torch.testing.assert_close(value, step(copy.deepcopy(twin)))


def test_a_copy_recomputes_its_own_layers():
    """As EMAHook makes it, after MMEngine turned on `activation_checkpointing`."""
    model = MODELS.build(resnet())
    turn_on_activation_checkpointing(model, ['backbone.layer1'])
    model.eval()
    average = ExponentialMovingAverage(model)
    before = average.module(images())
    with torch.no_grad():
        model.backbone.layer1[0].conv1.weight.zero_()
    assert not torch.equal(model(images()), before)
    assert torch.equal(average.module(images()), before)


def test_channels_are_flipped_in_color_images_only():
    """Of student and teacher, of which one swaps red and blue; MMPretrain does so of three."""
    four = resnet(
        backbone=dict(RESNET, in_channels=4),
        data_preprocessor=dict(mean=[1.0, 2.0, 3.0, 4.0], std=[4.0, 3.0, 2.0, 1.0], to_rgb=True),
    )
    student = dict(four, data_preprocessor=dict(mean=[5.0] * 4, std=[2.0] * 4, to_rgb=False))
    model = distiller(dict(type='LogitKL'), four, student)
    pixels = torch.randint(256, (2, 4, 32, 32), generator=torch.manual_seed(0)).float()
    (frozen,) = model.beside
    own = MODELS.build(copy.deepcopy(four)).eval()
    own.load_state_dict(frozen.network.state_dict())
    expected = own(own.data_preprocessor(dict(inputs=pixels))['inputs'])
    found = frozen(model.data_preprocessor(dict(inputs=pixels))['inputs'], training=False)
    torch.testing.assert_close(found.logits, expected, rtol=1e-4, atol=1e-4)


def test_a_loss_that_cannot_reach_the_student_is_refused():
    frozen = resnet(backbone=dict(RESNET, frozen_stages=4))
    for name in ('FeatureKL', 'OFD'):
        model = distiller(dict(type=name), student=frozen)
        with pytest.raises(UserError, match=f"{name} cannot reach the student's weights.*frozen"):
            model.loss(images(), samples())
        with torch.no_grad():  # no step, so no mistake
            model.loss(images(), samples())
    model = distiller(dict(type='LogitKL'), student=frozen)
    total(model.loss(images(), samples())).backward()
    assert model.head.fc.weight.grad.abs().sum() > 0
    model.head.requires_grad_(False)
    with pytest.raises(UserError, match="LogitKL cannot reach the student's weights"):
        model.loss(images(), samples())


def test_features_recorded_without_gradient_are_refused():
    """Of the reentrant kind of checkpointing, in a backbone of someone's own."""
    model = distiller(dict(type='OFD'))
    forward = model.backbone.layer4.forward
    model.backbone.layer4.forward = lambda x: torch_checkpoint(forward, x, use_reentrant=True)
    with pytest.raises(UserError, match='the features of stage 3 are computed without gradient'):
        model.loss(images(), samples())
    other = distiller(dict(type='OFD', stages=[0, 1]))
    forward_2 = other.backbone.layer4.forward
    other.backbone.layer4.forward = lambda x: torch_checkpoint(forward_2, x, use_reentrant=True)
    other.loss(images(), samples())
