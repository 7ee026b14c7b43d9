"""More set-ups of other people: recipes that switch, samplers, own numbers, chains of students."""

from __future__ import annotations

import re

import pytest
import torch
from helpers import fails_with, run_tool
from mmengine.dataset import ConcatDataset
from mmengine.runner import loops
from mmpretrain.registry import DATA_SAMPLERS, MODELS
from mmpretrain.structures import DataSample
from test_set_ups_loops import (
    IPIRM,
    ONE_VIEW,
    PLAIN,
    TWO_VIEWS,
    Labeled,
    LogLevel,
    crd,
    expected_view,
    fashion,
    prepared,
    run,
    stage_one,
)
from torch.utils.data import Dataset

from ipirm_mm.datasets import FashionMNIST50, one_class
from ipirm_mm.engine import RequireStepsHook
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import KNNAccuracy, TeacherAccuracy, build_loader, extract_features
from ipirm_mm.explain import find_user_error
from ipirm_mm.functional import ofd_margin

NETWORK = dict(
    type='ImageClassifier',
    backbone=dict(type='SmallConvNet', channels=(8, 16), norm_cfg=dict(type='BN')),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=16),
)
KL = [dict(type='LogitKL')]


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch):
    monkeypatch.setattr(loops.time, 'sleep', lambda seconds: None)


def save_network(path, seed=0):
    """Save a network with weights of its own, also of its normalization."""
    torch.manual_seed(seed)
    network = MODELS.build(NETWORK)
    for name, parameter in network.named_parameters():
        if 'bn' in name:
            torch.nn.init.normal_(parameter)
    torch.save(dict(state_dict=network.state_dict()), path)
    return network.eval()


def student(path, losses=KL, **more):
    teacher = dict(model=NETWORK, checkpoint=str(path))
    return dict(
        NETWORK,
        **{'type': 'DistillingClassifier', 'teacher': teacher, **more},
        distill_losses=losses,
    )


@pytest.mark.parametrize('order', [1, -1])
def test_a_pipeline_that_is_switched_in_is_seeded_from_its_first_epoch(tmp_path, order):
    switch = dict(
        type='SwitchRecipeHook', schedule=[dict(action_epoch=2, train_pipeline=ONE_VIEW)]
    )
    hooks = [dict(type='SetEpochHook'), switch][::order]
    _, seen = run(tmp_path, fashion(8), hooks, workers=order > 0 and 2 or 0)
    assert len(seen) == 16
    assert all(image == expected_view(index, 1) for index, _, image in seen[8:])


def test_images_are_not_mixed_for_crd_by_a_later_recipe(tmp_path):
    recipe = dict(action_epoch=2, batch_augments=dict(augments='Mixup'))
    hooks = [dict(type='CRDMemoryHook'), dict(type='SwitchRecipeHook', schedule=[recipe])]
    save_network(tmp_path / 'teacher.pth')
    model = student(tmp_path / 'teacher.pth', [dict(type='CRD', feat_dim=4, num_negatives=4)])
    with pytest.raises(UserError, match='SwitchRecipeHook mixes them from epoch 2 on'):
        run(tmp_path / 'run', fashion(8), hooks, model=model)
    # Whatever else begins to mix them is refused when the next epoch begins.
    network = MODELS.build(model)
    network.data_preprocessor.batch_augments = torch.nn.Identity()
    with pytest.raises(UserError, match='CRD compares whole images'):
        network.train()
    network.eval()


def test_the_margins_of_ofd_are_of_the_teacher_that_is_there(tmp_path):
    """Also where a run starts from a student of another teacher (``load_from``)."""
    losses = [dict(type='OFD', kappa=10)]
    teachers = [save_network(tmp_path / f'{seed}.pth', seed) for seed in (1, 2)]
    run(tmp_path / 'a', fashion(8), [], student(tmp_path / '1.pth', losses))
    start = dict(load_from=str(tmp_path / 'a' / 'epoch_2.pth'))
    runner, _ = run(
        tmp_path / 'b', fashion(8), [], student(tmp_path / '2.pth', losses), resume=start
    )
    margins = [
        ofd_margin(layer.norm.weight, layer.norm.bias)
        for layer in (teacher.backbone.layers[0] for teacher in teachers)
    ]
    loss = runner.model.distill_losses[0]
    assert not torch.allclose(*margins)
    torch.testing.assert_close(loss.margin0, margins[1])


