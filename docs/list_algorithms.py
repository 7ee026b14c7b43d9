"""Write docs/algorithms.md, k-NN with each algorithm: ``python docs/list_algorithms.py``.

Each self-supervised algorithm of MMPretrain's configs takes part, and each of ours, with a small
backbone and random weights. With names of algorithms as arguments, their rows are printed and
nothing is written.
"""

from __future__ import annotations

import argparse
import re
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mmpretrain
import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner
from mmpretrain import FeatureExtractor
from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from PIL import Image

import ipirm_mm  # noqa: F401  (registers the classes)
from ipirm_mm.engine import KNNHook
from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import knn_accuracy
from ipirm_mm.models.utils import pool_last

PAGE = Path(__file__).with_name('algorithms.md')
ROOT = PAGE.parents[1]
MIM = Path(mmpretrain.__file__).parent / '.mim'
FAMILIES = runpy.run_path(str(PAGE.with_name('list_families.py')), run_name='not_main')
WORKS, prepare = FAMILIES['WORKS'], FAMILIES['prepare']
# One of the 24 pictures to classify may be wrong, by the luck of random weights. Chance is 33 %.
# Features of the wrong axis, and numbers of patches, stay near it (tests/test_ssl_algorithms.py).
LEAST = 95.0
NEIGHBORS = 5
COLORS = ((220, 40, 40), (40, 200, 60), (50, 60, 230))
PER_COLOR = 8


class Algorithm(NamedTuple):
    """A self-supervised algorithm with a backbone.

    Attributes:
        name: Its ``model.type``.
        backbone: Its ``model.backbone.type``.
        target: What it predicts: its ``model.target_generator.type``, or a dash.
        config: Path of a config of it.
    """

    name: str
    backbone: str
    target: str
    config: Path


def self_supervised() -> set[str]:
    """Names of all self-supervised algorithms in MMPretrain's registry, ours included."""
    return {
        name
        for name, kind in MODELS.module_dict.items()
        if isinstance(kind, type) and issubclass(kind, BaseSelfSupervisor)
    }


def text_with_bases(path: Path) -> str:
    """Text of a config and of the configs it inherits from: much faster than to load it."""
    text = path.read_text(encoding='utf-8')
    bases = re.search(r'^_base_ = (\[.*?\]|[^\n]*)', text, re.DOTALL | re.MULTILINE)
    for base in re.findall(r"'([^':]+\.py)'", bases[1] if bases else ''):
        text += text_with_bases(path.parent / base)
    return text


def algorithms() -> list[Algorithm]:
    """List one config of each algorithm, backbone and target: of MMPretrain, or our quickstart."""
    names = self_supervised()
    ours = {name for name in names if MODELS.get(name).__module__.startswith('ipirm_mm.')}
    found: dict[tuple, Algorithm] = {}
    for folder, wanted in ((MIM / 'configs', names - ours), (ROOT / 'configs/quickstart', ours)):
        pattern = re.compile(f"type='({'|'.join(sorted(wanted))})'")
        for path in sorted(folder.rglob('*.py')):
            if '_base_' in path.parts or not pattern.search(text_with_bases(path)):
                continue
            model = Config.fromfile(path).get('model') or {}
            if model.get('type') not in wanted:
                continue
            target = (model.get('target_generator') or {}).get('type', '–')
            key = (model.type, model.backbone.type, target)
            found.setdefault(key, Algorithm(*key, path))
    return [found[key] for key in sorted(found)]


# --- a small network --------------------------------------------------------------------------


