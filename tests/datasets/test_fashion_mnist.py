"""The embedded data, its converter and its reader."""

from __future__ import annotations

import gzip
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import run_tool
from mmpretrain.registry import DATASETS

from ipirm_mm.datasets import FashionMNIST50, fashion_mnist
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
    """Files of the true format, made small: 520 and 60 images a class."""
    folder = tmp_path_factory.mktemp('idx')
    generator = np.random.default_rng(0)
    for part, per_class in (('train', 520), ('t10k', 60)):
        labels = generator.permutation(np.repeat(np.arange(10, dtype=np.uint8), per_class))
        images = generator.integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
        write_idx(folder / f'{part}-images-idx3-ubyte.gz', images)
        write_idx(folder / f'{part}-labels-idx1-ubyte.gz', labels)
    return folder


@pytest.fixture(scope='module')
def converter():
    spec = importlib.util.spec_from_file_location('converter', CONVERTER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_converter(folder, out):
    return run_tool(CONVERTER, '--folder', folder, '--out', out, check=False)


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


def test_converter_is_deterministic_and_reads_the_full_set(converter, idx_folder, tmp_path):
    finished = run_converter(idx_folder, tmp_path / 'a.npz')
    assert finished.returncode == 0, finished.stderr
    converter.convert(str(idx_folder), str(tmp_path / 'b.npz'))
    assert (tmp_path / 'a.npz').read_bytes() == (tmp_path / 'b.npz').read_bytes()
    with np.load(tmp_path / 'a.npz', allow_pickle=False) as data:
        source = data['train/source']
        full = FashionMNIST50(split='full', data_root=str(idx_folder))
        assert len(full) == 5200
        for position in (0, 17):
            np.testing.assert_array_equal(
                full[int(source[position])]['img'][..., 0], data['train/images'][position]
            )


def test_bad_files_are_named_and_nothing_is_half_written(converter, idx_folder, tmp_path):
    out = tmp_path / 'out.npz'
    folder = tmp_path / 'broken'
    folder.mkdir()
    for path in idx_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    images = folder / 't10k-images-idx3-ubyte.gz'
    write_idx(images, np.zeros((600, 28, 28), np.uint8), cut=100)
    with pytest.raises(UserError, match=f'{images} is truncated'):
        converter.convert(folder, out)
    images.write_bytes(images.read_bytes()[:30])
    with pytest.raises(UserError, match=f'{images} cannot be read'):
        converter.convert(folder, out)
    with gzip.open(images, 'wb') as stream:
        stream.write(b'hello world')
    with pytest.raises(UserError, match=f'{images} is not an IDX file'):
        converter.convert(folder, out)
    with gzip.open(images, 'wb') as stream:
        stream.write(bytes([0, 0, 8, 1, 0, 0, 0, 2]) + b'abc')
    with pytest.raises(UserError, match=f'{images} is too long: it has 11 bytes'):
        converter.convert(folder, out)
    write_idx(images, np.zeros((600, 32, 32), np.uint8))
    with pytest.raises(UserError, match='does not hold Fashion-MNIST'):
        converter.convert(folder, out)
    assert list(tmp_path.glob('out*')) == []


def test_too_few_images_are_refused(converter, tmp_path):
    for part, per_class in (('train', 120), ('t10k', 60)):
        labels = np.repeat(np.arange(10, dtype=np.uint8), per_class)
        write_idx(tmp_path / f'{part}-labels-idx1-ubyte.gz', labels)
        images = np.zeros((len(labels), 28, 28), np.uint8)
        write_idx(tmp_path / f'{part}-images-idx3-ubyte.gz', images)
    with pytest.raises(UserError, match='leaves 200 images for unlabeled, but 4000 are needed'):
        converter.convert(str(tmp_path), str(tmp_path / 'out.npz'))


def test_the_command_ends_with_one_sentence(converter, idx_folder, tmp_path, monkeypatch):
    def run(folder, out):
        command = ['fashion_mnist50.py', '--folder', str(folder), '--out', str(out)]
        monkeypatch.setattr(sys, 'argv', command)
        with pytest.raises(SystemExit) as stopped:
            converter.main()
        return stopped.value.code  # a text is printed, and the status is 1

    (tmp_path / 'file').touch()
    out = tmp_path / 'file' / 'out.npz'  # a file cannot hold one
    assert run(idx_folder, out).startswith(f'error: {out} cannot be written')
    sentence = run(tmp_path / 'missing', tmp_path / 'out.npz')
    assert sentence.startswith(f'error: {tmp_path}/missing/train-images-idx3-ubyte.gz is missing')
    assert 'apt-get install dataset-fashion-mnist' in sentence


@pytest.mark.parametrize('damage', ['empty', 'half', 'flipped', 'missing'])
def test_a_damaged_embedded_file_is_named(damage, tmp_path, monkeypatch):
    path = tmp_path / 'data.npz'
    data = bytearray(EMBEDDED_FILE.read_bytes())
    data[5000] ^= 0xFF
    if damage != 'missing':
        path.write_bytes(dict(empty=b'', half=data[: len(data) // 2], flipped=data)[damage])
    monkeypatch.setattr(fashion_mnist, 'EMBEDDED_FILE', path)
    with pytest.raises(UserError, match=f'{path} is missing or damaged'):
        FashionMNIST50()


def test_bad_split():
    with pytest.raises(UserError, match="split must be of .* but is 'valid'"):
        FashionMNIST50(split='valid')
    with pytest.raises(UserError, match='/nowhere/train-images'):
        FashionMNIST50(split='full', data_root='/nowhere')
    with pytest.raises(UserError, match='split is empty'):
        FashionMNIST50(split=[])
    for split in (['train', 'train'], ['full', 'val'], ['test', 'full_test']):
        with pytest.raises(UserError, match='twice|once'):
            FashionMNIST50(split=split)
