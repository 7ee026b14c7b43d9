"""The challenge's data on a small ImageNet of the true layout, and the tool that makes it."""

from __future__ import annotations

import csv
import pickle
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from challenge import make_challenge
from helpers import ROOT, fails_with, run_tool
from PIL import Image

from ipirm_mm.datasets import VIPriors
from ipirm_mm.datasets.pickled_lists import PickledImage, read_pickled_list
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import Predictions, save_submission

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


@pytest.fixture(scope='module')
def converter():
    """The tool as a module, for cases that need no process of their own."""
    return runpy.run_path(str(ROOT / 'tools/dataset_converters/vipriors.py'))


def convert_here(converter, imagenet, lists, out):
    """What the tool does with ``--lists``; returns what it says of the origin."""
    places, origin = converter['from_lists'](imagenet, lists)
    converter['write'](places, out, origin, False)
    return (out / 'ORIGIN.txt').read_text()


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
        message = 'has no train.pickle and no train.txt'
    finished = convert(imagenet, out, *arguments, check=False)
    assert finished.returncode == 1
    assert finished.stderr.startswith('error: ') and message in finished.stderr
    assert len(finished.stderr.splitlines()) == 1
    assert list(tmp_path.glob('out*')) == ([out] if case == 'exists' else [])


@pytest.fixture(scope='module')
def challenge(tmp_path_factory):
    return make_challenge(tmp_path_factory.mktemp('challenge'), classes=4, per_class=3, size=16)


FOUR = dict(num_classes=4, per_class=3)


def files_of(folder):
    """Content of each file below a folder, by its path there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file() and path.name != 'ORIGIN.txt'
    }


@pytest.mark.parametrize('val', ['flat', 'class folders'])
def test_converter_makes_what_the_toolkit_makes(challenge, converter, tmp_path, val):
    """File by file, from its pickles; also where ImageNet's val has been sorted into classes."""
    imagenet = challenge.imagenet
    if val == 'class folders':
        imagenet = tmp_path / 'imagenet'
        imagenet.mkdir()
        (imagenet / 'train').symlink_to(challenge.imagenet / 'train')
        for number, path in enumerate(sorted((challenge.imagenet / 'val').iterdir())):
            place = imagenet / 'val' / challenge.classes[number % 4] / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    out = tmp_path / 'out'
    if val == 'flat':
        printed = convert(imagenet, out, '--lists', challenge.lists).stdout
    else:
        printed = convert_here(converter, imagenet, challenge.lists, out)
    expected = files_of(challenge.imagenet_50)
    assert len(expected) == 36 and files_of(out) == expected
    for text in (printed, (out / 'ORIGIN.txt').read_text()):
        assert 'train.pickle holds pairs of class folder and file name.' in text
        assert 'test.pickle holds file names.' in text
        assert 'named img_0.JPEG, img_1.JPEG, ... by their position in test.pickle' in text


@pytest.mark.parametrize('place', ['imagenet_50', 'a link'])
def test_the_folder_of_the_toolkit_is_read_as_it_is(challenge, tmp_path, place):
    """And a submission for it has the names that the server knows."""
    root = challenge.imagenet_50
    if place == 'a link':
        root = tmp_path / 'vipriors'
        root.symlink_to(challenge.imagenet_50)
    for split in ('train', 'val', ['train', 'val']):
        data = VIPriors(data_root=str(root), split=split, **FOUR)
        assert len(data) == (12 if isinstance(split, str) else 24)
        assert data.metainfo['classes'] == challenge.classes
    test = VIPriors(data_root=str(root), split='test', **FOUR)
    assert 'gt_label' not in test.get_data_info(0)
    images = [test.get_data_info(n)['img_path'] for n in range(len(test))]
    labels = torch.tensor([challenge.test_labels[Path(image).name] for image in images])
    scores = torch.eye(4)[labels]
    save_submission(str(tmp_path / 's.csv'), Predictions(scores, None, images, 'x'))
    rows = list(csv.reader((tmp_path / 's.csv').open()))[1:]
    assert {name: int(label) for name, label in rows} == challenge.test_labels


def test_test_images_of_text_lists_keep_their_names(challenge, converter, tmp_path):
    lists = tmp_path / 'lists'
    lists.mkdir()
    pairs = pickle.loads((challenge.lists / 'train.pickle').read_bytes())
    lines = [f'train/{name}/{file} {challenge.classes.index(name)}' for name, file in pairs]
    (lists / 'train.txt').write_text('\n'.join(lines))
    test = pickle.loads((challenge.lists / 'test.pickle').read_bytes())
    (lists / 'test.txt').write_text('\n'.join(f'val/{name}' for name in test))
    out = tmp_path / 'out'
    text = convert_here(converter, challenge.imagenet, lists, out)
    assert sorted(path.name for path in (out / 'test').iterdir()) == sorted(test)
    assert 'Test images keep their names' in text and 'A submission needs the names' in text
    # With both kinds of lists it is not known which is meant.
    (lists / 'test.pickle').write_bytes(pickle.dumps(test))
    with pytest.raises(UserError, match=r'has both test\.txt and test\.pickle: remove one'):
        converter['from_lists'](challenge.imagenet, lists)


