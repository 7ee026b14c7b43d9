"""Publish a classifier: turn a checkpoint of a training into plain weights for MMPretrain.

    python tools/publish_model.py CONFIG CHECKPOINT [--out DIR] [--results FILE] [--license ID]

Writes DIR/NAME-HASH.pth, the weights of backbone, neck and head and the names of the classes;
DIR/NAME-HASH.py, a config of them for MMPretrain's tools; DIR/NAME-HASH.safetensors, the same
weights in a format that cannot hold code; and DIR/NAME-HASH.md, a model card: data, settings,
controls, accuracy, license and hashes, as far as config and checkpoint tell. What training added
(connectors, memories, optimizer) is left out. HASH is the beginning of the SHA-256 of the .pth
file, which MMEngine can check.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import init_default_scope

from ipirm_mm import cli
from ipirm_mm.model_card import Card, Training, check_license, read_results
from ipirm_mm.models.classifiers import model_name
from ipirm_mm.models.utils import class_names, published_checkpoint, published_config
from ipirm_mm.utils import atomic_write, check_writable


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of the training')
    parser.add_argument('checkpoint', help='checkpoint of the training')
    parser.add_argument('--out', type=Path, default=Path('published'), help='folder to write to')
    parser.add_argument(
        '--results',
        help='accuracy for the model card: predictions (.pkl) of tools/test.py --out, which give '
        'a confidence interval, or metrics (.json) of --out-item metrics (default: none)',
    )
    parser.add_argument(
        '--license', help='license of the weights, such as apache-2.0 (default: none is stated)'
    )
    cli.add_cfg_options(parser)
    return parser.parse_args()


def safetensors_bytes(published: dict[str, Any]) -> bytes | None:
    """The same weights for the library safetensors; None if it is not installed."""
    if importlib.util.find_spec('safetensors') is None:
        return None
    from safetensors.torch import save

    classes = published.get('meta', {}).get('dataset_meta', {}).get('classes')
    about = dict(format='pt', **({} if classes is None else dict(classes=json.dumps(classes))))
    # Two names of one memory are refused, and each is written in its order.
    return save(
        {key: value.contiguous().clone() for key, value in published['state_dict'].items()}, about
    )


def main() -> None:
    args = parse_args()
    check_license(args.license)
    check_writable(args.out, folder=True)
    config = cli.load_config(args.config, args.cfg_options)
    init_default_scope('mmpretrain')
    plain = published_config(config)
    published = published_checkpoint(config, args.checkpoint)
    state = published['state_dict']
    buffer = io.BytesIO()
    torch.save(published, buffer)
    data = buffer.getvalue()
    stem = f'{model_name(config.filename)}-{hashlib.sha256(data).hexdigest()[:8]}'
    classes = (plain.model.get('head') or {}).get('num_classes')
    results = None
    if args.results is not None:
        results = read_results(args.results, args.config, args.checkpoint, classes)
    files = {f'{stem}.pth': data}
    safe = safetensors_bytes(published)
    if safe is not None:
        files[f'{stem}.safetensors'] = safe
    card = Card(
        name=stem,
        config=args.config,
        checkpoint=args.checkpoint,
        training=Training.of(model_name(config.filename), args.checkpoint, config),
        num_classes=classes,
        classes=class_names(args.checkpoint, config),
        license=args.license,
        results=results,
        hashes={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        needs_us='custom_imports' in plain,
    )
    text = card.text()
    for name, content in files.items():
        atomic_write(args.out / name, content)
    atomic_write(args.out / f'{stem}.py', plain.pretty_text)
    atomic_write(args.out / f'{stem}.md', text)
    count = sum(value.numel() for key, value in state.items() if 'num_batches' not in key)
    print(
        f'{args.out / stem}.pth: {len(state)} keys, {count:,} numbers, {len(data) / 2**20:.1f} MiB'
    )
    if safe is None:
        print(
            'no .safetensors is written, because the library is missing: pip install safetensors'
        )
    else:
        print(f'{args.out / stem}.safetensors: the same weights')
    print(f'{args.out / stem}.py: the config of these weights')
    print(f'{args.out / stem}.md: the model card')


if __name__ == '__main__':
    cli.run(main)
