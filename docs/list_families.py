"""Write docs/families.md, what works with which network: ``python docs/list_families.py``.

Each network of MMPretrain's model index takes part with random weights, in its smallest member.
With names of backbones or heads as arguments, their rows are printed and nothing is written.
"""

from __future__ import annotations

import argparse
import copy
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mmpretrain
import numpy as np
import torch
import yaml
from mmcv.transforms import Compose
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample, MultiTaskDataSample
from PIL import Image

import ipirm_mm  # noqa: F401  (registers the classes)
from ipirm_mm.datasets.transforms import tta_pipeline
from ipirm_mm.errors import UserError
from ipirm_mm.models import ScoreMergingTTA
from ipirm_mm.models.utils import candidate_channels, candidate_sizes, pooled_feature

PAGE = Path(__file__).with_name('families.md')
MIM = Path(mmpretrain.__file__).parent / '.mim'
WORKS = 'works'
SMALL = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
POOL = dict(type='GlobalAveragePooling')
LINEAR = dict(type='LinearClsHead', num_classes=4, in_channels=64)
VIT = dict(
    arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=16),
    img_size=64,
    patch_size=16,
)

# Each classification head of MMPretrain, with a network that it fits.
HEADS: dict[str, dict] = {
    'ClsHead': dict(head=dict(type='ClsHead')),
    'LinearClsHead': dict(head=LINEAR),
    'StackedLinearClsHead': dict(
        head=dict(type='StackedLinearClsHead', num_classes=4, in_channels=64, mid_channels=[8])
    ),
    'VisionTransformerClsHead': dict(
        head=dict(type='VisionTransformerClsHead', num_classes=4, in_channels=64, hidden_dim=8)
    ),
    'DeiTClsHead': dict(
        backbone=dict(type='DistilledVisionTransformer', **VIT),
        head=dict(type='DeiTClsHead', num_classes=4, in_channels=16),
    ),
    'ConformerHead': dict(
        backbone=dict(type='Conformer', arch='tiny'),
        head=dict(type='ConformerHead', num_classes=4, in_channels=[256, 384]),
    ),
    'EfficientFormerClsHead': dict(
        head=dict(type='EfficientFormerClsHead', num_classes=4, in_channels=64)
    ),
    'EfficientFormerClsHead, distillation=False': dict(
        head=dict(type='EfficientFormerClsHead', num_classes=4, in_channels=64, distillation=False)
    ),
    'LeViTClsHead': dict(head=dict(type='LeViTClsHead', num_classes=4, in_channels=64)),
    'LeViTClsHead, distillation=False': dict(
        head=dict(type='LeViTClsHead', num_classes=4, in_channels=64, distillation=False)
    ),
    'VigClsHead': dict(head=dict(type='VigClsHead', num_classes=4, in_channels=64, hidden_dim=8)),
    'ArcFaceClsHead': dict(head=dict(type='ArcFaceClsHead', num_classes=4, in_channels=64)),
    'MultiLabelClsHead': dict(head=dict(type='MultiLabelClsHead')),
    'MultiLabelLinearClsHead': dict(
        head=dict(type='MultiLabelLinearClsHead', num_classes=4, in_channels=64)
    ),
    'CSRAClsHead': dict(
        neck=None,
        head=dict(type='CSRAClsHead', num_classes=4, in_channels=64, num_heads=2, lam=0.1),
    ),
    'MultiTaskHead': dict(
        head=dict(type='MultiTaskHead', task_heads=dict(color=LINEAR, shape=LINEAR))
    ),
}


class Family(NamedTuple):
    """A kind of network in MMPretrain's model index.

    Attributes:
        algorithm: Its ``model.type``.
        backbone: Its ``model.backbone.type``.
        config: Path of the config of its smallest member, below ``configs``.
    """

    algorithm: str
    backbone: str
    config: str


def families() -> list[Family]:
    """List the smallest member of each pair of algorithm and backbone.

    A member with a classifier comes before a smaller one without.
    """
    found: dict[tuple[str, str], list] = {}
    for metafile in yaml.safe_load((MIM / 'model-index.yml').read_text())['Import']:
        for entry in yaml.safe_load((MIM / metafile).read_text()).get('Models', []):
            path = entry['Config']
            try:
                model = Config.fromfile(MIM / path).model
            except Exception:  # six configs that MMPretrain itself cannot read
                continue
            if not isinstance(model.get('backbone'), dict):
                continue
            size = (entry.get('Metadata') or {}).get('Parameters') or 0
            key = (model.type, model.backbone.type)
            found.setdefault(key, []).append((model.get('head') is None, size, path))
    return sorted(
        Family(*key, min(members)[2].removeprefix('configs/')) for key, members in found.items()
    )