def flat_architecture(backbone: ConfigDict) -> dict[int, int]:
    """Make a backbone narrow and flat.

    Args:
        backbone: Its config, changed in place; one of an unknown kind stays as it is.

    Returns:
        The new widths by the old ones, for necks and heads.
    """
    if 'ResNet' in backbone.type:
        backbone.update(depth=18, base_channels=8, stem_channels=8)
        return {2048: 64}
    kind: Any = MODELS.get(backbone.type)
    for attribute in ('arch_zoo', 'arch_settings'):
        zoo = getattr(kind, attribute, {})
        arch = backbone.get('arch')
        # Families with further entries: MoCo v3 adds its own when it is built.
        old = zoo.get(arch) or zoo.get(str(arch).lower()) or zoo.get(str(arch).split('-')[-1])
        if old is not None:
            break
    else:
        return {}
    old = dict(old)
    if 'channels' in old:
        backbone.arch = dict(old, depths=[1, 1, 1, 1], channels=[16, 32, 64, 128])
        return {old['channels'][-1]: 128}
    if 'num_layers' in old:
        if isinstance(backbone.get('out_indices'), (list, tuple)):
            backbone.out_indices = [0, 1]
        small = dict(num_layers=2, num_heads=4, feedforward_channels=128)
        backbone.arch = dict(old, embed_dims=64, **small)
        return {old['embed_dims']: 64}
    stages = len(old['depths'])
    if isinstance(old['num_heads'], int):
        backbone.arch = dict(embed_dims=64, depths=[1] * (stages - 1) + [7], num_heads=4)
        return {old['embed_dims']: 64}
    heads = [2**stage for stage in range(stages)]
    depths = [1] * stages
    backbone.arch = dict(embed_dims=16, depths=depths, num_heads=heads)
    last = 2 ** (stages - 1)
    return {old['embed_dims']: 16, old['embed_dims'] * last: 16 * last}


def narrow(node: Any, widths: dict[int, int], key: str = '') -> Any:
    """Copy the config of a neck or head with the new widths, and none of its own above 256."""
    if isinstance(node, dict):
        return {name: narrow(value, widths, name) for name, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(narrow(value, widths, key) for value in node)
    if isinstance(node, int) and not isinstance(node, bool):
        if key == 'decoder_depth':
            return 1
        if re.search('channels|dim|planes', key):
            return min(widths.get(node, node), 256)
    return node


def needs_download(node: Any) -> bool:
    """Whether a part of a model is read from an address when it is built or initialized."""
    if isinstance(node, dict):
        return any(needs_download(value) for value in node.values())
    return isinstance(node, str) and node.startswith('http')


def small_config(algorithm: Algorithm, folder: Path) -> Config:
    """Config of a small network of the algorithm, with pictures to train, to vote and to classify.

    Args:
        algorithm: The algorithm.
        folder: Folder of the pictures.
    """
    config = Config.fromfile(algorithm.config)
    model = config.model
    size = model.backbone.get('img_size', 224)
    for name in ('pretrained', 'init_cfg'):
        if needs_download({name: model.get(name)}):
            del model[name]
    widths = flat_architecture(model.backbone)
    for name, part in model.items():
        if name not in ('backbone', 'target_generator', 'type'):
            model[name] = narrow(part, widths, name)
    pipeline = list(config.train_dataloader.dataset.pipeline)
    if 'Load' not in pipeline[0].type:  # of a data set that holds its images
        pipeline.insert(0, dict(type='LoadImageFromFile'))
    resize = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(size, size)),
        dict(type='PackInputs'),
    ]

    def loader(split: str, pipeline: list) -> dict:
        data = dict(type='CustomDataset', data_root=str(folder / split), pipeline=pipeline)
        return dict(
            batch_size=8,
            num_workers=0,
            dataset=data,
            sampler=dict(type='DefaultSampler', shuffle=split == 'train'),
            collate_fn=dict(type='default_collate'),
        )

    hooks = [hook for hook in config.get('custom_hooks', []) if hook['type'] != 'KNNHook']
    return Config(
        dict(
            model=dict(model, data_preprocessor=config.get('data_preprocessor')),
            train_dataloader=loader('train', pipeline),
            knn_bank=loader('train', resize),
            val_dataloader=loader('val', resize),
            test_dataloader=loader('val', resize),
            custom_imports=dict(imports=['ipirm_mm'], allow_failed_imports=False),
            custom_hooks=hooks,
            default_scope='mmpretrain',
        )
    )


