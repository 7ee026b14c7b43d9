"""Wrong configs, data, checkpoints, predictions and command lines, and what is said to each.

    python tests/bad_inputs.py [NAME ...]

It prints a table: the mistake, the exit status and the message. The exit status is 1 if one of them
is not told in one sentence that names what is wrong, or leaves a file that is half written.
``tests/test_bad_inputs.py`` runs the same.
"""

from __future__ import annotations

import json
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from helpers import ROOT, run_tool
from PIL import Image

CLASSIFIER = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['ipirm_mm'])
data_preprocessor = dict(num_classes=2, mean=[80.0] * 3, std=[60.0] * 3)
model = dict(type='ImageClassifier', backbone=dict(type='SmallConvNet', channels=(8, 16)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=16, topk=(1,)))
pipe = [dict(type='LoadImage'), dict(type='Resize', scale=16), dict(type='PackInputs')]
loader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root='{root}/images', pipeline=pipe))
train_dataloader = val_dataloader = test_dataloader = loader
val_evaluator = test_evaluator = dict(type='Accuracy', topk=(1,))
train_cfg = dict(by_epoch=True, max_epochs=1)
val_cfg = test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
"""
STUDENT = """
_base_ = ['classifier.py']
model = dict(type='DistillingClassifier', teacher=dict(model='{root}/classifier.py', checkpoint='{root}/good.pth'),
    distill_losses=[dict(type='LogitKL')])
