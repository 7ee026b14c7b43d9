"""Test-time augmentation, ensembles and submissions, through the real tools."""

from __future__ import annotations

import csv
import json

import mmcv
import numpy as np
import pytest
import torch
from helpers import MIM, ROOT, fails_with, launch, run_tool
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image
from torchvision.transforms.functional import ten_crop

from ipirm_mm.datasets import FashionMNIST50
from ipirm_mm.evaluation import load_predictions
from ipirm_mm.functional import merge_scores
from ipirm_mm.models.utils import plain_classifier

STOCK = MIM / 'configs/resnet/resnet18_8xb32_in1k.py'
SCRATCH = ROOT / 'configs/quickstart/student_scratch.py'
CLASSES = ('n01440764', 'n01443537', 'n01484850')


def tool(name, *arguments, check=True):
    return run_tool(f'tools/{name}.py', *arguments, check=check)


@pytest.fixture(scope='session')
def stock(tmp_path_factory):
    """A tiny ImageNet of the true layout, and random weights of MMPretrain's ResNet-18."""
    folder = tmp_path_factory.mktemp('stock')
    generator = np.random.default_rng(0)
    for name in CLASSES:
        path = folder / 'imagenet/val' / name
        path.mkdir(parents=True)
        for number in range(2):
            # Of a shorter side of 256, to which the config resizes.
            longer = int(generator.integers(257, 300))
            size = (256, longer) if number else (longer, 256)
            pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize(size).save(path / f'{name}_{number}.JPEG')
    (folder / 'imagenet/meta').mkdir()
    lines = [f'{name}/{name}_{n}.JPEG {c}' for c, name in enumerate(CLASSES) for n in range(2)]
    (folder / 'imagenet/meta/val.txt').write_text('\n'.join(lines))
    torch.manual_seed(0)
    model = MODELS.build(plain_classifier(Config.fromfile(STOCK)))
    model.head.fc.weight.data.normal_()
    torch.save(dict(state_dict=model.state_dict()), folder / 'resnet18.pth')
    return folder


def predict_stock(stock, out, *flags, processes=1, check=True):
    options = [
        f'test_dataloader.dataset.data_root={stock / "imagenet"}',
        'test_dataloader.batch_size=2',
        'test_dataloader.num_workers=0',
    ]
    where = ['--out', out, '--work-dir', stock / 'run']
    given = [STOCK, stock / 'resnet18.pth', *flags, *where, '--cfg-options', *options]
    if processes == 1:
        finished = tool('test', *given, check=check)
    else:
        finished = launch('test', processes, *given)
    return load_predictions(str(out)) if check else finished


@pytest.mark.slow
def test_tta_on_an_untouched_config_of_mmpretrain(stock, tmp_path):
    """On one process and on two, with the same scores, which are those of the views, merged."""
    flags = ['--tta-crops', 'ten', '--tta-policy', 'tsharpen']
    one = predict_stock(stock, tmp_path / 'one.pkl', *flags)
    two = predict_stock(stock, tmp_path / 'two.pkl', *flags, processes=2)
    assert len(one.images) == 6 and one.scores.shape == (6, 1000)
    assert one.images == two.images and torch.equal(one.labels, two.labels)
    torch.testing.assert_close(one.scores, two.scores, rtol=1e-5, atol=1e-7)
    assert one.labels.tolist() == [0, 0, 1, 1, 2, 2]

    model = MODELS.build(plain_classifier(Config.fromfile(STOCK)))
    model.load_state_dict(torch.load(stock / 'resnet18.pth')['state_dict'])
    model.eval()
    for row, path in enumerate(one.images):
        pixels = torch.from_numpy(mmcv.imread(path)).permute(2, 0, 1)
        views = torch.stack(ten_crop(pixels, 224))
        with torch.no_grad():
            samples = model.test_step(dict(inputs=views, data_samples=None))
        scores = torch.stack([sample.pred_score for sample in samples])[:, None]
        expected = merge_scores(scores, 'tsharpen')[0]
        torch.testing.assert_close(one.scores[row], expected, rtol=1e-4, atol=1e-7)

    plain = predict_stock(stock, tmp_path / 'plain.pkl')
    flip = predict_stock(stock, tmp_path / 'flip.pkl', '--tta')
    assert not torch.allclose(plain.scores, flip.scores)
    center = predict_stock(stock, tmp_path / 'center.pkl', '--tta-crops', 'center')
    torch.testing.assert_close(plain.scores, center.scores)


