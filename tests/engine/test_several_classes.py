"""A training set of a single class is refused, unless it is a part that was asked for."""

from __future__ import annotations

import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmpretrain.datasets import CustomDataset
from torch.utils.data import TensorDataset

from ipirm_mm.datasets import FashionMNIST50
from ipirm_mm.engine.hooks.check_classes_hook import check_several_classes
from ipirm_mm.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Makes folders of empty files, whose names tell the number of the class."""

    def make(*names):
        for name in names:
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
            for number in range(3):
                (tmp_path / name / f'{number}.jpg').touch()
        return CustomDataset(data_root=str(tmp_path))

    return make


def test_folders_one_level_too_deep(folder):
    dataset = folder('train/cat', 'train/dog')
    for wrapped in (dataset, RepeatDataset(dataset, 2), ConcatDataset([dataset, dataset])):
        with pytest.raises(UserError, match='all 6 images have the class 0'):
            check_several_classes(wrapped)


def test_several_classes(folder):
    dataset = folder('cat', 'dog')
    check_several_classes(dataset)
    check_several_classes(RepeatDataset(dataset, 2))
    check_several_classes(FashionMNIST50('train'))


def test_a_part_that_was_asked_for_and_images_without_classes(folder):
    check_several_classes(FashionMNIST50('train', indices=20))
    check_several_classes(FashionMNIST50('unlabeled'))
    check_several_classes(TensorDataset())
    check_several_classes(folder('all').get_subset([0]))
