"""Inference in other people's set-ups: classes, images, views, several labels, files, configs."""

from __future__ import annotations

import io

import mmcv
import numpy as np
import pytest
import torch
from helpers import MIM, fails_with, run_tool
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from mmpretrain.datasets import CustomDataset, EfficientNetCenterCrop
from mmpretrain.evaluation import Accuracy, AveragePrecision, ConfusionMatrix
from mmpretrain.registry import MODELS, TRANSFORMS
from mmpretrain.structures import DataSample
from PIL import Image, ImageOps
from torchvision.transforms.functional import ten_crop

from ipirm_mm.datasets import LoadImage, VIPriors, tta_pipeline
from ipirm_mm.datasets.image_format import is_truncated
from ipirm_mm.datasets.list_files import read_list
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import (
    DumpPredictions,
    PredictionEvaluator,
    Predictions,
    check_disjoint,
    check_same_images,
    disagreement,
    fit_weights,
    load_predictions,
    map_classes,
    save_predictions,
)
from ipirm_mm.functional import merge_label_scores, select_labels
from ipirm_mm.models.utils import LabelRule, class_order, common_classes, plain_classifier
from ipirm_mm.utils import with_names
from ipirm_mm.visualization import SampleImages

PACK = dict(type='PackInputs')


def picture(height=300, width=420, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def views(pipeline, image):
    steps = [TRANSFORMS.build(step) for step in pipeline if 'Load' not in str(step['type'])]
    return Compose(steps)(dict(img=image))['inputs']


# Views


@pytest.mark.parametrize(
    'config',
    ['efficientnet/efficientnet-b0_8xb32_in1k.py', 'inception_v3/inception-v3_8xb32_in1k.py'],
)
def test_views_of_stock_configs_differ_and_keep_the_center(config):
    pipeline = Config.fromfile(MIM / 'configs' / config).test_dataloader.dataset.pipeline
    image = picture()
    found = views(tta_pipeline(pipeline, 'ten'), image)
    assert len({view.numpy().tobytes() for view in found}) == 10
    (single,) = views(tta_pipeline(pipeline, 'center'), image)
    assert torch.equal(found[4], single)


def test_crops_of_efficientnet_are_of_its_share_of_the_image():
    crop = dict(type='mmpretrain.EfficientNetCenterCrop', crop_size=64, crop_padding=16)
    image = picture(100, 140)
    found = views(tta_pipeline([crop, PACK], 'five'), image)
    plain = EfficientNetCenterCrop(64, 16)(dict(img=image))['img']
    assert np.array_equal(found[4].permute(1, 2, 0).numpy(), plain)
    corner = mmcv.imresize(image[:80, :80], (64, 64), interpolation='bicubic')  # 64 / 80 of 100
    assert np.array_equal(found[0].permute(1, 2, 0).numpy(), corner)
    last = mmcv.imresize(image[20:, 60:], (64, 64), interpolation='bicubic')
    assert np.array_equal(found[3].permute(1, 2, 0).numpy(), last)


@pytest.mark.parametrize(
    'tail',
    [
        [PACK],
        [dict(type='Normalize', mean=[0.0] * 3, std=[1.0] * 3, to_rgb=False), PACK],
        [[dict(type='Compose', transforms=[PACK])]],
    ],
)
def test_crops_are_those_of_torchvision_whatever_follows(tail):
    edge = dict(type='ResizeEdge', scale=48)
    pipeline = [edge, dict(type='mmcv.CenterCrop', crop_size=(40, 32)), *tail]  # width, height
    image = picture(60, 90)
    resized = TRANSFORMS.build(edge)(dict(img=image))['img']
    expected = ten_crop(torch.from_numpy(resized).permute(2, 0, 1), [32, 40])
    found = views(tta_pipeline(pipeline, 'ten'), image)
    for view, crop in zip(found, expected, strict=True):
        assert torch.equal(view.to(crop.dtype), crop)


def test_crops_of_torchvisions_own_transforms():
    pipeline = [
        dict(type='NumpyToPIL', to_rgb=True),
        dict(type='torchvision/Resize', size=48),
        dict(type='torchvision/CenterCrop', size=32),
        dict(type='PILToNumpy', to_bgr=True),
        PACK,
    ]
    found = views(tta_pipeline(pipeline, 'ten'), picture(60, 90))
    assert len({view.numpy().tobytes() for view in found}) == 10
    assert torch.equal(found[9], views(tta_pipeline(pipeline, 'flip'), picture(60, 90))[1])


def test_views_that_would_be_the_same_are_refused():
    square = [dict(type='Resize', scale=384), PACK]
    with pytest.raises(UserError, match='--tta-resize 439'):
        tta_pipeline(square, 'ten')
    with pytest.raises(UserError, match='would be the same crop several times'):
        tta_pipeline(square, 'ten', 384)
    with pytest.raises(UserError, match='a crop of 400x400 does not fit the image of 384x384'):
        tta_pipeline(square, 'center', 400)
    larger = tta_pipeline(square, 'ten', resize=439)
    assert larger[0]['scale'] == (439, 439) and larger[1]['crop_size'] == 384
    edge = [dict(type='ResizeEdge', scale=256), dict(type='CenterCrop', crop_size=224), PACK]
    with pytest.raises(UserError, match='does not fit the image of 256 pixels'):
        tta_pipeline(edge, 'five', 288)
    with pytest.raises(UserError, match='makes views already, by TenCrop'):
        tta_pipeline(tta_pipeline(edge, 'ten'), 'flip')


def test_equal_views_are_refused_at_the_first_batch():
    tta = MODELS.build(dict(type='ScoreMergingTTA', module=network(2)))
    image = [torch.rand(3, 8, 8), torch.rand(3, 8, 8)]
    samples = [[DataSample(), DataSample()] for _ in range(2)]
    with pytest.raises(UserError, match='views 1 and 2 of 2 are the same for all 2 images'):
        tta.test_step(dict(inputs=[image, image], data_samples=samples))
    blank = [torch.zeros(3, 8, 8)] * 2  # which tell nothing
    assert len(tta.test_step(dict(inputs=[blank, blank], data_samples=samples))) == 2


# Several labels


def network(classes, head='LinearClsHead', **options):
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='SmallConvNet', channels=(8, 16)),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type=head, num_classes=classes, in_channels=16, **options),
        )
    )
    return model.eval()


