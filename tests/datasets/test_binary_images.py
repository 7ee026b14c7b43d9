"""STL10 and CIFAR-100 on small files of the binary formats."""

from __future__ import annotations

import numpy as np
import pytest

from ipirm_mm.datasets import STL10, CIFAR100Binary
from ipirm_mm.errors import UserError


@pytest.fixture
def images():
    """RGB images, (N, 96, 96, 3)."""
    return np.random.default_rng(0).integers(0, 256, (6, 96, 96, 3), dtype=np.uint8)


@pytest.fixture
def stl10(tmp_path, images):
    # One image after the other; channels R, G, B; each channel column by column.
    for split, part in (('train', images[:3]), ('test', images[3:5]), ('unlabeled', images[5:])):
        part.transpose(0, 3, 2, 1).tofile(tmp_path / f'{split}_X.bin')
    np.array([1, 10, 4], np.uint8).tofile(tmp_path / 'train_y.bin')
    np.array([2, 2], np.uint8).tofile(tmp_path / 'test_y.bin')
    return tmp_path


def test_stl10(stl10, images):
    train = STL10('train', data_root=str(stl10))
    assert [sample['gt_label'] for sample in train] == [0, 9, 3]
    for sample, image in zip(train, images):
        np.testing.assert_array_equal(sample['img'], image[..., ::-1])
        assert sample['img'].flags.c_contiguous and type(sample['img']) is np.ndarray
        assert sample['img_shape'] == (96, 96)
    both = STL10(['train', 'unlabeled'], data_root=str(stl10))
    assert len(both) == 4 and 'gt_label' not in both[0] and both[3]['sample_idx'] == 3
    np.testing.assert_array_equal(both[3]['img'], images[5, ..., ::-1])
    assert len(STL10('train', data_root=str(stl10), indices=2)) == 2


def test_cifar100(tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    records = np.zeros((4, 3074), np.uint8)
    records[:, 0], records[:, 1] = [5, 6, 7, 8], [99, 0, 17, 42]
    records[:, 2:] = images.transpose(0, 3, 1, 2).reshape(4, -1)
    records[:3].tofile(tmp_path / 'train.bin')
    records[3:].tofile(tmp_path / 'test.bin')
    data = CIFAR100Binary(['train', 'test'], data_root=str(tmp_path))
    assert list(data.get_gt_labels()) == [99, 0, 17, 42]  # the fine ones
    for sample, image in zip(data, images):
        np.testing.assert_array_equal(sample['img'], image[..., ::-1])
    assert len(data.metainfo['classes']) == 100
    records[0, 1] = 100
    records.tofile(tmp_path / 'train.bin')
    with pytest.raises(UserError, match='is not CIFAR-100: it has a label 100'):
        CIFAR100Binary('train', data_root=str(tmp_path))


def test_bad_files(stl10, tmp_path):
    path = stl10 / 'train_X.bin'
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=f'{path} is damaged: it has 82,943 bytes'):
        STL10('train', data_root=str(stl10))
    with pytest.raises(UserError, match='test_y.bin does not belong to test_X.bin'):
        np.array([0, 2], np.uint8).tofile(stl10 / 'test_y.bin')
        STL10('test', data_root=str(stl10))
    with pytest.raises(UserError, match='test_y.bin is damaged: it has 0 bytes'):
        (stl10 / 'test_y.bin').write_bytes(b'')
        STL10('test', data_root=str(stl10))
    with pytest.raises(UserError, match='train.bin is missing: unpack cifar-100-binary.tar.gz'):
        CIFAR100Binary(data_root=str(tmp_path))
    with pytest.raises(UserError, match="STL10.split must be of .* but is 'val'"):
        STL10('val', data_root=str(stl10))