"""
STAGE_ONE = """
_base_ = ['{repo}/configs/quickstart/ipirm_simclr.py']
model = dict(backbone=dict(channels=(8, 16)), neck=dict(in_channels=16, hid_channels=16, out_channels=8))
train_dataloader = dict(batch_size=32, dataset=dict(indices=64))
train_cfg = dict(max_epochs=2)
partition_hook = dict(interval=1)
custom_hooks = [{{**_base_.partition_hook, 'interval': 1}}, _base_.knn_hook]
"""


class BadInput(NamedTuple):
    """A mistake: command line of a tool, of which @ is the folder, and what its message names."""

    name: str
    words: tuple[str, ...]
    said: tuple[str, ...]


def option(config: str, given: str, *said: str) -> BadInput:
    """Training with a wrong option."""
    return BadInput(f'`{given}`', ('train', f'@/{config}.py', '--cfg-options', given), said)


def predictions(scores: Any, count: int = 4, names: str = '{}.png') -> list[dict[str, Any]]:
    """Predictions as ``tools/test.py --out`` writes them."""
    return [
        dict(pred_score=torch.tensor(scores), gt_label=torch.tensor([0]), img_path=names.format(n))
        for n in range(count)
    ]


def make_files(root: Path) -> None:
    """Make the good and the bad files."""
    for name in ('cat', 'dog'):
        (root / 'images' / name).mkdir(parents=True)
        for n in range(3):
            Image.new('RGB', (20, 20), (n, 99, 0)).save(root / f'images/{name}/{n}.png')
    (root / 'classifier.py').write_text(CLASSIFIER.format(root=root))
    (root / 'student.py').write_text(STUDENT.format(root=root))
    (root / 'stage_one.py').write_text(STAGE_ONE.format(repo=ROOT))
    torch.manual_seed(0)
    from mmengine.config import Config
    from mmpretrain import get_model

    model = get_model(Config.fromfile(root / 'classifier.py'), device='cpu')
    state = model.state_dict()
    torch.save(dict(state_dict=state, meta=dict(epoch=1, iter=3)), root / 'good.pth')
    broken = {name: value.clone() for name, value in state.items()}
    broken['head.fc.weight'][0, 0] = float('nan')
    torch.save(dict(state_dict=broken), root / 'nan.pth')
    data = bytearray((root / 'good.pth').read_bytes())
    (root / 'half.pth').write_bytes(data[: len(data) // 2])
    data[len(data) // 2] ^= 1
    (root / 'changed.pth').write_bytes(data)
    (root / 'code.pth').write_bytes(pickle.dumps(Caller()))
    (root / 'page.pth').write_text('<!doctype html><title>404: not found</title>')
    for part in ('cat/0.png', 'cat/1.png', 'dog/0.png'):
        path = root / 'truncated' / part
        path.parent.mkdir(parents=True, exist_ok=True)
        data = (root / 'images/cat/0.png').read_bytes()
        path.write_bytes(data[:60] if part == 'cat/1.png' else data)
    (root / 'deep/train').mkdir(parents=True)
    (root / 'deep/train/all').symlink_to(root / 'images')
    (root / 'notes/cat').mkdir(parents=True)
    (root / 'notes/cat/readme.txt').write_text('no images here\n')
    (root / 'words.txt').write_text('cat/0.png zero\ncat/1.png one\n')
    (root / 'gone.txt').write_text('cat/0.png 0\ncat/77.png 1\n')
    (root / 'negative.txt').write_text('cat/0.png 0\ncat/1.png 7\n')
    (root / 'a_file').write_text('not a folder\n')
    for name, content in dict(
        four=predictions([0.4, 0.6]),
        five=predictions([0.4, 0.6], 5),
        three_classes=predictions([0.2, 0.4, 0.4]),
        other_images=predictions([0.4, 0.6], names='other_{}.png'),
        nan=predictions([float('nan'), 0.6]),
        none=[],
        text='predictions',
    ).items():
        with open(root / f'{name}.pkl', 'wb') as file:
            pickle.dump(content, file)
    (root / 'weights.json').write_text(json.dumps(dict(weights=[1.0, 2.0, 3.0])))
    np.savez(root / 'arrays.npz', x=np.zeros(3))


class Caller:
    """Would make a file if it were unpickled."""

    def __reduce__(self) -> tuple[Callable, tuple]:
        """What pickle would call."""
        return Path.touch, (Path(tempfile.gettempdir()) / 'ipirm_mm_was_here',)


INPUTS = (
    option('stage_one', 'model.num_subsets=1', 'num_subsets', '1'),
    option('stage_one', 'model.num_subsets=1000', 'num_subsets', '1000', '256'),
    option('stage_one', 'model.num_subsets=2.5', 'num_subsets', '2.5'),
    option('stage_one', 'model.head.temperature=0', 'temperature', '0'),
    option('stage_one', 'model.head.irm_weight=-1', 'irm_weight', '-1'),
    option('stage_one', 'model.head.objective=paper', 'objective', 'paper', 'report'),
    option('stage_one', 'model.head.penalty=matrix', 'penalty', 'matrix', 'vector'),
    option('stage_one', 'model.head.irm_warmup_epochs=-5', 'irm_warmup_epochs', '-5'),
    option('stage_one', 'custom_hooks.0.interval=0', 'interval', '0'),
    option('stage_one', 'custom_hooks.0.solver.strategy=kmean', 'strategy', 'kmean', 'kmeans'),
    option('stage_one', 'custom_hooks.0.max_partitions=-1', 'max_partitions', '-1'),
    option('stage_one', 'custom_hooks.0.num_augmentations=0', 'num_augmentations', '0'),
    option('stage_one', 'custom_hooks.1.k=0', 'k', '0'),
    option('stage_one', 'custom_hooks.1.k=2.5', 'k', '2.5'),
    option('stage_one', 'custom_hooks.0.interval=1.5', 'interval', '1.5'),
    option('stage_one', 'custom_hooks.0.max_partitions=True', 'max_partitions', 'True'),
    option('stage_one', 'model.head.temperature=warm', 'temperature', 'warm'),
    option('student', 'model.distill_losses.0.loss_weight=None', 'loss_weight', 'None'),
    option('stage_one', 'train_dataloader.batch_size=65', 'batch_size', '65', '64'),
    option('classifier', 'train_dataloader.batch_size=many', 'batch_size', 'many'),
    option('classifier', 'optim_wrapper.optimizer.lr=-1', 'optim_wrapper', 'learning rate: -1'),
    option('classifier', 'optim_wrapper.optimizer.type=Adm', 'Adm', 'Adam'),
    option('classifier', 'train_cfg.max_epochs=ten', 'max_epochs', 'ten'),
    option('classifier', 'randomness.seed=-1', 'randomness', 'Seed must be'),
    option('classifier', 'optim_wrapper=None', 'optim_wrapper'),
    option('classifier', 'train_dataloader.sampler.type=Sampler7', 'Sampler7'),
    option('classifier', 'default_hooks.checkpoint.interval=0', 'interval'),
    option('classifier', 'param_scheduler.type=CosineAnnealingLR', 'T_max'),
    option('classifier', 'load_from=@/page.pth', 'page.pth'),
    option('classifier', 'load_from=@/nan.pth', 'nan.pth', 'head.fc.weight'),
    option('classifier', 'load_from=@/changed.pth', 'changed.pth'),
    option('classifier', 'train_dataloader.dataset.data_root=@/truncated', '1.png', 'truncated'),
    option('classifier', 'train_dataloader.dataset.data_root=@/deep', 'data_root', 'class 0'),
    option('classifier', 'train_dataloader.dataset.data_root=@/notes', 'notes'),
    option('classifier', 'train_dataloader.dataset.ann_file=@/words.txt', 'words.txt'),
    option('classifier', 'train_dataloader.dataset.ann_file=@/negative.txt', '7'),
    option('classifier', 'model.head.num_classes=1', 'num_classes'),
    option('classifier', 'model.head.in_channels=17', '17', '16'),
    option('student', 'model.distill_losses.0.type=LogitsKL', 'LogitsKL', 'LogitKL'),
    option('student', 'model.distill_losses.0.temperature=0', 'temperature', '0'),
    option('student', 'model.teacher.checkpoint=@/none.pth', 'none.pth'),
    option('student', 'model.teacher.checkpoint=@/nan.pth', 'nan.pth'),
    option('student', 'model.teacher.model=@/nothing.py', 'nothing.py'),
    BadInput(
        'a file for the work folder',
        ('train', '@/classifier.py', '--work-dir', '@/a_file'),
        ('a_file',),
    ),
    BadInput(
        '`--resume` with a file that has no training',
        ('train', '@/classifier.py', '--resume', '@/good.pth'),
        ('good.pth',),
    ),
    BadInput(
        '`--launcher pytorch` without a launcher',
        ('train', '@/stage_one.py', '--launcher', 'pytorch'),
        ('dist_train.sh',),
    ),
    BadInput('half of a checkpoint', ('test', '@/classifier.py', '@/half.pth'), ('half.pth',)),
    BadInput('a checkpoint with code', ('test', '@/classifier.py', '@/code.pth'), ('code.pth',)),
    BadInput(
        'NaN in a checkpoint', ('test', '@/classifier.py', '@/nan.pth'), ('nan.pth', 'head.fc')
    ),
    BadInput(
        'an array for a checkpoint', ('test', '@/classifier.py', '@/arrays.npz'), ('arrays.npz',)
    ),
    BadInput(
        'an unknown policy',
        ('test', '@/classifier.py', '@/good.pth', '--tta-crops', 'ten', '--tta-policy', 'median'),
        ('median', 'tsharpen'),
    ),
    BadInput(
        'a checkpoint without partitions',
        ('analysis/show_partition', '@/stage_one.py', '@/good.pth'),
        ('good.pth',),
    ),
    BadInput(
        'no checkpoint to publish', ('publish_model', '@/classifier.py', '@/four.pkl'), ('four',)
    ),
    BadInput('predictions of other numbers', ('ensemble', '@/four.pkl', '@/five.pkl'), ('4', '5')),
    BadInput(
        'predictions of other classes',
        ('ensemble', '@/four.pkl', '@/three_classes.pkl'),
        ('2', '3', 'classes'),
    ),
    BadInput(
        'predictions of other images', ('ensemble', '@/four.pkl', '@/other_images.pkl'), ('other',)
    ),
    BadInput('NaN in predictions', ('ensemble', '@/four.pkl', '@/nan.pkl'), ('nan.pkl',)),
    BadInput('no predictions', ('ensemble', '@/none.pkl'), ('none.pkl',)),
    BadInput('a text for predictions', ('ensemble', '@/text.pkl'), ('text.pkl',)),
    BadInput(
        'weights of other members',
        ('ensemble', '@/four.pkl', '@/four.pkl', '--weights', '@/weights.json'),
        ('weights.json',),
    ),
)


def content(root: Path) -> dict[str, int]:
    """Files and their sizes."""
    return {
        str(path.relative_to(root)): path.stat().st_size
        for path in sorted(root.rglob('*'))
        if '__pycache__' not in path.parts and path.is_file()
    }


def run(bad: BadInput, root: Path, work: Path) -> tuple[int, str, str]:
    """Run a tool with a wrong input.

    Args:
        bad: The mistake.
        root: Folder of the files.
        work: Folder for what the tool writes.

    Returns:
        Exit status, the last sentence on standard error, and what is wrong with them.
    """
    tool, *given = (word.replace('@', str(root)) for word in bad.words)
    if tool in ('train', 'test', 'ensemble') and '--work-dir' not in given:
        given[1:1] = ['--work-dir', str(work)]
    before = content(root)
    finished = run_tool(
        ROOT / f'tools/{tool}.py', *given, check=False, cwd=work.parent, IPIRM_TRACEBACK=''
    )
    lines = [line for line in finished.stderr.splitlines() if 'error: ' in line]
    message = (lines or ['-'])[-1].split('error: ')[-1].replace(str(root), 'DIR')
    faults = []
    if finished.returncode not in (1, 2):
        faults.append(f'accepted, with status {finished.returncode}')
    if 'Traceback' in finished.stderr:
        faults.append('a traceback')
    if len(lines) != 1:
        faults.append(f'{len(lines)} sentences')
    faults += [f'does not name {word}' for word in bad.said if word not in message]
    if content(root) != before:
        faults.append('changed files')
    left = [path.name for path in work.rglob('*') if path.suffix in ('.pth', '.part', '.tmp')]
    if left:
        faults.append(f'left {", ".join(left)}')
    if faults and '-v' in sys.argv:
        print(finished.stderr[-3000:])
    return finished.returncode, message, ', '.join(faults)


def main() -> None:
    """Run the mistakes, or those whose names are given."""
    chosen = [
        bad for bad in INPUTS if not sys.argv[1:] or any(w in bad.name for w in sys.argv[1:])
    ]
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / 'files'
        root.mkdir()
        make_files(root)
        print('| input | status | message | fault |\n| --- | --- | --- | --- |')
        for number, bad in enumerate(chosen):
            work = Path(folder) / f'run_{number}/work'
            work.parent.mkdir()
            status, message, fault = run(bad, root, work)
            wrong += bool(fault)
            print(f'| {bad.name} | {status} | {message} | {fault or "-"} |', flush=True)
    print(f'\n{len(chosen)} wrong inputs, {wrong} not told as they should be')
    raise SystemExit(wrong > 0)


if __name__ == '__main__':
    main()
