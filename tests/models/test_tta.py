"""Views of a batch through the network together, merged, with labels that agree."""

from __future__ import annotations

import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from ipirm_mm.errors import UserError
from ipirm_mm.functional import merge_scores


def classifier():
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='SmallConvNet', channels=(8, 16)),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=5, in_channels=16),
            data_preprocessor=dict(mean=[100.0] * 3, std=[50.0] * 3),
        )
    )
    model.eval()
    return model


def data(views, count=4, sizes=None):
    generator = torch.Generator().manual_seed(0)
    sizes = sizes or [16] * views
    inputs = [255 * torch.rand(count, 3, size, size, generator=generator) for size in sizes]
    samples = [[DataSample().set_gt_label(n % 5) for n in range(count)] for _ in range(views)]
    return dict(inputs=inputs, data_samples=samples)


@pytest.mark.parametrize('policy', ['mean', 'gmean', 'tsharpen'])
@pytest.mark.parametrize('sizes', [[16] * 3, [16, 24, 16]])
@pytest.mark.parametrize('max_images', [None, 1, 5])
def test_views_are_merged(policy, sizes, max_images):
    model = classifier()
    tta = MODELS.build(
        dict(type='ScoreMergingTTA', module=model, policy=policy, max_images=max_images)
    )
    batch = data(3, sizes=sizes)
    passes = []
    model.backbone.register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    merged = tta.test_step(batch)
    # On processors a view at a time, if nothing else is said.
    assert max(passes) <= (max_images or len(batch['inputs'][0]))
    assert sum(passes) == 12
    scores = torch.stack(
        [
            torch.stack([s.pred_score for s in model.test_step(dict(inputs=x, data_samples=None))])
            for x in batch['inputs']
        ]
    )
    expected = merge_scores(scores, policy)
    torch.testing.assert_close(torch.stack([s.pred_score for s in merged]), expected)
    assert [int(s.pred_label) for s in merged] == expected.argmax(1).tolist()
    assert [int(s.gt_label) for s in merged] == [0, 1, 2, 3]


def test_label_is_the_merged_scores():
    """Where MMPretrain's average keeps the first view's."""
    tta = MODELS.build(dict(type='ScoreMergingTTA', module=classifier()))
    views = []
    for score in ([0.6, 0.4], [0.1, 0.9]):
        sample = DataSample().set_pred_score(torch.tensor(score))
        views.append(sample.set_pred_label(torch.tensor(score).argmax()))
    (merged,) = tta.merge_preds([tuple(views)])
    torch.testing.assert_close(merged.pred_score, torch.tensor([0.35, 0.65]))
    assert int(merged.pred_label) == 1


def test_where_memory_ends_fewer_images_go_at_once():
    model = classifier()
    tta = MODELS.build(dict(type='ScoreMergingTTA', module=model, max_images=100))
    sizes = []

    def limit(module, args):
        sizes.append(len(args[0]))
        if len(args[0]) > 4:
            raise torch.cuda.OutOfMemoryError('no room')

    model.backbone.register_forward_pre_hook(limit)
    merged = tta.test_step(data(3))
    assert len(merged) == 4 and sizes == [12, 6, 3, 3, 3, 3]


def test_what_is_refused():
    with pytest.raises(UserError, match="'tsharpen'.*but is 'median'"):
        MODELS.build(dict(type='ScoreMergingTTA', module=classifier(), policy='median'))
    with pytest.raises(UserError, match='max_images must be at least 1'):
        MODELS.build(dict(type='ScoreMergingTTA', module=classifier(), max_images=0))
