"""The challenge's data on a small ImageNet of the true layout, and the tool that makes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import run_tool
from PIL import Image

from ipirm_mm.datasets import VIPriors
from ipirm_mm.errors import UserError

CLASSES = ('n01440764', 'n01443537', 'n02099601')
SHAPE = dict(num_classes=3, per_class=2)


def picture(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(value)
    pixels = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format='JPEG')


@pytest.fixture
def folders(tmp_path):
    """Three classes, two images each, in train, val and test."""
    root = tmp_path / 'vipriors'
    for s, split in enumerate(('train', 'val', 'test')):
        for c, name in enumerate(CLASSES):
            for i in range(2):
                picture(root / split / name / f'{name}_{s}{i}.JPEG', 100 * s + 10 * c + i)
    return root


@pytest.fixture
def imagenet(tmp_path):
    """ImageNet's layout: folders of classes, seven images each."""
    for c, name in enumerate(CLASSES):
        for i in range(7):
            picture(tmp_path / 'imagenet/train' / name / f'{name}_{i}.JPEG', 10 * c + i)
    return tmp_path / 'imagenet/train'


def convert(*arguments, check=True):
    return run_tool('tools/dataset_converters/vipriors.py', *arguments, check=check)


def names(dataset):
    return [Path(dataset.get_data_info(i)['img_path']).name for i in range(len(dataset))]


def test_counts_labels_and_order(folders):
    data = VIPriors(data_root=str(folders), split='train', **SHAPE)
    assert names(data) == [f'{name}_0{i}.JPEG' for name in CLASSES for i in range(2)]
    assert list(data.get_gt_labels()) == [0, 0, 1, 1, 2, 2]
    assert data.metainfo['classes'] == CLASSES
    both = VIPriors(data_root=str(folders), split=['train', 'val'], **SHAPE)
    assert names(both)[6:] == [f'{name}_1{i}.JPEG' for name in CLASSES for i in range(2)]
    assert list(both.get_gt_labels()) == [0, 0, 1, 1, 2, 2] * 2
    assert both[7]['sample_idx'] == 7


def test_numbered_folders_are_in_the_order_of_their_value(tmp_path):
    for number in (10, 2, 1):
        picture(tmp_path / 'train' / str(number) / 'a.jpg', number)
    data = VIPriors(data_root=str(tmp_path), num_classes=3, per_class=1)
    assert data.metainfo['classes'] == ('1', '2', '10')


@pytest.mark.parametrize('place', ['test', 'test/imgs'])  # ours, and the challenge's toolkit's
def test_test_split_without_labels(folders, place):
    (folders / place).mkdir(exist_ok=True)
    for number, path in enumerate(sorted((folders / 'test').rglob('*.JPEG'))):
        path.rename(folders / place / f'{number}.JPEG')
    for name in CLASSES:
        (folders / 'test' / name).rmdir()
    data = VIPriors(data_root=str(folders), split='test', **SHAPE)
    assert len(data) == 6 and 'gt_label' not in data[0]
    with pytest.raises(UserError, match='only some of these splits have labels'):
        VIPriors(data_root=str(folders), split=['train', 'test'], **SHAPE)
    assert names(data) == [f'{number}.JPEG' for number in range(6)]
    assert VIPriors(data_root=str(folders), split='train', **SHAPE).metainfo['classes'] == CLASSES
    (folders / place / '0.JPEG').unlink()
    with pytest.raises(UserError, match="'test' has 5 images, but 6 are needed"):
        VIPriors(data_root=str(folders), split='test', **SHAPE)


def test_list_files(folders):
    lines = [
        f'train/{name}/{name}_0{i}.JPEG {c}' for c, name in enumerate(CLASSES) for i in (1, 0)
    ]
    (folders / 'train.txt').write_text('\n'.join(lines) + '\n')
    data = VIPriors(data_root=str(folders), list_file='{split}.txt', **SHAPE)
    assert names(data) == [Path(line.split()[0]).name for line in lines]  # the list's order
    assert list(data.get_gt_labels()) == [0, 0, 1, 1, 2, 2]
    (folders / 'train.txt').write_text('\n'.join([*lines, lines[2]]))
    with pytest.raises(
        UserError, match=r"train.txt names 'train/n01443537/.*' twice, in lines 3 and 7"
    ):
        VIPriors(data_root=str(folders), list_file='{split}.txt', **SHAPE)
    (folders / 'train.txt').write_text('\n'.join(lines[:-1]))
    with pytest.raises(UserError, match="'train' has 1 images of class 2, but 2 are needed"):
        VIPriors(data_root=str(folders), list_file='{split}.txt', **SHAPE)
    (folders / 'train.txt').write_text('\n'.join([*lines, 'a b.JPEG 7']))
    with pytest.raises(UserError, match='has class 7, but classes go from 0 to 2'):
        VIPriors(data_root=str(folders), list_file='{split}.txt', **SHAPE)
    (folders / 'train.txt').write_text('\n'.join([*lines, 'a b.JPEG']))
    with pytest.raises(UserError, match='gives the class of 6 of 7 images'):
        VIPriors(data_root=str(folders), list_file='{split}.txt', **SHAPE)
    (folders / 'train.txt').write_text('../outside.JPEG 0')
    with pytest.raises(UserError, match='line 1: .* is not a path below'):
        VIPriors(data_root=str(folders), list_file='{split}.txt', **SHAPE)
    (folders / 'train.txt').write_text('\n')
    with pytest.raises(UserError, match='train.txt is empty'):
        VIPriors(data_root=str(folders), list_file='{split}.txt', **SHAPE)
    with pytest.raises(UserError, match=r'list file .*val.txt cannot be read'):
        VIPriors(data_root=str(folders), split='val', list_file='{split}.txt', **SHAPE)