@pytest.mark.parametrize('policy', ['mean', 'gmean', 'tsharpen'])
@pytest.mark.parametrize('rule', [dict(thr=0.4), dict(topk=2)])
def test_scores_of_several_labels_stay_such(policy, rule):
    tta = MODELS.build(
        dict(
            type='ScoreMergingTTA',
            module=network(4, 'MultiLabelLinearClsHead', **rule),
            policy=policy,
        )
    )
    scores = torch.tensor([[0.9, 0.2, 0.5, 0.41], [0.7, 0.4, 0.6, 0.3]], dtype=torch.float64)
    (merged,) = tta.merge_preds([tuple(DataSample().set_pred_score(row) for row in scores)])
    if policy == 'mean':
        expected = scores.mean(0)
    elif policy == 'gmean':  # the mean of the logits
        expected = torch.sigmoid(torch.logit(scores).mean(0))
    else:
        yes, no = scores.sqrt().sum(0), (1 - scores).sqrt().sum(0)
        expected = yes / (yes + no)
    torch.testing.assert_close(merged.pred_score, expected)
    chosen = torch.where(expected >= 0.4)[0] if 'thr' in rule else expected.topk(2).indices
    assert merged.pred_label.tolist() == chosen.tolist()


def test_merging_labels():
    one = torch.tensor([[[0.3, 0.8]]])
    for policy in ('mean', 'gmean'):
        torch.testing.assert_close(merge_label_scores(one.expand(3, 1, 2), policy), one[0])
    assert select_labels(torch.tensor([0.5, 0.4])).tolist() == [0]
    weighted = merge_label_scores(torch.tensor([[[0.2]], [[0.8]]]), 'weighted', [1, 3])
    assert float(weighted) == pytest.approx(0.65)


def records(scores, labels, form=torch.as_tensor, **more):
    made = []
    for number, (score, label) in enumerate(zip(scores, labels)):
        made.append(
            dict(sample_idx=number, img_path=f'/a/val/{number}.png', pred_score=form(score))
        )
        made[-1].update(gt_label=form(label), pred_label=torch.tensor([0, 1]), **more)
    return made


