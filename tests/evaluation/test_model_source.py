"""Which model made predictions, and whether it was trained on the images."""

from __future__ import annotations

import pickle

import pytest
import torch
from helpers import ROOT
from mmengine.config import Config

from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import (
    DumpPredictions,
    ModelSource,
    Predictions,
    check_not_trained_on,
    load_predictions,
    save_predictions,
)
from ipirm_mm.evaluation.model_source import selections, shared_selection

TRAIN = dict(type='VIPriors', data_root='data/vipriors', split='train', pipeline=[dict(type='X')])


def checkpoint(path, config):
    """What MMEngine saves: its config is text."""
    torch.save(dict(state_dict={}, meta=dict(cfg=config.pretty_text)), path)
    return str(path)


@pytest.mark.parametrize(
    'name',
    [
        'distill/kl_resnest101_330',
        'final/final_kl_resnest101_330',
        'quickstart/student_kl',
        'cifar100/simclr_cifar100',
    ],
)
def test_a_checkpoint_tells_what_it_was_trained_on(tmp_path, name):
    """As the config does; and the options of the training's command line, which it does not."""
    path = f'configs/{name}.py'
    config = Config.fromfile(ROOT / path)
    file = checkpoint(tmp_path / 'a.pth', config)
    source = ModelSource.of(path, file, Config(dict()))
    expected = selections(config.train_dataloader.dataset)
    assert source.trained_on == expected and expected[0]['type'] and len(expected) == 1
    assert 'pipeline' not in expected[0]
    assert (source.name, source.checkpoint) == (name.split('/')[-1], file)
    changed = Config.fromfile(ROOT / path)
    changed.merge_from_dict({'train_dataloader.dataset.split': ['train', 'val']})
    file = checkpoint(tmp_path / 'b.pth', changed)
    source = ModelSource.of(path, file, config)
    assert source.trained_on[0]['split'] == ['train', 'val']
    assert source.predicted == selections(config.test_dataloader.dataset)
    # Without a config in it, that of the command line.
    torch.save(dict(state_dict={}), tmp_path / 'c.pth')
    source = ModelSource.of(path, str(tmp_path / 'c.pth'), config)
    assert source.trained_on == expected


@pytest.mark.parametrize(
    'text', ['', 'x = (', 'train_dataloader = open("MARK", "w")', 'train_dataloader = 3', 7]
)
def test_text_in_a_checkpoint_is_not_run(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={}, meta=dict(cfg=text)), 'a.pth')
    assert ModelSource.of('a.py', 'a.pth', Config(dict())).trained_on == []
    call = 'train_dataloader = dict(dataset=dict(type="A", split=open("MARK", "w"), x=1))'
    torch.save(dict(state_dict={}, meta=dict(cfg=call)), 'a.pth')
    (found,) = ModelSource.of('a.py', 'a.pth', Config(dict())).trained_on
    assert found == dict(type='A', split=None, x=1)
    assert not (tmp_path / 'MARK').exists()


def test_wrappers_of_data_sets():
    inner = dict(type='mmpretrain.CustomDataset', data_prefix='a')
    plain = [dict(type='CustomDataset', data_prefix='a')]
    assert selections(None) == []
    assert selections(dict(type='RepeatDataset', times=2, dataset=inner)) == plain
    assert selections(dict(type='ConcatDataset', datasets=[inner, TRAIN])) == [
        *plain,
        dict(type='VIPriors', data_root='data/vipriors', split='train'),
    ]


@pytest.mark.parametrize(
    'trained,predicted,shared',
    [
        ({}, {}, 'VIPriors split train in data/vipriors'),
        ({'split': ['train', 'val']}, {'split': 'val'}, 'VIPriors split val in data/vipriors'),
        ({'split': ['train', 'val']}, {'split': ['val', 'train']}, 'split train, val in'),
        ({}, {'split': 'val'}, None),
        ({'split': ['train', 'val']}, {'split': 'test'}, None),
        ({'data_root': './data//vipriors/'}, {'per_class': None}, 'split train'),
        ({'data_root': 'elsewhere'}, {}, None),  # not known
        ({'type': 'Other'}, {}, None),
        ({'indices': 7}, {}, None),
        ({'ann_file': ''}, {}, 'split train'),
        ({'split': None}, {'split': None}, 'VIPriors in data/vipriors'),
    ],
)
def test_which_images_are_shared(trained, predicted, shared):
    one, two = selections({**TRAIN, **trained}), selections({**TRAIN, **predicted})
    for pair in ((one, two), ([dict(type='X'), *one], [dict(type='Y'), *two])):
        found = shared_selection(*pair)
        assert found is None if shared is None else shared in found
        assert (shared_selection(*reversed(pair)) is None) == (shared is None)


