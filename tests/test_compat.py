"""Each bridge, against the fault that it bridges."""

from __future__ import annotations

import copy
import importlib.metadata
import os
import pickle
from pathlib import Path

import mmcv
import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset, Compose
from mmengine.logging import HistoryBuffer
from mmpretrain.registry import TRANSFORMS
from PIL import Image

from ipirm_mm import compat

STOCK = Path(mmpretrain.__file__).parent / '.mim' / 'configs'


class Evil:
    def __reduce__(self):
        return (os.mkdir, ('evil',))


class Numbers(BaseDataset):
    def load_data_list(self):
        return [dict(number=number) for number in range(4)]


class Shift:
    def __call__(self, results):
        return results


class Reach:
    """Tries to get hold of a function through the one that is allowed."""

    def __reduce__(self):
        return (getattr, (HistoryBuffer, '__init__'))


def test_history_buffers_load_and_other_types_do_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    buffer = HistoryBuffer()
    buffer.update(1.5)
    buffer.update(np.float64(2.5), 3)
    state = dict(
        log=buffer, scalar=np.float32(3), array=np.arange(3), integer=np.int64(4), meta=dict(a=[1])
    )
    torch.save(state, 'good.pth')
    loaded = torch.load('good.pth', weights_only=True)
    assert loaded['log'].data[0].tolist() == [1.5, 2.5]
    assert loaded['scalar'] == 3 and loaded['array'].tolist() == [0, 1, 2]
    for evil in (Evil(), Reach()):
        torch.save(dict(state, evil=evil), 'bad.pth')
        with pytest.raises(pickle.UnpicklingError):
            torch.load('bad.pth')
    assert not Path('evil').exists()


def reference_hue(image, factor):
    """What NumPy 1 computed, by the definition: add the cut-off shift modulo 256."""
    hsv = np.array(Image.fromarray(image[..., ::-1]).convert('HSV'))
    hue = (hsv[..., 0].astype(int) + int(factor * 255)) % 256
    hsv[..., 0] = hue.astype(np.uint8)
    return np.array(Image.fromarray(hsv, 'HSV').convert('RGB'))[..., ::-1]


@pytest.mark.parametrize('factor', [-0.5, -0.3, -0.1, -0.001, 0.0, 0.2, 0.5])
def test_hue(factor):
    image = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    ours = mmcv.adjust_hue(image, factor, backend='pillow')
    np.testing.assert_array_equal(ours, reference_hue(image, factor))
    assert mmcv.adjust_hue(image, factor, backend='cv2').dtype == np.uint8


@pytest.mark.parametrize('factor', [-0.6, 0.6])
def test_hue_out_of_range_is_still_refused(factor):
    with pytest.raises(ValueError, match='not in'):
        mmcv.adjust_hue(np.zeros((2, 2, 3), np.uint8), factor)


def test_bridges_twice_change_nothing_more():
    before = mmcv.adjust_hue
    compat.apply_bridges()
    assert mmcv.adjust_hue is before


def test_subsets_share_nothing():
    whole = Numbers(pipeline=[Shift()])
    first, second = whole.get_subset([0]), whole.get_subset([1])
    assert first.pipeline is not second.pipeline


def test_a_data_set_that_was_freed_comes_back_in_no_subset():
    for _ in range(50):
        Numbers(serialize_data=False).get_subset([0])
        whole = Numbers(pipeline=[Shift() for _ in range(50)], serialize_data=False)
        assert {type(step) for step in whole.get_subset([0]).pipeline.transforms} == {Shift}


def test_stock_simclr_pipeline_runs(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (300, 280, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / 'image.png')
    config = Config.fromfile(STOCK / '_base_/datasets/imagenet_bs32_simclr.py')
    pipeline = Compose([TRANSFORMS.build(step) for step in config.train_pipeline])
    for seed in range(20):
        np.random.seed(seed)
        packed = pipeline(dict(img_path=str(tmp_path / 'image.png'), sample_idx=0))
        assert [tuple(view.shape) for view in packed['inputs']] == [(3, 224, 224)] * 2


@pytest.mark.parametrize(
    'versions,message',
    [
        ({'mmengine': None, 'onedl-mmengine': None}, 'needs mmengine >= 0.10.0, which is not'),
        ({'mmpretrain': '1.0.0'}, 'needs mmpretrain >= 1.2.0, but 1.0.0 is installed'),
        ({'torch': '1.13.1+cu117'}, r'needs torch >= 2.1, but 1.13.1\+cu117 is installed'),
    ],
)
def test_packages_are_named_with_the_command(monkeypatch, versions, message):
    true_version = importlib.metadata.version

    def version(name):
        if name in versions:
            if versions[name] is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]
        return true_version(name)

    def no_module(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib.metadata, 'version', version)
    monkeypatch.setattr(compat.importlib, 'import_module', no_module)
    with pytest.raises(ImportError, match=message) as caught:
        compat.check_packages()
    assert "pip install 'ipirm_mm[openmmlab]'" in str(caught.value)


def test_packages_that_are_installed_pass():
    compat.check_packages()


def test_the_fork_is_accepted_under_its_own_names(monkeypatch):
    fork = {'onedl-mmengine': '0.10.12', 'onedl-mmpretrain': '1.3.6'}
    true_version = importlib.metadata.version

    def version(name):
        if name in ('mmengine', 'mmpretrain'):
            raise importlib.metadata.PackageNotFoundError(name)
        return fork.get(name) or true_version(name)

    monkeypatch.setattr(importlib.metadata, 'version', version)
    compat.check_packages()


def test_without_a_launcher_the_config_is_left_alone():
    config = ConfigDict(launcher='none', env_cfg=dict(dist_cfg=dict(backend='nccl')))
    before = copy.deepcopy(config)
    compat.prepare_cpu_distributed(config)
    assert config == before