def network_of(family: Family) -> ConfigDict:
    """Config of the network, without weights to load and without what only training needs."""
    model = Config.fromfile(MIM / 'configs' / family.config).model
    for part in (model, model.backbone):
        part.pop('init_cfg', None)
        part.pop('pretrained', None)
    model.backbone.pop('frozen_stages', None)  # of a linear probe
    for name in ('train_cfg', 'data_preprocessor', 'target_generator'):
        model.pop(name, None)
    return model


def distiller(student: dict, teacher: dict, loss: str) -> Any:
    """Build a distilling classifier whose teacher has random weights."""
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            copy.deepcopy(student),
            type='DistillingClassifier',
            teacher=dict(model=copy.deepcopy(teacher), checkpoint='none'),
            distill_losses=dict(type=loss),
        )
    )
    for frozen in model.beside:
        frozen.loaded = True
    return model.train()


def train_step(model: Any, make_samples: Callable[[], list] | None = None) -> None:
    """Make one step, and see that both losses are finite and the backbone gets a gradient."""
    shape = next(iter(model.beside)).known_shape
    samples = make_samples() if make_samples else one_label()
    losses = model.loss(torch.randn(2, *shape), samples)
    value = sum(value for name, value in losses.items() if 'loss' in name)
    value.backward()
    assert torch.isfinite(value), losses
    trained = [p for p in model.backbone.parameters() if p.grad is not None]
    assert trained and all(torch.isfinite(parameter.grad).all() for parameter in trained)


def one_label() -> list:
    """Samples of two images with one label each."""
    return [DataSample().set_gt_label(label) for label in (0, 1)]


def several_labels() -> list:
    """Samples of two images with two labels and none."""
    return [DataSample().set_gt_label(labels) for labels in ([0, 2], [])]


def labels_of_tasks() -> list:
    """Samples of two images with a label for each of two tasks."""
    found = []
    for sample in one_label():
        tasks = MultiTaskDataSample()
        for name in ('color', 'shape'):
            tasks.set_field(sample.clone(), name)
        found.append(tasks)
    return found


def classes_of(model: dict) -> int:
    """Number of classes of a network's config; 1000 if its head names none."""
    head = model.get('head') or {}
    return head.get('num_classes') or model['backbone'].get('num_classes') or 1000


def small_classifier(classes: int) -> dict:
    """A small ResNet, the other side of each pair."""
    head = dict(LINEAR, num_classes=classes)
    return dict(type='ImageClassifier', backbone=SMALL, neck=POOL, head=head)


@torch.no_grad()
def encode(model: dict) -> None:
    """Encode two images for k-NN, and see that they get different finite rows."""
    torch.manual_seed(0)
    network = MODELS.build(copy.deepcopy(model)).eval()
    image = torch.randn(2, candidate_channels([network.backbone], None)[0], *size_of(network))
    rows = pooled_feature(network, image)
    assert rows.shape[0] == 2 and rows.ndim == 2 and torch.isfinite(rows).all()
    assert not torch.equal(rows[0], rows[1])


@torch.no_grad()
def size_of(network: Any) -> tuple[int, int]:
    """Find a size of images that a network takes, as the dry run of a distillation does."""
    for size in candidate_sizes([network.backbone]):
        try:
            pooled_feature(network, torch.zeros(1, 3, *size))
            return size
        except UserError:
            raise
        except Exception:  # another size
            continue
    raise AssertionError('no size is taken')


@torch.no_grad()
def ten_crops(model: dict, config: str) -> str:
    """Classify the ten crops of an image by the test pipeline of the network's config."""
    pipeline = Config.fromfile(MIM / 'configs' / config).test_dataloader.dataset.pipeline
    views = tta_pipeline(pipeline, 'ten')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'noise.png'
        pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
        Image.fromarray(pixels).resize((800, 600)).save(path)
        data = Compose(views)(dict(img_path=str(path), gt_label=0))
    different = {view.numpy().tobytes() for view in data['inputs']}
    # As high or wide as the image, crops of two corners are the same.
    assert len(data['inputs']) == 10 and len(different) in (6, 10), len(different)
    torch.manual_seed(0)
    network = ScoreMergingTTA(MODELS.build(copy.deepcopy(model))).eval()
    batch = dict(
        inputs=[[view] for view in data['inputs']],
        data_samples=[[sample] for sample in data['data_samples']],
    )
    (sample,) = network.test_step(batch)
    assert torch.isfinite(sample.pred_score).all()
    return WORKS


def cell(action: Callable[[], Any]) -> str:
    """``works``, or the sentence by which it is refused; anything else is raised."""
    try:
        return action() or WORKS
    except UserError as error:
        return f'refused: {error}'


def row_of_family(family: Family) -> list[str]:
    """What works with a network: teacher by two losses, student, encoder, ten crops."""
    model = network_of(family)
    other = small_classifier(classes_of(model))
    is_classifier = family.algorithm == 'ImageClassifier'
    student = {name: model[name] for name in ('backbone', 'neck', 'head') if model.get(name)}
    return [
        cell(lambda: train_step(distiller(other, model, 'LogitKL'))),
        cell(lambda: train_step(distiller(other, model, 'FeatureKL'))),
        cell(lambda: train_step(distiller(student, other, 'LogitKL'))) if is_classifier else '–',
        cell(lambda: encode(model)),
        cell(lambda: ten_crops(model, family.config))
        if is_classifier and model.get('head')
        else '–',
    ]