def test_what_tta_refuses(stock, tmp_path):
    out = tmp_path / 'x.pkl'
    big = ['--tta-crops', 'five', '--tta-crop-size', '300']
    finished = predict_stock(stock, out, *big, check=False)
    fails_with(finished, 'a crop of 300x300 does not fit the image of 2')
    assert not out.exists()
    for flags, message in (
        (['--tta-policy', 'median'], "invalid choice: 'median'"),
        (['--tta-crop-size', '192'], 'need --tta-crops'),
    ):
        finished = tool('image_demo', stock, STOCK, *flags, check=False)
        assert finished.returncode == 2 and message in finished.stderr


@pytest.fixture(scope='session')
def classifiers(tmp_path_factory):
    """Two classifiers, by the configs of two students, of two seeds, trained shortly."""
    folder = tmp_path_factory.mktemp('classifiers')
    for seed, name in enumerate(('a', 'b')):
        tool(
            'train',
            SCRATCH,
            '--work-dir',
            folder / name,
            '--cfg-options',
            'train_cfg.max_epochs=8',
            f'randomness.seed={seed}',
            'default_hooks.checkpoint.interval=8',
        )
        for split in ('test', 'val'):
            flags = ['--val'] if split == 'val' else []
            out = ['--out', folder / f'{name}_{split}.pkl', '--work-dir', folder / 'run']
            tool('test', SCRATCH, folder / name / 'epoch_8.pth', *flags, *out)
    return folder


def accuracy_of(finished, row):
    """Accuracy in a row of the table of tools/ensemble.py."""
    line = next(line for line in finished.stdout.splitlines() if line.startswith(str(row)))
    return line[len(str(row)) :].split()


def test_ensemble_of_files(classifiers, tmp_path):
    a, b = classifiers / 'a_test.pkl', classifiers / 'b_test.pkl'
    out = tmp_path / 'out.pkl'
    finished = tool('ensemble', a, b, '--policy', 'tsharpen', '--out', out)
    one, two, both = map(load_predictions, map(str, (a, b, out)))
    expected = merge_scores(torch.stack([one.scores, two.scores]), 'tsharpen')
    torch.testing.assert_close(both.scores, expected)
    assert both.images[:2] == ['test/0', 'test/1']
    for row, member in ((a, one), (b, two), ('ensemble of 2, tsharpen', both)):
        accuracy = 100 * float(member.correct().double().mean())
        assert accuracy_of(finished, row)[0] == f'{accuracy:.2f}'
    gain = 100 * float(
        both.correct().double().mean() - max(one.correct().sum(), two.correct().sum()) / 500
    )
    assert f'{gain:+.2f}' in accuracy_of(finished, 'ensemble of 2, tsharpen')
    differ = 100 * float((one.scores.argmax(1) != two.scores.argmax(1)).double().mean())
    assert f'for {differ:.1f} % of the' in finished.stdout
    # With itself it is that model.
    finished = tool('ensemble', a, a, '--out', out)
    torch.testing.assert_close(load_predictions(str(out)).scores, one.scores)
    assert accuracy_of(finished, 'ensemble of 2, mean')[4:] == ['+0.00', '+0.00', 'to', '+0.00']


@pytest.mark.slow
def test_weights_are_fitted_on_another_split_saved_and_used_again(classifiers, tmp_path):
    members = [classifiers / 'a_test.pkl', classifiers / 'b_test.pkl']
    val = [classifiers / 'a_val.pkl', classifiers / 'b_val.pkl']
    weights, out, again = (tmp_path / name for name in ('w.json', 'one.pkl', 'two.pkl'))
    tool('ensemble', *members, '--fit', *val, '--save-weights', weights, '--out', out)
    record = json.loads(weights.read_text())
    assert sum(record['weights']) == pytest.approx(1) and record['num_images'] == 500
    tool('ensemble', *members, '--weights', weights, '--out', again)
    assert torch.equal(load_predictions(str(out)).scores, load_predictions(str(again)).scores)
    # The reported split is refused, at fitting and at using.
    wrong = tmp_path / 'wrong.json'
    finished = tool('ensemble', *members, '--fit', *members, '--save-weights', wrong, check=False)
    fails_with(finished, 'share 500 images, such as test/0: weights fitted on what is reported')
    # Weights for t-sharpening are others, and each is refused by the other policy.
    policy = ['--policy', 'weighted_tsharpen']
    sharp = tmp_path / 'sharp.json'
    tool('ensemble', *members, *policy, '--fit', *val, '--save-weights', sharp, '--out', out)
    tool('ensemble', *members, *policy, '--weights', sharp, '--out', again)
    assert torch.equal(load_predictions(str(out)).scores, load_predictions(str(again)).scores)
    finished = tool('ensemble', *members, '--weights', sharp, check=False)
    fails_with(finished, f"{sharp} were fitted for the policy 'weighted_tsharpen', but the policy")
    finished = tool('ensemble', *members, *policy, '--weights', weights, check=False)
    fails_with(finished, "fitted for the policy 'weighted', but the policy is 'weighted_tsharpen'")
    finished = tool('ensemble', *val, '--weights', weights, check=False)
    fails_with(finished, f'the weights in {weights} were fitted on the images of')
    finished = tool('ensemble', members[0], '--weights', weights, check=False)
    fails_with(finished, 'has 2 weights, but there are 1 members')
    finished = tool('ensemble', *members, '--fit', val[0], check=False)
    fails_with(finished, '--fit has 1 members, but there are 2')
    finished = tool('ensemble', *members, val[0], check=False)
    fails_with(finished, 'differ in their images: number 0 is test/0 in one and val/0')
    cut = tmp_path / 'cut.pkl'
    cut.write_bytes(members[0].read_bytes()[:-10])
    fails_with(tool('ensemble', cut, check=False), f'{cut} is truncated, or no file of')
    assert not wrong.exists()