@pytest.mark.parametrize('case', ['list', 'array', 'labels', 'class dict', 'path dict', 'targets'])
def test_converter_takes_other_pickles(challenge, converter, tmp_path, case):
    """With the same images in the same class folders."""
    lists, out = tmp_path / 'lists', tmp_path / 'out'
    lists.mkdir()
    expected = files_of(challenge.imagenet_50)
    for split in ('train', 'val', 'test'):
        content = pickle.loads((challenge.lists / f'{split}.pickle').read_bytes())
        classes = challenge.classes
        if split == 'test' and case == 'targets':
            content = [(name, f'0000{n}.jpg') for n, name in enumerate(content)]
            expected = {
                f'test/imgs/0000{name[14:-5]}.jpg' if name.startswith('test') else name: data
                for name, data in expected.items()
            }
        elif split == 'test':
            content = np.array(content) if case == 'array' else tuple(content)
        elif case == 'list':
            content = [f'train/{name}/{file}' for name, file in content]
        elif case == 'array':
            content = np.array(content, dtype=object if split == 'val' else None)
        elif case == 'labels':
            content = [(f'{name}/{file}', np.int64(classes.index(name))) for name, file in content]
        elif case == 'class dict':
            content = {c: [file for name, file in content if name == c] for c in classes}
        elif case == 'path dict':
            content = {f'{name}/{file}': classes.index(name) for name, file in content}
        (lists / f'{split}.pickle').write_bytes(pickle.dumps(content))
    text = convert_here(converter, challenge.imagenet, lists, out)
    assert files_of(out) == expected
    assert ('the names that test.pickle gives them' in text) == (case == 'targets')


class Calls:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('place', ['alone', 'inside'])
def test_converter_refuses_a_pickle_that_runs_code(challenge, tmp_path, place):
    """In one sentence; nothing is run, and nothing is written."""
    lists, out, mark = (tmp_path / name for name in ('lists', 'out', 'mark'))
    shutil.copytree(challenge.lists, lists)
    attack = Calls(open, str(mark), 'w')
    content = pickle.loads((lists / 'val.pickle').read_bytes())
    data = pickle.dumps(attack if place == 'alone' else [*content, attack])
    (lists / 'val.pickle').write_bytes(data)
    finished = convert(challenge.imagenet, out, '--lists', lists, check=False)
    fails_with(finished, f'{lists}/val.pickle is refused (', 'open is not allowed')
    assert len(finished.stderr.splitlines()) == 1
    assert not mark.exists() and not list(tmp_path.glob('out*'))
    pickle.loads(data)
    assert mark.exists()  # the attack works where it is let


def nested():
    content = ['a.JPEG']
    content.append(content)
    return content


@pytest.mark.parametrize(
    'content,message',
    [
        (3, 'holds a int: expected pairs of class folder'),
        ([], 'holds a list of 0 entries: expected'),
        ({}, 'holds a dict of 0 entries: expected'),
        ([('a', 'b', 'c')], r"holds a list of 1 entries, such as \('a', 'b', 'c'\): expected"),
        ([('a.jpg', -1)], 'holds a list of 1 entries, such as'),
        ([('a.jpg', 1.0)], 'holds a list of 1 entries, such as'),
        ([('a.jpg', True)], 'holds a list of 1 entries, such as'),
        (['a.jpg', 2], 'holds a list of 2 entries, such as a.jpg'),
        ({'a': [1, 2]}, 'holds a dict of 1 entries'),
        (np.zeros((2, 3)), r'holds an array of float64 of shape \(2, 3\)'),
        (nested(), 'holds a list of 2 entries'),
        (['a.jpg', 'b.jpg', 'a.jpg'], "names 'a.jpg' twice, in entries 0 and 2"),
        (['../a.jpg'], "entry 0: '../a.jpg' is not a path below"),
        ([('n1', '/etc/passwd'), ('..', 'x')], "entry 1: '../x' is not a path below"),
        (['/a.jpg'], "'/a.jpg' is not a path below"),
        ([('a.jpg', '..')], "'..' is not a path below"),
    ],
)
def test_what_pickled_lists_are_refused_for(tmp_path, content, message):
    path = tmp_path / 'train.pickle'
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=message) as caught:
        read_pickled_list(path)
    assert str(path) in str(caught.value)


def test_damaged_pickled_lists(tmp_path):
    path = tmp_path / 'train.pickle'
    with pytest.raises(UserError, match='cannot be read'):
        read_pickled_list(path)
    whole = pickle.dumps(['a.jpg'])
    for data in (b'', whole[:-3], b'a.jpg\n'):
        path.write_bytes(data)
        with pytest.raises(UserError, match='train.pickle is refused'):
            read_pickled_list(path)


@pytest.mark.parametrize('protocol', range(5))
def test_pickled_lists_of_any_protocol(tmp_path, protocol):
    path = tmp_path / 'train.pickle'
    pairs = [('n1', 'n1_1.JPEG'), ('n2', 'n2_1.JPEG')]
    expected = [PickledImage('n1/n1_1.JPEG', 'n1'), PickledImage('n2/n2_1.JPEG', 'n2')]
    for content in (pairs, np.array(pairs), np.array(pairs, dtype=object)):
        path.write_bytes(pickle.dumps(content, protocol))
        assert read_pickled_list(path) == (expected, 'pairs of class folder and file name')


def test_lists_without_classes_or_images_are_refused(challenge, converter, tmp_path):
    lists = tmp_path / 'lists'
    lists.mkdir()
    (lists / 'train.pickle').write_bytes(pickle.dumps(['a.JPEG']))
    with pytest.raises(UserError, match=r'train\.pickle does not give the class of a\.JPEG'):
        converter['from_lists'](challenge.imagenet, lists)
    shutil.copyfile(challenge.lists / 'train.pickle', lists / 'train.pickle')
    assert len(converter['from_lists'](challenge.imagenet_50, lists)[0]) == 12
    with pytest.raises(UserError, match='12 of 12 images of .* the folder that has train/CLASS'):
        converter['from_lists'](challenge.lists, lists)