class Twice(Dataset):
    """A wrapper that keeps what it wraps under a name of its own."""

    def __init__(self, base):
        self.parts = [base]
        self.metainfo = base.metainfo

    def __len__(self):
        return 2 * len(self.parts[0])

    def __getitem__(self, index):
        return self.parts[0][index % len(self.parts[0])]


def test_wrappers_are_found_under_every_name(tmp_path):
    dataset = Twice(FashionMNIST50(indices=6, pipeline=ONE_VIEW))
    hooks = [dict(type='SetEpochHook')]
    seen = []
    for seed in range(2):
        torch.manual_seed(seed)
        seen.append(run(tmp_path / str(seed), dataset, hooks)[1])
    assert seen[0] == seen[1] and len({image for *_, image in seen[0]}) > 20
    dataset = Twice(FashionMNIST50(indices=6, pipeline=TWO_VIEWS))
    with pytest.raises(UserError, match='is a Twice, in which one sample_idx may stand for sev'):
        stage_one(tmp_path / 'p', dataset=dataset)


@DATA_SAMPLERS.register_module(name='WeightedSamplerOfTheTests')
class Weighted:
    """A sampler that shows image 0 most of the time."""

    def __init__(self, dataset, seed=None):
        self.weights = torch.ones(len(dataset))
        self.weights[0] = 20

    def __len__(self):
        return len(self.weights)

    def __iter__(self):
        return iter(torch.multinomial(self.weights, len(self), True).tolist())


@pytest.mark.parametrize(
    'loop', [dict(by_epoch=True, max_epochs=2), dict(by_epoch=False, max_iters=6)]
)
def test_an_image_that_a_sampler_repeats_gets_other_views(tmp_path, loop):
    sampler = dict(type='WeightedSamplerOfTheTests')
    _, seen = run(tmp_path, fashion(12), [dict(type='SetEpochHook')], sampler=sampler, **loop)
    views = [image for index, _, image in seen if index == 0]
    assert len(views) > 10 and len(set(views)) > 0.8 * len(views)


class OwnNumbers(FashionMNIST50):
    """A data set whose ``sample_idx`` is the number of a database."""

    def get_data_info(self, idx):
        return {**super().get_data_info(idx), 'sample_idx': 1000 + 7 * idx}


def test_numbers_of_a_database_are_no_indices(tmp_path):
    message = 'image 0 of OwnNumbers has the sample_idx 1000, but partitions and memories'
    with pytest.raises(UserError, match=message):
        stage_one(tmp_path / 'a', dataset=OwnNumbers(indices=24, pipeline=TWO_VIEWS))
    with pytest.raises(UserError, match=message):
        crd(tmp_path / 'b', OwnNumbers(indices=12, pipeline=ONE_VIEW))
    parts = [
        OwnNumbers(indices=6, pipeline=PLAIN),
        FashionMNIST50('val', indices=5, pipeline=PLAIN),
    ]
    loader = build_loader(dict(dataset=ConcatDataset(parts), batch_size=4))
    found = extract_features(MODELS.build(IPIRM), loader)
    assert found['sample_idx'].tolist() == list(range(11))