def row_of_head(name: str) -> list[str]:
    """What works with a head: teacher by two losses, student by four, prediction as a teacher."""
    parts = dict(dict(backbone=SMALL, neck=POOL), **HEADS[name])
    if parts['backbone'] is not SMALL:
        parts['neck'] = None
    model = {key: value for key, value in parts.items() if value}
    classifier = dict(model, type='ImageClassifier')
    several = 'MultiLabel' in name or 'CSRA' in name
    # A head without weights has as many classes as features.
    classes = 64 if name == 'ClsHead' else 4
    student = classifier if several else small_classifier(classes)
    samples = several_labels if several else one_label
    own = labels_of_tasks if name == 'MultiTaskHead' else samples
    teacher = classifier if several else small_classifier(classes)

    def predict() -> None:
        network = distiller(student, classifier, 'FeatureKL').eval()
        network.predict_teacher = True
        (frozen,) = network.beside
        images = torch.randn(2, *frozen.known_shape)
        with torch.no_grad():
            found = torch.stack([sample.teacher_score for sample in network.predict(images)])
            expected = torch.stack([s.pred_score for s in frozen.network.predict(images)])
        torch.testing.assert_close(found, expected)

    return [
        cell(lambda: train_step(distiller(student, classifier, 'LogitKL'), samples)),
        cell(lambda: train_step(distiller(student, classifier, 'FeatureKL'), samples)),
        cell(lambda: train_step(distiller(model, teacher, 'LogitKL'), own)),
        cell(lambda: train_step(distiller(model, teacher, 'FeatureKL'), own)),
        cell(lambda: train_step(distiller(model, teacher, 'DKD'), own)),
        cell(lambda: train_step(distiller(model, teacher, 'DIST'), own)),
        cell(predict),
    ]


def table(title: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table, with the sentences of refusals below it."""
    sentences: list[str] = []
    lines = [f'| {" | ".join(title)} |', f'|{" --- |" * len(title)}']
    for row in rows:
        cells = []
        for value in row:
            if value.startswith('refused: '):
                sentence = value.removeprefix('refused: ')
                if sentence not in sentences:
                    sentences.append(sentence)
                value = f'refused ({sentences.index(sentence) + 1})'
            cells.append(value)
        lines.append(f'| {" | ".join(cells)} |')
    notes = [f'{number}. {sentence}' for number, sentence in enumerate(sentences, 1)]
    return [*lines, *(['', 'Refused with the sentence:', '', *notes] if notes else []), '']


INTRODUCTION = """# Which networks work

Made by `python docs/list_families.py`, which tries each cell with random weights: one training
step as teacher and as student, a feature for k-NN, ten crops of an image. `make test-all` does the
same. Nothing in these tables fails in another way than by a sentence.

The backbones are those of MMPretrain's model index, in their smallest member. Features are pooled
as the backbone means them: feature maps are averaged, of tokens the class token is taken, or their
mean where there is no class token. VGG, AlexNet, LeNet-5 and Inception v3 end in their own
classifier unless `num_classes` is -1; then their feature is what they put out, the class scores.
Models that read texts (BLIP, OFA and others) have no backbone of this kind and cannot be teachers.

Classifiers of timm (`TimmClassifier`) and Hugging Face (`HuggingFaceClassifier`) can be teachers
and encoders, too: their feature is the input of their last layer.

## Backbones
"""


def prepare() -> None:
    """Set what all rows share."""
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)
    init_default_scope('mmpretrain')


def main() -> None:
    """Try all families and heads, and write the page; or print the rows asked for."""
    parser = argparse.ArgumentParser(description='Write docs/families.md.')
    parser.add_argument('names', nargs='*', help='backbones or heads whose rows are printed')
    names = parser.parse_args().names
    prepare()
    networks, heads = [], []
    for family in families():
        if not names or family.backbone in names:
            networks.append([family.backbone, family.algorithm, *row_of_family(family)])
            print(*networks[-1], sep=' | ', flush=True)
    for name in HEADS:
        if not names or name in names:
            heads.append([name, *row_of_head(name)])
            print(*heads[-1], sep=' | ', flush=True)
    if names:
        return
    teacher = ['teacher, LogitKL', 'teacher, FeatureKL']
    student = [f'student, {loss}' for loss in ('LogitKL', 'FeatureKL', 'DKD', 'DIST')]
    lines = [
        INTRODUCTION,
        *table(['backbone', 'algorithm', *teacher, 'student', 'k-NN', 'ten crops'], networks),
        '## Heads',
        '',
        *table(['head', *teacher, *student, 'TeacherAccuracy'], heads),
    ]
    PAGE.write_text('\n'.join(lines).rstrip() + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