def test_files_of_several_labels(tmp_path):
    path = str(tmp_path / 'a.pkl')
    writer = DumpPredictions(path, ('a', 'b', 'c'), LabelRule(0.6, None))
    writer.process(None, records([[0.7, 0.65, 0.1], [0.2, 0.55, 0.9]], [[0, 1], [1]]))
    writer.compute_metrics(writer.results)
    found = load_predictions(path)
    assert found.classes == ('a', 'b', 'c') and found.rule == LabelRule(0.6, None)
    assert found.labels.tolist() == [[True, True, False], [False, True, False]]
    assert found.predicted().tolist() == [[True, True, False], [False, False, True]]
    assert found.correct().tolist() == [1.0, 0.0] and found.measure == 'F1'
    save_predictions(str(tmp_path / 'b.pkl'), found)
    again = load_predictions(str(tmp_path / 'b.pkl'))
    assert torch.equal(again.labels, found.labels) and again.rule == found.rule
    assert disagreement(torch.stack([found.predicted(), ~found.predicted()])) == 1
    weights = fit_weights(torch.stack([found.scores, 1 - found.scores]), found.labels)
    assert float(weights.sum()) == pytest.approx(1)


@pytest.mark.parametrize('form', [torch.as_tensor, np.asarray, list])
def test_scores_and_labels_of_any_type(tmp_path, form):
    import pickle

    rows = records([[0.7, 0.3], [0.2, 0.8]], [[0], [1]], form)
    rows[0]['pred_label'] = rows[1]['pred_label'] = 0
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps(rows))
    found = load_predictions(str(tmp_path / 'a.pkl'))
    assert found.rule is None and found.labels.tolist() == [0, 1]


# Classes and images by what they are


def made(images, labels=None, classes=None, seed=0, name='a.pkl', count=3):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(len(images), count, generator=generator).softmax(1)
    return Predictions(scores, labels, list(images), name, classes)


def test_classes_in_another_order_are_mapped():
    one = made('ab', torch.tensor([0, 2]), ('x', 'y', 'z'))
    order = [2, 0, 1]
    other = Predictions(
        one.scores[:, order], torch.tensor([1, 0]), one.images, 'b', ('z', 'x', 'y')
    )
    first, second = map_classes([one, other])
    assert torch.equal(first.scores, second.scores) and torch.equal(first.labels, second.labels)
    check_same_images([first, second])
    with pytest.raises(UserError, match="class 1 is 'y' in one and 'q' in the other"):
        class_order(('x', 'y'), ('x', 'q'), 'a', 'b')
    with pytest.raises(UserError, match="class 2 is nothing in one and 'z'"):
        class_order(('x', 'y'), ('x', 'y', 'z'), 'a', 'b')
    assert common_classes([None, None], 'ab') == (None, [None, None])


def test_unknown_classes_are_said(monkeypatch):
    said = []
    module = 'ipirm_mm.models.utils.classes.print_log'
    monkeypatch.setattr(module, lambda line, **options: said.append(line))
    common_classes([('x',), None], ['a.pth', 'b.pth'])
    assert said == ['b.pth does not name its classes: they are taken to be in the same order']


def test_images_are_the_same_under_another_root():
    labels = torch.tensor([0, 1])
    one = made(['/data/pets/val/cat/0.png', '/data/pets/val/dog/0.png'], labels)
    moved = ['/mnt/x/val/cat/0.png', '/mnt/x/val/dog/0.png']
    spelled = ['/data//pets/./val/cat/0.png', '/data/pets/val/cat/../dog/0.png']
    for images in (moved, spelled, [image.replace('/', '\\') for image in moved]):
        check_same_images([one, made(images, labels)])
    with pytest.raises(UserError, match='differ in their order'):
        check_same_images([one, made(moved[::-1], labels)])
    with pytest.raises(UserError, match='differ in their images'):
        check_same_images([one, made([p.replace('val', 'test') for p in moved], labels)])


def test_weights_are_not_fitted_on_what_is_reported_under_another_root():
    names = [f'{name}/{n}.png' for name in ('cat', 'dog') for n in range(3)]
    fitted = made([f'/data/pets/val/{name}' for name in names])
    for root, seed in (('/mnt/pets/val', 0), ('/mnt/pets/val', 1), ('/x/renamed', 0)):
        reported = made([f'{root}/{name}' for name in names], seed=seed)
        if root == '/x/renamed':
            fitted = made([f'/x/original/{name}' for name in names])
        with pytest.raises(UserError, match='share 6 images'):
            check_disjoint([fitted], [reported])
    fitted = made([f'/data/pets/./val//{name}' for name in names])
    with pytest.raises(UserError, match='share 1 images'):
        check_disjoint([fitted], [made([f'/data/pets/val/{names[0]}'], seed=1)])
    check_disjoint([fitted], [made([f'/data/pets/test/{name}' for name in names], seed=1)])
    check_disjoint([fitted], [made([f'/data/birds/{name}' for name in names], seed=1)])


