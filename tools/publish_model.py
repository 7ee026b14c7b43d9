"""Publish a classifier: turn a checkpoint of a training into plain weights for MMPretrain.

    python tools/publish_model.py CONFIG CHECKPOINT [--out DIR]

Writes DIR/NAME-HASH.pth, the weights of backbone, neck and head and the names of the classes, and
DIR/NAME-HASH.py, a config of them for MMPretrain's tools. What training added (connectors,
memories, optimizer) is left out. HASH is the beginning of the file's SHA-256, which MMEngine can
check.
"""

from __future__ import annotations

import argparse
import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS, METRICS, MODELS, TRANSFORMS

from ipirm_mm import cli
from ipirm_mm.models.utils import class_names, load_classifier, plain_classifier
from ipirm_mm.utils import atomic_write, type_name

# Settings of the published config.
EVALUATION = tuple(
    f'{split}_{part}' for split in ('val', 'test') for part in ('dataloader', 'cfg')
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of the training')
    parser.add_argument('checkpoint', help='checkpoint of the training')
    parser.add_argument('--out', type=Path, default=Path('published'), help='folder to write to')
    cli.add_cfg_options(parser)
    return parser.parse_args()


def plain_config(config: Config) -> Config:
    """Config of the classifier alone, with what MMPretrain's tools need to test it."""
    plain = dict(default_scope='mmpretrain', model=plain_classifier(config))
    for name in EVALUATION:
        if config.get(name) is not None:
            plain[name] = config[name]
    for name in ('val_evaluator', 'test_evaluator'):
        metrics = config.get(name)
        if metrics is not None:
            metrics = metrics if isinstance(metrics, list) else [metrics]
            plain[name] = [m for m in metrics if type_name(m.type) != 'TeacherAccuracy']
    if _names_ours(plain):
        plain['custom_imports'] = dict(imports=['ipirm_mm'], allow_failed_imports=False)
    return Config(plain)


def _names_ours(node: Any) -> bool:
    """Whether a config names a class of this package, and so can only be built with it."""
    if isinstance(node, (list, tuple)):
        return any(_names_ours(part) for part in node)
    if not isinstance(node, dict):
        return False
    kind = node.get('type')
    found = [
        registry.get(kind)
        for registry in (MODELS, DATASETS, TRANSFORMS, METRICS)
        if isinstance(kind, str) and kind in registry
    ]
    ours = any(cls is not None and cls.__module__.startswith('ipirm_mm') for cls in found)
    return ours or any(_names_ours(part) for part in node.values())


def published_checkpoint(config: Config, path: str) -> dict[str, Any]:
    """The weights of the classifier, without any other key, and the names of its classes.

    Raises:
        UserError: If a key is missing or has another shape.
    """
    published: dict[str, Any] = dict(state_dict=load_classifier(config, path).state_dict())
    classes = class_names(path)
    if classes is not None:  # MMPretrain's inferencer reads them from the checkpoint
        published['meta'] = dict(dataset_meta=dict(classes=list(classes)))
    return published


def main() -> None:
    args = parse_args()
    config = cli.load_config(args.config, args.cfg_options)
    init_default_scope('mmpretrain')
    plain = plain_config(config)
    published = published_checkpoint(config, args.checkpoint)
    state = published['state_dict']
    buffer = io.BytesIO()
    torch.save(published, buffer)
    data = buffer.getvalue()
    stem = f'{Path(config.filename).stem}-{hashlib.sha256(data).hexdigest()[:8]}'
    atomic_write(args.out / f'{stem}.pth', data)
    atomic_write(args.out / f'{stem}.py', plain.pretty_text)
    count = sum(value.numel() for key, value in state.items() if 'num_batches' not in key)
    print(
        f'{args.out / stem}.pth: {len(state)} keys, {count:,} numbers, {len(data) / 2**20:.1f} MiB'
    )
    print(f'{args.out / stem}.py: the config of these weights')


if __name__ == '__main__':
    cli.run(main)
