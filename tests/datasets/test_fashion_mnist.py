"""The embedded data, its converter and its reader."""

from __future__ import annotations

import gzip
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmpretrain.datasets import KFoldDataset
from mmpretrain.registry import DATASETS

from ipirm_mm.datasets import FashionMNIST50, base_dataset
from ipirm_mm.datasets.fashion_mnist import EMBEDDED_FILE
from ipirm_mm.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CONVERTER = ROOT / 'tools/dataset_converters/fashion_mnist50.py'


def write_idx(path, array, cut=0):
    header = bytes([0, 0, 8, array.ndim]) + b''.join(n.to_bytes(4, 'big') for n in array.shape)
    with gzip.open(path, 'wb') as stream:
        stream.write((header + array.tobytes())[: -cut or None])


@pytest.fixture(scope='module')
def idx_folder(tmp_path_factory):
    """Files of the true format, made small: 120 and 60 images a class."""
    folder = tmp_path_factory.mktemp('idx')
    generator = np.random.default_rng(0)
    for part, per_class in (('train', 520), ('t10k', 60)):
        labels = generator.permutation(np.repeat(np.arange(10, dtype=np.uint8), per_class))
        images = generator.integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
        write_idx(folder / f'{part}-images-idx3-ubyte.gz', images)
        write_idx(folder / f'{part}-labels-idx1-ubyte.gz', labels)
    return folder


def convert(folder, out):
    return subprocess.run(
        [sys.executable, str(CONVERTER), '--folder', str(folder), '--out', str(out)],
        capture_output=True,
        text=True,
        env={'PYTHONPATH': str(ROOT), 'PATH': ''},
    )


def test_embedded_splits():
    sizes = dict(train=500, val=500, test=500, unlabeled=4000)
    with np.load(EMBEDDED_FILE, allow_pickle=False) as data:
        sources = {split: set(data[f'{split}/source'].tolist()) for split in sizes}
    for split, size in sizes.items():
        dataset = DATASETS.build(dict(type='FashionMNIST50', split=split))
        assert len(dataset) == len(sources[split]) == size
        assert dataset[0]['img'].shape == (28, 28, 3) and dataset[0]['img'].dtype == np.uint8
        if split != 'unlabeled':
            assert np.bincount(dataset.get_gt_labels()).tolist() == [50] * 10
    trained_on = [sources[split] for split in ('train', 'val', 'unlabeled')]
    assert len(set.union(*trained_on)) == 500 + 500 + 4000
    assert EMBEDDED_FILE.stat().st_size < 4_000_000


def test_several_splits_and_indices():
    both = FashionMNIST50(split=['train', 'unlabeled'])
    assert len(both) == 4500 and both[4499]['sample_idx'] == 4499
    np.testing.assert_array_equal(both[500]['img'], FashionMNIST50(split='unlabeled')[0]['img'])
    some = FashionMNIST50(split='train', indices=[5, 3])
    assert [some[i]['sample_idx'] for i in range(2)] == [0, 1]
    np.testing.assert_array_equal(some[1]['img'], FashionMNIST50()[3]['img'])


def test_converter_is_deterministic_and_reads_the_full_set(idx_folder, tmp_path):
    for name in ('a.npz', 'b.npz'):
        finished = convert(idx_folder, tmp_path / name)
        assert finished.returncode == 0, finished.stderr
    assert (tmp_path / 'a.npz').read_bytes() == (tmp_path / 'b.npz').read_bytes()
    with np.load(tmp_path / 'a.npz', allow_pickle=False) as data:
        source = data['train/source']
        full = FashionMNIST50(split='full', data_root=str(idx_folder))
        assert len(full) == 5200
        for position in (0, 17):
            np.testing.assert_array_equal(
                full[int(source[position])]['img'][..., 0], data['train/images'][position]
            )


def test_bad_files_are_named_and_nothing_is_half_written(idx_folder, tmp_path):
    out = tmp_path / 'out.npz'
    finished = convert(tmp_path / 'nowhere', out)
    assert finished.returncode != 0 and 'nowhere/train-images-idx3-ubyte.gz' in finished.stderr
    assert 'apt-get install dataset-fashion-mnist' in finished.stderr
    folder = tmp_path / 'broken'
    folder.mkdir()
    for path in idx_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    images = folder / 't10k-images-idx3-ubyte.gz'
    write_idx(images, np.zeros((600, 28, 28), np.uint8), cut=100)
    finished = convert(folder, out)
    assert f'{images} is truncated' in finished.stderr
    images.write_bytes(images.read_bytes()[:30])
    assert f'{images} cannot be read' in convert(folder, out).stderr
    with gzip.open(images, 'wb') as stream:
        stream.write(b'hello world')
    assert f'{images} is not an IDX file' in convert(folder, out).stderr
    assert list(tmp_path.glob('out*')) == []


def test_bad_split():
    with pytest.raises(UserError, match="split must be of .* but is 'valid'"):
        FashionMNIST50(split='valid')
    with pytest.raises(UserError, match='/nowhere/train-images'):
        FashionMNIST50(split='full', data_root='/nowhere')


def test_ambiguous_indices_are_refused():
    plain = FashionMNIST50(indices=20)
    assert base_dataset(plain) is plain
    assert base_dataset(RepeatDataset(plain, 3)) is plain
    for wrapped in (ConcatDataset([plain, plain]), KFoldDataset(dict(type='FashionMNIST50'))):
        with pytest.raises(UserError, match=f'{type(wrapped).__name__}, in which sample_idx'):
            base_dataset(wrapped)


def test_converter_has_no_side_effect_on_import():
    spec = importlib.util.spec_from_file_location('converter', CONVERTER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PER_CLASS == 50
