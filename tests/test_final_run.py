"""The final run on train and val: its configs, and the way to a submission on a made-up challenge."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from challenge import make_challenge
from helpers import ROOT, fails_with, run_tool
from mmengine.config import Config
from mmpretrain.registry import DATASETS

from ipirm_mm.evaluation import load_predictions
from ipirm_mm.functional import merge_scores

FINAL = sorted(ROOT.glob('configs/final/final_*.py'))
# What changes on the way from a member to its final version.
CHANGED = ('train_dataloader', 'val_dataloader', 'val_evaluator', 'val_cfg', 'test_dataloader')


@pytest.fixture(scope='module')
def challenge(tmp_path_factory):
    return make_challenge(tmp_path_factory.mktemp('data'), classes=4, per_class=8, size=20)


@pytest.mark.parametrize('path', FINAL, ids=lambda path: path.stem)
def test_a_final_member_is_its_member_on_train_and_val(challenge, path):
    name = path.stem.removeprefix('final_')
    final, member = map(Config.fromfile, (path, ROOT / f'configs/distill/{name}.py'))
    for key in final:
        if key not in CHANGED:
            assert final[key] == member[key], key
    assert set(final) == set(member)
    for key in ('val_dataloader', 'val_evaluator', 'val_cfg'):
        assert final[key] is None  # no accuracy on images that it trained on
    assert final.test_dataloader.dataset.split == 'test'
    train = final.train_dataloader.dataset
    assert train.pop('split') == ['train', 'val']
    assert member.train_dataloader.dataset.pop('split') == 'train'
    assert final.train_dataloader == member.train_dataloader
    train.update(
        split=['train', 'val'], data_root=str(challenge.imagenet_50), num_classes=4, per_class=8
    )
    data = DATASETS.build(train)
    images = [Path(data.get_data_info(n)['img_path']) for n in range(len(data))]
    assert [path.parts[-3] for path in images] == ['train'] * 32 + ['val'] * 32
    assert f'`{name}.py`' in (ROOT / 'configs/final/README.md').read_text()


def test_the_final_ensemble_is_of_the_members_of_the_weighted_one():
    weighted, final = (
        Config.fromfile(ROOT / f'configs/{name}.py')
        for name in ('ensemble/ensemble_5_weighted', 'final/ensemble_final')
    )
    assert [path.stem for path in FINAL] == [
        Path(member.config).stem for member in final.model.members
    ]
    for one, two in zip(weighted.model.members, final.model.members, strict=True):
        assert two.pop('config') == one.pop('config').replace('distill/', 'final/final_')
        assert two.pop('checkpoint') == one.pop('checkpoint').replace('dirs/', 'dirs/final_')
        assert one == two
    assert (final.model.policy, final.model.weights) == ('weighted', 'work_dirs/weights.json')
    assert final.test_dataloader.dataset.split == 'test'


SMALL = """
_base_ = {base!r}

data_preprocessor = dict(
    num_classes=4, mean=[128.0] * 3, std=[60.0] * 3, to_rgb=True)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='SmallConvNet', channels=(16, 32)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=4, in_channels=32,
              loss=dict(type='CrossEntropyLoss')))
pipeline = [
    dict(type='LoadImage'),
    dict(type='ResizeEdge', scale=20, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=16),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=16, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='VIPriors', data_root={root!r}, split='train', num_classes=4,
                 per_class=8, pipeline=pipeline))
val_dataloader = dict(
    batch_size=16, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='VIPriors', data_root={root!r}, split='val', num_classes=4,
                 per_class=8, pipeline=pipeline))