@pytest.mark.slow
def test_ensemble_runs_checkpoints_itself(classifiers, tmp_path):
    members = [f'{SCRATCH}:{classifiers / name / "epoch_8.pth"}' for name in ('a', 'b')]
    out = tmp_path / 'out.pkl'
    where = ['--work-dir', tmp_path / 'run', '--out', out]
    tool('ensemble', *members, '--fit', *where)
    files = [
        classifiers / f'{name}_{split}.pkl' for split in ('test', 'val') for name in ('a', 'b')
    ]
    again = tmp_path / 'again.pkl'
    tool('ensemble', *files[:2], '--fit', *files[2:], '--out', again)
    assert torch.equal(load_predictions(str(out)).scores, load_predictions(str(again)).scores)
    finished = tool('ensemble', f'{SCRATCH}:none.pth', *where, check=False)
    fails_with(finished, f'{SCRATCH}:none.pth was not run on its test split')
    fails_with(tool('ensemble', SCRATCH, check=False), 'is a config: give its checkpoint too')


@pytest.mark.slow
def test_ensemble_as_a_config(classifiers, tmp_path):
    """One command gives what files of predictions with the same flips give."""
    config = tmp_path / 'ensemble.py'
    checkpoints = [str(classifiers / name / 'epoch_8.pth') for name in ('a', 'b')]
    config.write_text(
        f'_base_ = [{str(ROOT / "configs/quickstart/ensemble.py")!r}]\n'
        f'members = [dict(config={str(SCRATCH)!r}, checkpoint=path, crops="flip")'
        f' for path in {checkpoints!r}]\n'
        'model = dict(members=members)\n'
        'test_dataloader = dict(dataset=dict(pipeline=['
        "dict(type='MemberViews', members=members)]))\n"
    )
    out, run_dir = tmp_path / 'out.pkl', tmp_path / 'run'
    finished = tool('test', config, '--out', out, '--work-dir', run_dir)
    assert 'accuracy/top1' in finished.stdout + finished.stderr
    files = [tmp_path / 'a.pkl', tmp_path / 'b.pkl']
    for path, checkpoint in zip(files, checkpoints):
        tool('test', SCRATCH, checkpoint, '--tta', '--out', path, '--work-dir', run_dir)
    again = tmp_path / 'again.pkl'
    tool('ensemble', *files, '--out', again)
    torch.testing.assert_close(
        load_predictions(str(out)).scores, load_predictions(str(again)).scores
    )
    fails_with(
        tool('test', config, '--tta', check=False), 'have test-time augmentation of their own'
    )
    fails_with(tool('test', SCRATCH, check=False), 'is no ensemble: give its checkpoint')