# Files


@pytest.mark.parametrize('separator', [' ', '  ', '\t', ',', ', ', ';'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_lists_as_people_have_them(tmp_path, separator, encoding):
    lines = ['# made by hand', 'path' + (separator.strip(' ') or ' ') + 'class', '']
    lines += [
        f'a cat/1.png{separator}0',
        f'./dög\\2,b.png{separator}1',
        f'"x, y.png"{separator}12',
    ]
    (tmp_path / 'l.txt').write_bytes('\r\n'.join(lines).encode(encoding))
    assert read_list(tmp_path / 'l.txt') == [
        ('a cat/1.png', 0),
        ('dög/2,b.png', 1),
        ('x, y.png', 12),
    ]


def test_a_list_in_another_encoding_is_refused(tmp_path):
    (tmp_path / 'l.txt').write_bytes('a.png 0\ndög.png 1'.encode('latin-1'))
    with pytest.raises(UserError, match='line 2 is not in UTF-8; save it as UTF-8'):
        read_list(tmp_path / 'l.txt')


def encoded(kind, **options):
    stream = io.BytesIO()
    Image.fromarray(picture(40, 52)).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    'kind,options',
    [
        ('JPEG', {}),
        ('JPEG', dict(progressive=True)),
        ('PNG', {}),
        ('GIF', {}),
        ('WEBP', {}),
        ('BMP', {}),
        ('TIFF', {}),
    ],
)
def test_whole_images_are_whole_whatever_follows(tmp_path, kind, options):
    content = encoded(kind, **options)
    video = b'\0\0\0\x18ftypmp42' + np.random.default_rng(1).bytes(100_000) + b'\xff\xda\0\0'
    for more in (b'', b'\0' * 100, video):
        assert not is_truncated(content + more)
    for share in (0.3, 0.6, 0.9):
        cut = content[: int(share * len(content))]
        assert is_truncated(cut)
        if kind == 'JPEG':
            assert is_truncated(cut + video)
    (tmp_path / 'a').write_bytes(content + video)
    image = LoadImage()(dict(img_path=str(tmp_path / 'a')))['img'][..., ::-1]
    expected = np.asarray(Image.open(io.BytesIO(content)).convert('RGB'))
    assert np.abs(image.astype(int) - expected).mean() < 3
    (tmp_path / 'b').write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match='is truncated after'):
        LoadImage()(dict(img_path=str(tmp_path / 'b')))


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'LAB'])
def test_modes_are_read_as_pillow_converts_them(tmp_path, mode):
    y, x = np.mgrid[0:48, 0:64]
    smooth = Image.fromarray(np.stack([x * 4, y * 5, (x + y) * 2], -1).astype(np.uint8))
    path = tmp_path / 'a.tif'
    (smooth if mode != 'LAB' else Image.merge('LAB', smooth.split())).convert(mode).save(path)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert('RGB'))
    found = LoadImage()(dict(img_path=str(path)))['img'][..., ::-1]
    assert np.abs(found.astype(int) - expected).mean() < 3


def test_hidden_files_are_no_images(tmp_path):
    for name in ('n1', 'n2'):
        folder = tmp_path / 'train' / name
        (folder / '.cache').mkdir(parents=True)
        Image.fromarray(picture(8, 8)).save(folder / 'a.jpg')
        for hidden in ('._a.jpg', '.cache/b.jpg', 'Thumbs.db'):
            (folder / hidden).write_bytes(b'\0\5\x16\7')
    (tmp_path / '__MACOSX').mkdir()
    data = VIPriors(str(tmp_path), num_classes=2, per_class=1, pipeline=[dict(type='LoadImage')])
    assert [data[n]['img_shape'] for n in range(2)] == [(8, 8)] * 2


def test_sample_images_of_views_that_load(tmp_path):
    (tmp_path / 'n1').mkdir()
    Image.fromarray(picture(8, 9)).save(tmp_path / 'n1/a.png')
    view = [dict(type='LoadImage'), dict(type='RandomFlip', prob=0.5)]
    pipeline = [dict(type='MultiView', num_views=2, transforms=[view]), PACK]
    images = SampleImages(CustomDataset(data_root=str(tmp_path), pipeline=pipeline))
    assert np.array_equal(images[0], picture(8, 9))