def draw_pictures(folder: Path) -> None:
    """Draw pictures of three kinds: a checkered half of each has one of three colors, with noise.

    Which half is drawn anew for each picture. So the kind is in what a picture shows, not in
    where, and features that mix up channels and positions do not tell it.

    Args:
        folder: Where to.
    """
    generator = np.random.default_rng(0)
    for split in ('train', 'val'):
        for number, color in enumerate(COLORS):
            (folder / split / str(number)).mkdir(parents=True)
            for count in range(PER_COLOR):
                cells = np.zeros(64, bool)
                cells[generator.permutation(64)[:32]] = True
                shown = np.kron(cells.reshape(8, 8), np.ones((8, 8), bool))
                image = np.where(shown[..., None], color, 128)
                image = image + generator.normal(0, 8, (64, 64, 3))
                path = folder / split / str(number) / f'{count}.png'
                Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)


# --- the three ways ---------------------------------------------------------------------------


def by_hook(config: Config, folder: Path, train: bool) -> float:
    """k-NN accuracy by ``KNNHook``, after an epoch of training or right away.

    Args:
        config: The config.
        folder: Where to write the checkpoint ``epoch_1.pth``.
        train: Whether to train.
    """
    hook = dict(
        type='KNNHook',
        bank_dataloader=config.knn_bank,
        query_dataloader=config.val_dataloader,
        k=NEIGHBORS,
    )
    config = Config(config.to_dict())
    runner = Runner(
        model=config.model,
        work_dir=str(folder),
        train_dataloader=config.train_dataloader,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-4)),
        custom_hooks=[*config.custom_hooks, hook],
        randomness=dict(seed=0),
        default_scope='mmpretrain',
        experiment_name=folder.name,
        log_level='ERROR',
    )
    if train:
        runner.train()
    else:
        runner.model.backbone.init_weights()
        KNNHook._evaluate(next(h for h in runner.hooks if isinstance(h, KNNHook)), runner, '', 1)
        torch.save(dict(state_dict=runner.model.state_dict()), folder / 'epoch_1.pth')
    return runner.message_hub.get_scalar('val/knn_monitor/top1').current()


def by_tool(config: Path, checkpoint: Path, run: Callable) -> float:
    """k-NN accuracy that ``tools/benchmark_ssl.py`` prints.

    Args:
        config: The config.
        checkpoint: The checkpoint.
        run: Runs a tool and returns what :func:`subprocess.run` does.

    Raises:
        UserError: With the sentence that the tool prints.
    """
    finished = run('tools/benchmark_ssl.py', config, checkpoint, '--k', NEIGHBORS, check=False)
    if finished.returncode:
        message = finished.stderr.strip()
        assert message.startswith('error: ') and '\n' not in message, message[-3000:]
        raise UserError(message.removeprefix('error: '))
    return float(finished.stdout.splitlines()[-1].split()[1])


def by_extractor(config: Config, checkpoint: Path) -> float:
    """k-NN accuracy on the features of MMPretrain's ``FeatureExtractor``, pooled as ours are.

    Args:
        config: The config.
        checkpoint: The checkpoint.
    """
    extractor = FeatureExtractor(config, pretrained=str(checkpoint), device='cpu')
    rows, labels = [], []
    for loader in (config.knn_bank, config.val_dataloader):
        paths = sorted(Path(loader.dataset.data_root).rglob('*.png'))
        features = extractor([str(path) for path in paths], batch_size=8)
        rows.append(pool_last(together(features), extractor.model))
        labels.append(torch.tensor([int(path.parent.name) for path in paths]))
    return knn_accuracy(rows[0], labels[0], rows[1], labels[1], NEIGHBORS)


def together(features: list[Any]) -> Any:
    """One batch of the features of single images."""
    if isinstance(features[0], torch.Tensor):
        return torch.stack(features)
    return tuple(together(list(part)) for part in zip(*features))