@pytest.mark.slow
def test_search_gives_what_the_test_tool_gives(classifiers, tmp_path):
    checkpoint = classifiers / 'a/epoch_8.pth'
    search = ['search_tta', SCRATCH, checkpoint, '--work-dir', tmp_path, '--rows', '99']
    finished = tool(*search, '--crop-size', '24', '26')
    lines = [line.split() for line in finished.stdout.splitlines()]
    rows = {tuple(line[1:4]): line[4] for line in lines if len(line) == 9 and line[0] == '-'}
    assert len(rows) == 2 * 10
    plain = next(line for line in lines if line[2:4] == ['as', 'configured'])
    hits = load_predictions(str(classifiers / 'a_val.pkl')).correct()
    assert plain[5] == f'{100 * float(hits.double().mean()):.2f}'
    for size, crops, policy in (('24', 'ten', 'gmean'), ('26', 'flip', 'mean')):
        out = tmp_path / 'x.pkl'
        flags = ['--tta-crops', crops, '--tta-policy', policy, '--tta-crop-size', size]
        tool('test', SCRATCH, checkpoint, '--val', *flags, '--out', out, '--work-dir', tmp_path)
        accuracy = 100 * float(load_predictions(str(out)).correct().double().mean())
        assert rows[size, crops, policy] == f'{accuracy:.2f}'
    again = tool(*search, '--crop-size', '24')
    assert again.stdout.count('probabilities of an earlier run') == 2
    finished = tool(*search, '--crop-size', '29', check=False)
    fails_with(finished, 'a crop of 29x29 does not fit the image of 28x28 (val/0)')
    fails_with(tool(*search, check=False), 'ten crops need a size')


def test_a_submission_for_images_without_labels(stock, tmp_path):
    """The challenge's layout: test images in one folder, which have no labels."""
    root = tmp_path / 'vipriors'
    (root / 'test').mkdir(parents=True)
    generator = np.random.default_rng(0)
    (root / 'test/imgs').mkdir()
    for number in range(3):
        pixels = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f'test/imgs/img_{number}.JPEG')
    torch.manual_seed(0)
    config = ROOT / 'configs/baselines/supervised_r50.py'
    options = [
        f'test_dataloader.dataset.data_root={root}',
        'test_dataloader.dataset.split=test',
        'test_dataloader.dataset.per_class=None',
        'model.backbone.depth=18',
        'model.head.in_channels=512',
    ]
    cfg = Config.fromfile(config)
    cfg.merge_from_dict({'model.backbone.depth': 18, 'model.head.in_channels': 512})
    checkpoint = tmp_path / 'r18.pth'
    torch.save(dict(state_dict=MODELS.build(plain_classifier(cfg)).state_dict()), checkpoint)
    where = ['--work-dir', tmp_path / 'run']
    finished = tool('test', config, checkpoint, *where, '--cfg-options', *options, check=False)
    fails_with(finished, 'the test set has no labels')
    out, submission = tmp_path / 'test.pkl', tmp_path / 'submission.csv'
    tool('test', config, checkpoint, '--out', out, *where, '--cfg-options', *options)
    finished = tool('ensemble', out, '--submission', submission)
    assert 'there is no accuracy' in finished.stdout
    rows = list(csv.reader(submission.open()))
    labels = load_predictions(str(out)).scores.argmax(1).tolist()
    assert rows[0] == ['Image IDs', 'Predictions']
    assert rows[1:] == [[f'img_{n}.JPEG', str(label)] for n, label in enumerate(labels)]


def test_image_demo(classifiers, tmp_path):
    data = FashionMNIST50('test')
    folder = tmp_path / 'images'
    (folder / 'deep').mkdir(parents=True)
    for name, index in (('a.png', 0), ('a.bmp', 200), ('deep/b.png', 450)):
        Image.fromarray(data.get_data_info(index)['img']).save(folder / name)
    out = tmp_path / 'out'
    checkpoint = classifiers / 'a/epoch_8.pth'
    flags = ['--out-dir', out, '--topk', '3', '--tta-crops', 'flip']
    finished = tool('image_demo', folder, SCRATCH, checkpoint, *flags)
    rows = list(csv.DictReader((out / 'scores.csv').open()))
    assert [row['image'] for row in rows[::3]] == ['a.bmp', 'a.png', 'deep/b.png']
    assert [row['rank'] for row in rows] == ['1', '2', '3'] * 3
    classes = FashionMNIST50.METAINFO['classes']
    assert all(row['name'] == classes[int(row['label'])] for row in rows)
    assert rows[0]['name'] in finished.stdout
    for name in ('a.bmp', 'a.png', 'deep/b.png'):
        assert Image.open(out / f'{name}.png').size == (256, 256)
    (folder / 'broken.png').write_bytes(b'not an image')
    finished = tool('image_demo', folder, SCRATCH, checkpoint, *flags, check=False)
    fails_with(finished, 'broken.png cannot be read as an image')
    finished = tool('image_demo', tmp_path / 'none', SCRATCH, checkpoint, check=False)
    fails_with(finished, 'there is no image or folder')
    fails_with(tool('image_demo', folder, SCRATCH, check=False), 'give its checkpoint after it')