# Configs of classes, and test sets without labels


LAZY = """
from mmengine.dataset import DefaultSampler
from mmengine.runner import Runner
from mmpretrain.datasets import CustomDataset, PackInputs, Resize
from mmpretrain.evaluation import Accuracy, ConfusionMatrix
from mmpretrain.models import ImageClassifier, GlobalAveragePooling, LinearClsHead
from ipirm_mm.models import SmallConvNet
from mmcv.transforms import LoadImageFromFile
default_scope = 'mmpretrain'
model = dict(type=ImageClassifier, backbone=dict(type=SmallConvNet, channels=(8, 16)),
    neck=dict(type=GlobalAveragePooling),
    head=dict(type=LinearClsHead, num_classes=3, in_channels=16))
data_preprocessor = dict(num_classes=3, mean=[80.0] * 3, std=[60.0] * 3, to_rgb=True)
loader = dict(batch_size=4, num_workers=0, sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(type=CustomDataset, data_root='{root}', with_label={labeled}, pipeline=[
        dict(type=LoadImageFromFile), dict(type=Resize, scale=32), dict(type=PackInputs)]))
test_dataloader = val_dataloader = loader
test_evaluator = [dict(type=Accuracy), dict(type=ConfusionMatrix, num_classes=3)]
val_evaluator = dict(type=Accuracy)
test_cfg = val_cfg = dict()
"""


@pytest.fixture(scope='module')
def lazy(tmp_path_factory):
    """A config of classes, with and without labels, and a checkpoint of another class order."""
    root = tmp_path_factory.mktemp('lazy')
    for number, name in enumerate(('ant', 'bee', 'cow')):
        (root / 'img' / name).mkdir(parents=True)
        for n in range(2):
            Image.fromarray(picture(40, 40, 3 * n + number)).save(root / f'img/{name}/{n}.png')
    for name, labeled in (('labeled', True), ('bare', False)):
        text = LAZY.format(root=root / 'img', labeled=labeled)
        (root / f'{name}.py').write_text(text)
    model = MODELS.build(plain_classifier(Config.fromfile(root / 'labeled.py')))
    torch.manual_seed(0)
    model.head.fc.weight.data.normal_(std=30)
    state = model.state_dict()
    for name, order in (('same', [0, 1, 2]), ('other', [2, 0, 1])):
        own = dict(state)
        for key in ('head.fc.weight', 'head.fc.bias'):
            own[key] = state[key][order]
        meta = dict(dataset_meta=dict(classes=[('ant', 'bee', 'cow')[n] for n in order]))
        torch.save(dict(state_dict=own, meta=meta), root / f'{name}.pth')
    meta['dataset_meta']['classes'] = ['ant', 'bee', 'cat']
    torch.save(dict(state_dict=state, meta=meta), root / 'wrong.pth')
    return root


def test_lazy_configs_get_names(lazy):
    config = with_names(Config.fromfile(lazy / 'labeled.py'))
    assert config.model.type == 'ImageClassifier' and config.model.backbone.type == 'SmallConvNet'
    assert config.test_dataloader.dataset.pipeline[0].type == 'LoadImageFromFile'
    assert "type='ImageClassifier'" in config.pretty_text
    assert with_names(config) is config


def test_a_classifier_of_another_class_order_gives_the_same(lazy, tmp_path):
    found = {}
    for name in ('same', 'other'):
        out = tmp_path / f'{name}.pkl'
        given = [lazy / 'labeled.py', lazy / f'{name}.pth', '--work-dir', tmp_path]
        # Options are those of the config as written, not of what --tta makes of it.
        option = ['--cfg-options', 'model.head.num_classes=3']
        run = run_tool('tools/test.py', *given, '--tta', '--out', out, *option)
        found[name] = load_predictions(str(out))
        assert ('in another order' in run.stdout + run.stderr) == (name == 'other')
    one, other = found.values()
    torch.testing.assert_close(one.scores, other.scores)
    assert one.classes == other.classes == ('ant', 'bee', 'cow')
    given = [lazy / 'labeled.py', lazy / 'wrong.pth', '--work-dir', tmp_path]
    finished = run_tool('tools/test.py', *given, check=False)
    fails_with(finished, "class 2 is 'cow' in one and 'cat' in the other")


