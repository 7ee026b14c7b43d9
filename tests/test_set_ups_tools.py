"""Checkpoints, weights of ensembles, images and lists in other people's set-ups."""

from __future__ import annotations

import unicodedata
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import EMAHook
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from ipirm_mm.datasets.list_files import read_list
from ipirm_mm.datasets.vipriors import folder_images
from ipirm_mm.engine import CheckWeightsHook
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import Predictions, shared_images
from ipirm_mm.evaluation.matching import same_images
from ipirm_mm.models.utils import as_names, config_class_names, stack_scores


def network(channels=(8, 16)):
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='SmallConvNet', channels=channels),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=channels[-1]),
        )
    )


def runner_of(model):
    return SimpleNamespace(model=model, _load_from='a.pth')


@pytest.mark.parametrize('prefix', ['', 'module.', '_orig_mod.', 'module._orig_mod.'])
@pytest.mark.parametrize('key', ['state_dict', 'model', None])
def test_a_test_loads_weights_under_other_names(prefix, key):
    state = {prefix + name: value for name, value in network().state_dict().items()}
    checkpoint = state if key is None else {key: state}
    model = network()
    CheckWeightsHook().after_load_checkpoint(runner_of(model), checkpoint)
    for name, value in model.state_dict().items():
        assert torch.equal(value, checkpoint['state_dict'][name])


def test_a_test_refuses_weights_that_do_not_fit():
    checkpoint = dict(state_dict=network().state_dict())
    with pytest.raises(UserError, match=r'a\.pth does not fit ImageClassifier: it lacks'):
        CheckWeightsHook().after_load_checkpoint(runner_of(network((8, 16, 16))), checkpoint)


def test_averaged_weights_are_of_the_classifier_under_views():
    views = MODELS.build(dict(type='ScoreMergingTTA', module=network()))
    hook, runner = EMAHook(), runner_of(views)
    hook.before_run(runner)
    assert runner.model is views and hook.src_model is views.module
    assert set(hook.ema_model.module.state_dict()) == set(views.module.state_dict())


@pytest.mark.parametrize('scores', [[4.0, -3.0, 1.0], [90.0, 9.0, 1.0], [float('nan')] * 3])
def test_scores_that_are_no_probabilities_are_not_merged(scores):
    with pytest.raises(UserError, match='no probabilities'):
        stack_scores([DataSample().set_pred_score(torch.tensor(scores))])


def test_images_are_the_same_by_link_and_by_spelling(tmp_path):
    accents = [[unicodedata.normalize(form, '/d/ü.png')] for form in ('NFC', 'NFD')]
    assert same_images(*accents) == [0]
    (tmp_path / 'test').mkdir()
    (tmp_path / 'test/1.png').touch()
    (tmp_path / 'val').symlink_to(tmp_path / 'test')
    one, two = (
        Predictions(torch.rand(1, 3).softmax(1), None, [str(tmp_path / split / '1.png')], split)
        for split in ('val', 'test')
    )
    assert shared_images(one, two) == {one.images[0]}


def test_names_of_classes_in_arrays_and_arguments():
    assert as_names(np.array(['b', 'a'])) == ('b', 'a')
    dataset = dict(type='CustomDataset', classes=['b', 'a'])
    assert config_class_names(dict(train_dataloader=dict(dataset=dataset))) == ('b', 'a')


@pytest.mark.parametrize('line', ['a/1.jpg cat', 'a/1.jpg,cat', 'a/1.jpg -1', 'a/1.jpg 3.0'])
def test_classes_in_lists_that_are_no_numbers_are_refused(tmp_path, line):
    file = tmp_path / 'train.txt'
    file.write_text(line)
    with pytest.raises(UserError, match='line 1: the class of'):
        read_list(file)
    file.write_text('a/my.jpg files/1 2.png\n')  # a name
    assert read_list(file) == [('a/my.jpg files/1 2.png', None)]


def test_folders_named_like_images_are_no_images(tmp_path):
    (tmp_path / 'b.jpg').mkdir()
    (tmp_path / 'a.jpg').touch()
    assert folder_images(tmp_path) == ['a.jpg']