def predictions(source):
    return Predictions(torch.full((2, 2), 0.5), None, ['v/a', 'v/b'], 'a.pkl', source=source)


def test_weights_are_not_fitted_on_images_of_the_training():
    both = selections({**TRAIN, 'split': ['train', 'val']})
    val = selections({**TRAIN, 'split': 'val'})
    good = ModelSource('a', 'a.pth', selections(TRAIN), val)
    bad = ModelSource('final_b', 'b.pth', both, val)
    check_not_trained_on([predictions(good), predictions(None)], 'remedy')
    with pytest.raises(
        UserError,
        match=r'a\.pkl .*: the model final_b \(b\.pth\) was trained on these images, VIPriors '
        r'split val in data/vipriors; remedy',
    ):
        check_not_trained_on([predictions(good), predictions(bad)], 'remedy')


def test_files_of_predictions_carry_their_model(tmp_path):
    """Once, and not per image."""
    source = ModelSource('a', 'a.pth', selections(TRAIN), selections(TRAIN))
    path = str(tmp_path / 'a.pkl')
    save_predictions(path, predictions(source))
    assert load_predictions(path).source == source
    writer = DumpPredictions(path, None, None, source)
    score = torch.tensor([0.25, 0.75])
    writer.process(None, [dict(pred_score=score, img_path=f'v/{n}') for n in range(200)])
    size = len(pickle.dumps(writer.results))
    writer.compute_metrics(writer.results)
    assert load_predictions(path).source == source
    assert (tmp_path / 'a.pkl').stat().st_size < size + 200 * 30
    save_predictions(path, predictions(None))
    assert load_predictions(path).source is None
    for wrong in (3, 'a', {}, dict(name=3), [source.as_dict()]):
        assert ModelSource.from_dict(wrong) is None
    odd = ModelSource.from_dict(dict(name='a', checkpoint=3, trained_on=[3], predicted=None))
    assert odd == ModelSource('a')


def folds(fold, test_mode, **more):
    wrapper = dict(type='KFoldDataset', num_splits=5, fold=fold, test_mode=test_mode, seed=0)
    return selections({**wrapper, **more, 'dataset': TRAIN})


def test_parts_of_a_data_set_share_the_images_that_they_have_in_common():
    rest, held_out = folds(0, False), folds(0, True)
    assert not shared_selection(rest, held_out)  # what a student of `distill` is tested on
    assert not shared_selection(folds(1, True), held_out)
    for predicted in (rest, folds(1, False), folds(1, True), selections(TRAIN)):
        assert shared_selection(rest, predicted)
    assert shared_selection(selections(TRAIN), held_out)
    assert shared_selection(rest, folds(0, True, seed=1))  # other parts
    assert shared_selection(rest, folds(0, True, num_splits=4))


@pytest.mark.parametrize('other', [{'split': ['train', 'val']}, {'per_class': 3}])
def test_parts_of_other_images_are_not_taken_for_the_rest(other):
    wrapper = dict(type='KFoldDataset', num_splits=5, seed=0)
    trained = selections(dict(wrapper, dataset={**TRAIN, **other}))
    assert shared_selection(trained, folds(0, True))
    twice = [dict(type='ConcatDataset', datasets=[TRAIN, TRAIN]), dict(wrapper, dataset=TRAIN)]
    for dataset in twice:  # an image may be in both parts
        parts = [selections(dict(wrapper, dataset=dataset, test_mode=t)) for t in (False, True)]
        assert shared_selection(*parts)


def test_parts_are_those_of_the_data_set():
    """As KFoldDataset makes them: the claims above, with numbers of images."""
    from mmpretrain.datasets import KFoldDataset

    def images(fold, test_mode):
        inner = dict(type='FashionMNIST50', split='val', pipeline=[])
        data = KFoldDataset(inner, fold, 5, test_mode, 0)
        return {data.get_data_info(number)['img'].tobytes() for number in range(len(data))}

    assert not images(0, False) & images(0, True) and not images(1, True) & images(0, True)
    assert images(0, False) & images(1, True) and images(0, False) & images(1, False)