def cell(measure: Callable[[], float]) -> str:
    """``works``, or the sentence by which it is refused; anything else is raised."""
    try:
        accuracy = measure()
    except UserError as error:
        return f'refused: {error}'
    assert accuracy >= LEAST, f'only {accuracy} %'
    return WORKS


def run_script(script: str, *arguments: Any, check: bool = True) -> subprocess.CompletedProcess:
    """Run a tool in a new process."""
    command = [sys.executable, script, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=check)


def row_of(algorithm: Algorithm, folder: Path, run: Callable = run_script) -> list[str]:
    """What works with an algorithm: k-NN in a training, the benchmark, MMPretrain's extractor.

    Args:
        algorithm: The algorithm.
        folder: An empty folder.
        run: Runs a tool, see :func:`by_tool`.
    """
    draw_pictures(folder / 'pictures')
    config = small_config(algorithm, folder / 'pictures')
    config.dump(folder / 'config.py')  # with the target, which the tool has to leave out
    plain = Config.fromfile(folder / 'config.py')
    train = not needs_download(plain.model.get('target_generator'))
    if not train:
        del plain.model['target_generator']
    checkpoint = folder / 'epoch_1.pth'
    return [
        algorithm.name,
        algorithm.backbone,
        algorithm.target,
        'one epoch' if train else 'none',
        cell(lambda: by_hook(plain, folder, train)),
        cell(lambda: by_tool(folder / 'config.py', checkpoint, run)),
        cell(lambda: by_extractor(plain, checkpoint)),
    ]


INTRODUCTION = """# k-NN of self-supervised algorithms

Made by `python docs/list_algorithms.py`, which gives each algorithm of MMPretrain's configs, and
of ours, a small backbone with random weights and pictures of three kinds. k-NN must find the kind
of 95 % of other pictures, where guesses find 33 %. `make test-all` does the same. Three ways are
tried: `KNNHook` at the end of an epoch of training, or with the initial weights where the target
is a network to download (`none`); then, on the checkpoint, `tools/benchmark_ssl.py` and
MMPretrain's `FeatureExtractor`, whose features are pooled by `ipirm_mm.models.utils.pool_last`.

Features are those of the whole image, also with masked image modeling, and are pooled as the
backbone means them ([families.md](families.md)). `KNNHook` uses the model that trains, and
`tools/benchmark_ssl.py` builds no target. MMPretrain's `FeatureExtractor` and `get_model` do, and
download that of EVA, MILAN and iTPN unless `target_generator=None` is given. `FeatureExtractor`
also needs a `test_dataloader` with one view per image, which MMPretrain's self-supervised configs
lack.
"""
TITLE = ['algorithm', 'backbone', 'target', 'training', 'KNNHook', 'benchmark', 'FeatureExtractor']


def rows(names: list[str], run: Callable = run_script) -> list[list[str]]:
    """Try the algorithms of these names, or all; each row is printed.

    Args:
        names: Names; empty for all.
        run: Runs a tool, see :func:`by_tool`.
    """
    found = []
    for algorithm in algorithms():
        if names and algorithm.name not in names:
            continue
        print(*algorithm[:3], sep=' | ', end=' | ', flush=True)
        with tempfile.TemporaryDirectory() as folder:
            found.append(row_of(algorithm, Path(folder), run))
        print(*found[-1][3:], sep=' | ', flush=True)
    return found


def page(found: list[list[str]]) -> str:
    """Text of docs/algorithms.md."""
    return '\n'.join([INTRODUCTION, *FAMILIES['table'](TITLE, found)]).rstrip() + '\n'


def main() -> None:
    """Try all algorithms, and write the page; or print the rows asked for."""
    parser = argparse.ArgumentParser(description='Write docs/algorithms.md.')
    parser.add_argument('names', nargs='*', help='algorithms whose rows are printed')
    names = parser.parse_args().names
    prepare()
    found = rows(names)
    if not names:
        PAGE.write_text(page(found), encoding='utf-8')


if __name__ == '__main__':
    main()