def test_predictions_without_labels_are_always_written(lazy, tmp_path):
    out = tmp_path / 'p.pkl'
    given = [lazy / 'bare.py', lazy / 'other.pth', '--work-dir', tmp_path]
    run = run_tool('tools/test.py', *given, '--out', out)
    printed = run.stdout + run.stderr
    assert printed.count('ConfusionMatrix is not computed') == 1
    assert load_predictions(str(out)).classes == ('cow', 'ant', 'bee')
    fails_with(run_tool('tools/test.py', *given, check=False), 'nothing to evaluate')


def test_metrics_of_any_kind_are_set_aside_without_labels():
    class Own(Accuracy):
        def process(self, data_batch, data_samples):
            raise RuntimeError('no labels')

    metrics = [Accuracy(), AveragePrecision(), ConfusionMatrix(num_classes=2), Own()]
    evaluator = PredictionEvaluator(metrics)
    sample = DataSample().set_pred_score(torch.tensor([0.4, 0.6])).set_pred_label(1)
    evaluator.process([sample])
    assert evaluator.metrics == []
    with pytest.raises(UserError, match='1 of 2 images of a batch have no label'):
        evaluator.process([sample, DataSample().set_gt_label(1)])
    with pytest.raises(RuntimeError):  # with labels it is a fault
        PredictionEvaluator([Own()]).process([DataSample().set_gt_label(1)])
    assert isinstance(evaluator, Evaluator)


@pytest.mark.slow
@pytest.mark.parametrize('tool', ['publish_model', 'search_tta', 'image_demo', 'ensemble'])
def test_lazy_configs_in_all_tools(lazy, tmp_path, tool):
    config, checkpoint = lazy / 'labeled.py', lazy / 'other.pth'
    if tool == 'publish_model':
        run_tool('tools/publish_model.py', config, checkpoint, '--out', tmp_path)
        (published,) = tmp_path.glob('*.py')
        assert Config.fromfile(published).model.type == 'ImageClassifier'
    elif tool == 'search_tta':
        given = ['--crop-size', '28', '--work-dir', tmp_path]
        assert (
            'as configured' in run_tool('tools/search_tta.py', config, checkpoint, *given).stdout
        )
    elif tool == 'image_demo':
        given = [lazy / 'img', config, checkpoint, '--out-dir', tmp_path]
        assert 'cow' in run_tool('tools/image_demo.py', *given).stdout
    else:
        members = [f'{config}:{lazy / name}.pth' for name in ('same', 'other')]
        run = run_tool('tools/ensemble.py', *members, '--work-dir', tmp_path, '--fit', check=False)
        fails_with(run, 'share 6 images')
        finished = run_tool('tools/ensemble.py', *members, '--work-dir', tmp_path)
        assert 'different classes for 0.0 %' in finished.stdout


@pytest.mark.slow
def test_logits_of_a_teacher_are_mapped_to_the_classes_of_the_training_set(lazy, tmp_path):
    """And those of a teacher of other classes refused before a step, by MMEngine's own runner."""
    config = Config.fromfile(lazy / 'labeled.py')
    config = with_names(config)
    config.merge_from_dict(
        dict(
            model=dict(
                type='DistillingClassifier',
                teacher=dict(model=str(lazy / 'labeled.py'), checkpoint=''),
                distill_losses=[dict(type='LogitKL')],
            ),
            train_dataloader=config.val_dataloader,
            train_cfg=dict(by_epoch=False, max_iters=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            work_dir=str(tmp_path),
            default_hooks=dict(checkpoint=None),
        )
    )
    logits = []
    for name in ('same', 'other'):
        config.model.teacher.checkpoint = str(lazy / f'{name}.pth')
        config.experiment_name = f'{tmp_path.name}_{name}'
        runner = Runner.from_cfg(config)
        runner.train()
        (teacher,) = runner.model.beside
        assert (teacher.class_order is None) == (name == 'same')
        logits.append(teacher(torch.ones(2, 3, 16, 16)).logits)
    torch.testing.assert_close(*logits)
    config.model.teacher.checkpoint = str(lazy / 'wrong.pth')
    config.experiment_name = f'{tmp_path.name}_wrong'
    runner = Runner.from_cfg(config)
    with pytest.raises(UserError, match="class 2 is 'cow' in one and 'cat' in the other"):
        runner.train()
    assert runner.iter == 0