val_evaluator = dict(type='Accuracy')
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=5e-3))
param_scheduler = []
train_cfg = dict(by_epoch=True, max_epochs=4, val_interval=4)
default_hooks = dict(checkpoint=dict(interval=4))
randomness = dict(seed={seed})
"""


@pytest.fixture(scope='module')
def members(challenge, tmp_path_factory):
    """Two small members, one of them also in a final version, trained; and their predictions.

    The final config has the lines of those in `configs/final`.
    """
    folder = tmp_path_factory.mktemp('members')
    final = FINAL[0].read_text().split(".py']\n", 1)[1]
    default = str(ROOT / 'configs/_base_/default_runtime.py')
    root = str(challenge.imagenet_50)
    for seed, name in enumerate('ab'):
        (folder / f'{name}.py').write_text(SMALL.format(base=default, root=root, seed=seed))
    (folder / 'final_a.py').write_text(f"_base_ = ['a.py']\n{final}")
    for name in ('a', 'b', 'final_a'):
        run_tool('tools/train.py', folder / f'{name}.py', '--work-dir', folder / name)
    for name in 'ab':
        predict(folder, name, folder / f'{name}_val.pkl', '--val')
    predict(folder, 'final_a', folder / 'final_a_test.pkl')
    options = ['--cfg-options', 'test_dataloader.dataset.split=test']
    predict(folder, 'b', folder / 'b_test.pkl', *options)
    return folder


def predict(folder, name, out, *flags, check=True):
    given = [folder / f'{name}.py', folder / name / 'epoch_4.pth', *flags, '--out', out]
    return run_tool('tools/test.py', *given, '--work-dir', folder / 'run', check=check)


@pytest.mark.slow
def test_weights_of_members_of_train_reach_their_final_versions(challenge, members, tmp_path):
    """In any order; by files of predictions and by a config; to a submission the server knows."""
    names = ('w.json', 'out.pkl', 'again.pkl', 's.csv')
    weights, out, again, submission = (tmp_path / name for name in names)
    final = [members / f'{name}_test.pkl' for name in ('final_a', 'b')]
    val = [members / f'{name}_val.pkl' for name in 'ba']
    run_tool('tools/ensemble.py', *final, '--fit', *val, '--save-weights', weights, '--out', out)
    record = json.loads(weights.read_text())
    assert record['members'] == ['a', 'b']
    assert record['checkpoints'] == [str(members / name / 'epoch_4.pth') for name in 'ab']
    assert [one['split'] for one in record['images_of']] == ['val']
    scores = torch.stack([load_predictions(str(path)).scores for path in final])
    expected = merge_scores(scores, 'weighted', record['weights'])
    torch.testing.assert_close(load_predictions(str(out)).scores, expected)
    assert abs(record['weights'][0] - record['weights'][1]) > 1e-3  # or the order would not show

    # Read again, for members in another order, by the tool and by a config.
    given = ['--weights', weights, '--out', again, '--submission', submission]
    run_tool('tools/ensemble.py', *final[::-1], *given)
    torch.testing.assert_close(load_predictions(str(again)).scores, expected)
    rows = dict(list(csv.reader(submission.open()))[1:])
    assert rows.keys() == challenge.test_labels.keys()
    correct = [int(rows[name]) == label for name, label in challenge.test_labels.items()]
    assert sum(correct) / len(correct) > 0.5  # chance is 0.25
    config = tmp_path / 'ensemble.py'
    config.write_text(
        f'_base_ = [{str(members / "final_a.py")!r}]\n'
        f'members = [dict(config=f"{members}/{{n}}.py", checkpoint=f"{members}/{{n}}/epoch_4.pth")\n'
        '           for n in ("b", "final_a")]\n'
        'model = dict(_delete_=True, type="EnsembleClassifier", members=members,\n'
        f'             policy="weighted", weights={str(weights)!r})\n'
        'test_dataloader = dict(dataset=dict(\n'
        '    pipeline=[dict(type="MemberViews", members=members)]))\n'
    )
    run_tool('tools/test.py', config, '--out', again, '--work-dir', tmp_path / 'run')
    torch.testing.assert_close(load_predictions(str(again)).scores, expected)


@pytest.mark.slow
def test_nothing_is_fitted_or_measured_on_images_of_the_training(members, tmp_path):
    finished = predict(members, 'final_a', tmp_path / 'x.pkl', '--val', check=False)
    fails_with(finished, '--val needs val_dataloader, which')
    # By the config of train alone, with the checkpoint of the final run: it is the checkpoint
    # that knows what it was trained on.
    (tmp_path / 'a.py').write_text((members / 'a.py').read_text())
    (tmp_path / 'a').symlink_to(members / 'final_a')
    predict(tmp_path, 'a', tmp_path / 'a_val.pkl', '--val')
    final = [members / f'{name}_test.pkl' for name in ('final_a', 'b')]
    weights = tmp_path / 'w.json'
    given = ['--fit', tmp_path / 'a_val.pkl', members / 'b_val.pkl', '--save-weights', weights]
    finished = run_tool('tools/ensemble.py', *final, *given, check=False)
    fails_with(
        finished,
        f'{tmp_path}/a_val.pkl cannot be used to fit weights: the model a ({tmp_path}/a/epoch_4',
        'was trained on these images, VIPriors split val in',
        'NAME for final_NAME',
    )
    assert not weights.exists()