def test_missing_class_and_wrong_count(folders):
    (folders / 'val' / CLASSES[1] / f'{CLASSES[1]}_10.JPEG').unlink()
    with pytest.raises(UserError, match=f"'val' has 1 images of class {CLASSES[1]}, but 2 are"):
        VIPriors(data_root=str(folders), split='val', **SHAPE)
    assert len(VIPriors(data_root=str(folders), split='val', num_classes=3, per_class=None)) == 5
    (folders / 'val' / CLASSES[1] / f'{CLASSES[1]}_11.JPEG').unlink()
    with pytest.raises(UserError, match=f"'val' has no image of class {CLASSES[1]}"):
        VIPriors(data_root=str(folders), split='val', **SHAPE)
    (folders / 'val' / CLASSES[1]).rmdir()
    with pytest.raises(UserError, match=f'val lacks 1 of 3 classes, the first is {CLASSES[1]}'):
        VIPriors(data_root=str(folders), split='val', **SHAPE)
    with pytest.raises(UserError, match='has folders of 3 classes, .* but 1000 are needed'):
        VIPriors(data_root=str(folders))
    with pytest.raises(UserError, match="'nowhere', which is not a folder: make it with"):
        VIPriors(data_root='nowhere')
    with pytest.raises(UserError, match="VIPriors.split must be of .* but is 'valid'"):
        VIPriors(data_root=str(folders), split='valid')


def test_converter_draws_a_subset_and_says_what_it_is_not(imagenet, tmp_path):
    printed = convert(imagenet, tmp_path / 'out', '--draw', 0, '--per-class', 2).stdout
    assert '18 images' in printed and 'it is not its data' in printed
    assert 'it is not its data' in (tmp_path / 'out/ORIGIN.txt').read_text()
    convert(imagenet, tmp_path / 'again', '--draw', 0, '--per-class', 2, '--copy')
    seen = []
    for split in ('train', 'val', 'test'):
        data = VIPriors(data_root=str(tmp_path / 'out'), split=split, **SHAPE)
        again = VIPriors(data_root=str(tmp_path / 'again'), split=split, **SHAPE)
        assert names(data) == names(again)
        seen += names(data)
    assert len(set(seen)) == 18  # no image in two splits
    assert (tmp_path / 'out/train' / CLASSES[0]).is_dir()
    assert not any(path.is_symlink() for path in (tmp_path / 'again').rglob('*.JPEG'))


def test_converter_follows_lists(imagenet, tmp_path):
    lists = tmp_path / 'lists'
    lists.mkdir()
    for split, offset in (('train', 0), ('val', 2), ('test', 4)):
        lines = [
            f'{name}/{name}_{offset + i}.JPEG' + ('' if split == 'test' else f' {c}')
            for c, name in enumerate(CLASSES)
            for i in range(2)
        ]
        (lists / f'{split}.txt').write_text('\n'.join(lines))
    convert(imagenet, tmp_path / 'out', '--lists', lists)
    val = VIPriors(data_root=str(tmp_path / 'out'), split='val', **SHAPE)
    assert names(val) == [f'{name}_{2 + i}.JPEG' for name in CLASSES for i in range(2)]
    test = VIPriors(data_root=str(tmp_path / 'out'), split='test', **SHAPE)
    assert len(test) == 6 and 'gt_label' not in test[0]


@pytest.mark.parametrize('case', ['too few', 'missing', 'twice', 'exists', 'no lists'])
def test_converter_refuses_and_leaves_nothing_behind(imagenet, tmp_path, case):
    out, lists = tmp_path / 'out', tmp_path / 'lists'
    lists.mkdir()
    line = f'{CLASSES[0]}/{CLASSES[0]}_0.JPEG 0\n'
    arguments = ['--lists', lists]
    if case == 'too few':
        arguments, message = ['--draw', 0, '--per-class', 3], 'has 7 images, but 9 are needed'
    elif case == 'missing':
        (lists / 'train.txt').write_text(line + 'n9/nothing.JPEG 1\n')
        message = 'the first is n9/nothing.JPEG'
    elif case == 'twice':
        (lists / 'train.txt').write_text(line + line)
        message = 'twice, in lines 1 and 2'
    elif case == 'exists':
        (lists / 'train.txt').write_text(line)
        out.mkdir()
        message = 'is there already'
    else:
        message = 'has no train.txt'
    finished = convert(imagenet, out, *arguments, check=False)
    assert finished.returncode == 1
    assert finished.stderr.startswith('error: ') and message in finished.stderr
    assert len(finished.stderr.splitlines()) == 1
    assert list(tmp_path.glob('out*')) == ([out] if case == 'exists' else [])