class Pairs(Dataset):
    """What torchvision's data sets give."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.zeros(3, 8, 8), index % 2


def test_pairs_of_image_and_label_are_refused():
    with pytest.raises(UserError, match='a batch is a list, but features need a dict'):
        extract_features(MODELS.build(IPIRM), build_loader(dict(dataset=Pairs())))


def test_negative_numbers_are_no_classes(tmp_path):
    assert one_class(-1) is None and one_class(torch.tensor([-1])) is None
    dataset = Labeled(lambda label, idx: -1 if idx % 2 else label, indices=12, pipeline=ONE_VIEW)
    with pytest.raises(UserError, match=r'\(6 of 12 images\), such as -1'):
        crd(tmp_path / 'a', dataset)


def test_names_are_no_labels(tmp_path):
    with pytest.raises(UserError, match="gt_label is 'cat', but labels are numbers of classes"):
        DataSample().set_gt_label('cat')


@pytest.mark.parametrize(
    'label,message',
    [
        (None, "has no label, but the head's own loss needs one"),
        (-1, r'has the label \[-1\], but model.head.num_classes is 10'),
        (10, r'has the label \[10\], but model.head.num_classes is 10'),
    ],
)
def test_labels_that_the_head_cannot_be_trained_on(tmp_path, label, message):
    save_network(tmp_path / 'teacher.pth')
    model = MODELS.build(student(tmp_path / 'teacher.pth'))
    sample = DataSample(metainfo=dict(img_path='a.png'))
    if label is not None:
        sample.set_gt_label(label)
    with pytest.raises(UserError, match='the image a.png ' + message):
        model.loss(torch.rand(1, 3, 8, 8), [sample])


def test_metrics_say_what_they_lack():
    with pytest.raises(UserError, match='KNNAccuracy needs the features'):
        KNNAccuracy().process(None, [dict(gt_label=torch.tensor([1]))])
    with pytest.raises(UserError, match='TeacherAccuracy needs one label per image, but the eval'):
        TeacherAccuracy().process(None, [dict(teacher_score=torch.ones(2))])


def test_errors_of_the_stack_that_are_mistakes_of_a_config():
    stock = dict(
        IPIRM, type='SimCLR', head=dict(type='ContrastiveHead', loss=dict(type='CrossEntropyLoss'))
    )
    try:
        MODELS.build(stock)(torch.rand(1, 3, 8, 8), mode='predict')
    except RuntimeError as error:
        assert 'use KNNHook' in find_user_error(error)

    class Rejects(FashionMNIST50):
        def prepare_data(self, idx):
            return None

    try:
        Rejects(indices=2, test_mode=True)[0]
    except Exception as error:
        assert 'rejects an image' in find_user_error(error)


class Named(Labeled):
    """A data set whose classes have names."""

    def __init__(self, names, **kwargs):
        self.names = names
        super().__init__(**kwargs)

    @property
    def metainfo(self):
        return dict(classes=self.names)


def test_neighbors_vote_for_names_of_classes(tmp_path):
    """The images to classify are those that vote, with their classes in another order."""
    names = [f'c{n}' for n in range(10)]
    bank = Named(names, form=lambda label, idx: label, indices=20, pipeline=PLAIN)
    query = Named(names[::-1], form=lambda label, idx: 9 - label, indices=20, pipeline=PLAIN)
    other = Named(['new', *names[1:]], form=lambda label, idx: 0, indices=4, pipeline=PLAIN)

    def hook(images):
        bank_loader, query_loader = (dict(dataset=d, batch_size=4) for d in (bank, images))
        return dict(
            type='KNNHook',
            interval=3,
            k=1,
            bank_dataloader=bank_loader,
            query_dataloader=query_loader,
        )

    look = LogLevel()
    stage_one(tmp_path / 'a', interval=100, hooks=[hook(query), look])
    assert re.findall('k-NN accuracy ([0-9.]+)', look.text(tmp_path / 'a')) == ['100.00']
    with pytest.raises(UserError, match="have the class 'new', which is none of KNNHook.bank"):
        stage_one(tmp_path / 'b', interval=100, hooks=[hook(other)])


def seen_by_the_teacher(model, images):
    model._load_teachers()
    normalized = model.eval().data_preprocessor(dict(inputs=images.clone()))['inputs']
    return next(iter(model.beside))(normalized, training=False).logits


def test_a_teacher_whose_file_has_no_normalization_sees_images_as_they_are(tmp_path):
    teacher = save_network(tmp_path / 'teacher.pth')
    (tmp_path / 'teacher.py').write_text(f'model = {NETWORK!r}\n')
    given = dict(model=str(tmp_path / 'teacher.py'), checkpoint=str(tmp_path / 'teacher.pth'))
    norm = dict(type='ClsDataPreprocessor', mean=[99.0] * 3, std=[50.0] * 3, to_rgb=True)
    model = MODELS.build(student(None, teacher=given, data_preprocessor=norm))
    images = torch.rand(4, 3, 8, 8) * 255
    with torch.no_grad():
        torch.testing.assert_close(seen_by_the_teacher(model, images), teacher(images))


@pytest.mark.parametrize('published', [False, True])
def test_a_student_teaches_the_next_one(tmp_path, published):
    """By its own config, whose teacher is gone, and its checkpoint, also a published one."""
    save_network(tmp_path / 'teacher.pth')
    losses = [dict(type='OFD', kappa=10)]
    first = MODELS.build(student(tmp_path / 'teacher.pth', losses)).eval()
    state = first.state_dict()
    if published:
        state = {key: value for key, value in state.items() if 'distill_losses' not in key}
    torch.save(dict(state_dict=state), tmp_path / 'first.pth')
    gone = dict(model='gone.py', checkpoint='gone.pth')
    config = student(None, losses, teacher=gone)
    (tmp_path / 'first.py').write_text(f'model = {config!r}\n')
    given = dict(model=str(tmp_path / 'first.py'), checkpoint=str(tmp_path / 'first.pth'))
    images = torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        expected = first(images)
        model = MODELS.build(student(None, teacher=given))
        torch.testing.assert_close(seen_by_the_teacher(model, images), expected)
        model = MODELS.build(student(None, teacher=dict(given, model=config)))
        torch.testing.assert_close(seen_by_the_teacher(model, images), expected)


@pytest.mark.parametrize(
    'loop,message',
    [
        (dict(by_epoch=True, max_epochs=1, max_iters=3), 'counts epochs and needs max_epochs al'),
        (dict(by_epoch=False, max_epochs=1), 'counts iterations and needs max_iters alone'),
        (dict(type='IterBasedTrainLoop', max_epochs=1), 'counts iterations and needs max_iters'),
        (dict(max_epochs=1, val_interval=0), 'val_interval must be at least 1, but is 0'),
    ],
)
def test_loops_that_do_not_count_what_they_are_given(loop, message):
    with pytest.raises(UserError, match=message):
        prepared(dict(train_cfg=loop))
    prepared(dict(train_cfg=dict(type='IterBasedTrainLoop', max_iters=1, val_interval=10)))


def test_a_checkpoint_without_any_weight_of_the_model_is_refused(tmp_path):
    state = save_network(tmp_path / 'whole.pth').state_dict()
    other = {f'encoder.{key}': value for key, value in state.items()}
    torch.save(dict(state_dict=other), tmp_path / 'other.pth')
    with pytest.raises(UserError, match='none of the weights in .*other.pth is one of the model'):
        start = dict(load_from=str(tmp_path / 'other.pth'))
        run(tmp_path / 'a', fashion(8), [RequireStepsHook()], model=dict(NETWORK), resume=start)
    torch.save({f'module.{key}': value for key, value in state.items()}, tmp_path / 'ddp.pth')
    start = dict(load_from=str(tmp_path / 'ddp.pth'))
    run(tmp_path / 'b', fashion(8), [RequireStepsHook()], model=dict(NETWORK), resume=start)


def test_a_classifier_without_its_head_is_not_tested(tmp_path):
    from mmengine.config import Config

    config = 'configs/quickstart/supervised.py'
    state = MODELS.build(Config.fromfile(config).model).state_dict()
    given = ('--val', '--cfg-options', 'val_dataloader.dataset.indices=8')
    encoder = {key: value for key, value in state.items() if not key.startswith('head')}
    torch.save(dict(state_dict=encoder), tmp_path / 'encoder.pth')
    finished = run_tool('tools/test.py', config, tmp_path / 'encoder.pth', *given, check=False)
    fails_with(finished, 'does not fit ImageClassifier: it lacks head.', '2 of 20 keys do not fit')
    ddp = {f'module.{key}': value for key, value in state.items()}
    torch.save(dict(state_dict={**ddp, 'distill_losses.0.x': torch.ones(1)}), tmp_path / 'ddp.pth')
    run_tool('tools/test.py', config, tmp_path / 'ddp.pth', *given)


@pytest.mark.parametrize(
    'text',
    [
        'unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)',
        'DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that '
        "dataloader's workers are out of shared memory. Please try to raise your shared memory "
        'limit.',
    ],
)
def test_missing_shared_memory_is_said(text):
    error = RuntimeError('Caught RuntimeError in DataLoader worker process 0.\n' + text)
    assert '/dev/shm' in find_user_error(error) and 'num_workers=0' in find_user_error(error)


def test_labels_without_an_output_and_unknown_metrics_are_said():
    try:
        torch.nn.functional.cross_entropy(torch.zeros(1, 3), torch.tensor([5]))
    except IndexError as error:
        assert 'has the label 5, for which model.head has no output' in find_user_error(error)
