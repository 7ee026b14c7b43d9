"""Files of predictions: what they hold, what does not match, and what is no such file."""

from __future__ import annotations

import os
import pickle

import pytest
import torch
from mmengine.evaluator import DumpResults
from mmpretrain.structures import DataSample

from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import (
    DumpPredictions,
    Predictions,
    check_disjoint,
    check_same_images,
    load_predictions,
    save_predictions,
    save_submission,
)


def samples(count=6, classes=4, split='val', seed=0, **known):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(count, classes, generator=generator).softmax(1)
    made = []
    for number, score in enumerate(scores):
        sample = DataSample(metainfo=dict(sample_idx=number, img_path=f'{split}/{number}.png'))
        sample.set_gt_label(number % classes).set_pred_score(score).set_pred_label(score.argmax())
        made.append(sample.to_dict() | known)
    return made


def dump(path, metric=DumpPredictions, **options):
    writer = metric(str(path))
    writer.process(None, samples(**options))
    writer.compute_metrics(writer.results)
    return str(path)


@pytest.mark.parametrize('metric', [DumpPredictions, DumpResults])
def test_what_was_written_is_read(tmp_path, metric):
    """Ours and MMEngine's."""
    found = load_predictions(dump(tmp_path / 'a.pkl', metric))
    expected = samples()
    assert torch.equal(found.scores, torch.stack([s['pred_score'] for s in expected]))
    assert found.labels.tolist() == [0, 1, 2, 3, 0, 1]
    assert found.images == [f'val/{n}.png' for n in range(6)]
    assert found.correct().tolist() == [
        int(s['pred_label']) == n % 4 for n, s in enumerate(expected)
    ]


def test_a_file_does_not_grow_with_the_batch(tmp_path):
    ours = os.path.getsize(dump(tmp_path / 'a.pkl', count=100, classes=200))
    theirs = os.path.getsize(dump(tmp_path / 'b.pkl', DumpResults, count=100, classes=200))
    scores = 100 * 200 * 4
    assert scores < ours < 3 * scores
    assert theirs > 50 * scores  # the fault that ours bridges


def test_an_ensemble_is_written_like_a_member(tmp_path):
    member = load_predictions(dump(tmp_path / 'a.pkl'))
    save_predictions(str(tmp_path / 'new/b.pkl'), member)
    again = load_predictions(str(tmp_path / 'new/b.pkl'))
    assert torch.equal(again.scores, member.scores) and torch.equal(again.labels, member.labels)
    assert again.images == member.images
    assert os.listdir(tmp_path / 'new') == ['b.pkl']
    unlabeled = Predictions(member.scores, None, ['0', '1', '2', '3', '4', '5'], 'x')
    save_predictions(str(tmp_path / 'c.pkl'), unlabeled)
    again = load_predictions(str(tmp_path / 'c.pkl'))
    assert again.labels is None and again.images == unlabeled.images


class Evil:
    def __reduce__(self):
        return os.mkdir, ('evil',)


def test_what_is_no_file_of_predictions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = tmp_path / 'whole.pkl'
    dump(whole)
    (tmp_path / 'cut.pkl').write_bytes(whole.read_bytes()[:-300])
    (tmp_path / 'empty.pkl').touch()
    (tmp_path / 'garbage.pkl').write_bytes(bytes(range(256)))
    (tmp_path / 'evil.pkl').write_bytes(pickle.dumps([dict(pred_score=Evil())]))
    for name in ('cut', 'empty', 'garbage', 'evil'):
        with pytest.raises(UserError, match=f'{name}.pkl is truncated, or no file of predictions'):
            load_predictions(f'{name}.pkl')
    assert not os.path.exists('evil')
    with pytest.raises(UserError, match='no file of predictions missing.pkl: make it by'):
        load_predictions('missing.pkl')
    for value, message in (
        ({}, 'holds no list'),
        ([], 'holds no list'),
        ([{}], 'without pred_score'),
        (samples(2) + samples(2, classes=5), 'scores of different shapes'),
        (samples(pred_score=torch.tensor([3.0, -1.0, 0.0, 0.0])), 'are no probabilities'),
        (samples(pred_score=torch.tensor([float('nan')] * 4)), 'are no probabilities'),
        (samples(gt_label=torch.tensor([7])), 'classes from 7 to 7, but scores of 4'),
    ):
        (tmp_path / 'x.pkl').write_bytes(pickle.dumps(value))
        with pytest.raises(UserError, match=message):
            load_predictions('x.pkl')
    with pytest.raises(UserError, match='--out is scores.json: give another name'):
        DumpPredictions('scores.json')


def made(scores, images, labels=None, name='a.pkl'):
    return Predictions(scores, labels, images, name)


def test_members_have_to_match():
    scores = torch.full((3, 2), 0.5)
    one = made(scores, ['x/a', 'x/b', 'x/c'], torch.tensor([0, 1, 1]))
    check_same_images([one, one])
    for other, message in (
        (made(scores[:2], ['x/a', 'x/b'], name='b'), 'a.pkl and b are of 3 and 2 images'),
        (made(torch.full((3, 4), 0.25), one.images), 'are of 2 and 4 classes'),
        (made(scores, ['x/a', 'x/c', 'x/b']), 'differ in their order: number 1 is x/b in one'),
        (made(scores, ['x/a', 'x/b', 'y/c']), 'differ in their images: number 2 is x/c in one'),
        (made(scores, one.images, torch.tensor([0, 1, 0])), 'differ in the labels'),
        (made(scores, one.images), 'differ in the labels'),
    ):
        with pytest.raises(UserError, match=message):
            check_same_images([one, other])


def test_what_is_fitted_and_what_is_reported_have_no_image_in_common():
    scores = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).softmax(1)
    val = made(scores, ['x/a', 'x/b', 'x/c'])
    check_disjoint([val], [made(scores, ['y/a', 'y/b', 'y/c'])])
    with pytest.raises(UserError, match='share 1 images, such as x/c: weights fitted'):
        check_disjoint([val], [made(scores, ['y/a', 'y/b', 'x/c'])])
    # Without paths every split has the indices 0, 1, ...: scores tell.
    val = made(scores, ['0', '1', '2'])
    check_disjoint([val], [made(scores.flip(1), ['0', '1', '2'])])
    with pytest.raises(UserError, match='share 3 images'):
        check_disjoint([val], [made(scores.clone(), ['0', '1', '2'])])


def test_submission(tmp_path):
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2]])
    path = tmp_path / 'submission.csv'
    save_submission(str(path), made(scores, ['t/img_1.JPEG', 't/img_0.JPEG']))
    assert path.read_text() == 'Image IDs,Predictions\nimg_1.JPEG,1\nimg_0.JPEG,0\n'
    with pytest.raises(UserError, match='two images with the name a'):
        save_submission(str(tmp_path / 'b.csv'), made(scores, ['x/a', 'y/a']))
    with pytest.raises(UserError, match='has no paths of images'):
        save_submission(str(tmp_path / 'b.csv'), made(scores, ['0', '1']))
    assert os.listdir(tmp_path) == ['submission.csv']
