"""Export a classifier for other runtimes: ONNX, torch.export or TorchScript.

    python tools/export_model.py CONFIG CHECKPOINT --out FILE.onnx
    python tools/export_model.py CONFIG CHECKPOINT --out FILE.pt2      (torch.export)
    python tools/export_model.py CONFIG CHECKPOINT --out FILE.pt       (TorchScript, deprecated)

The input is a batch of normalized float images of any number, the output their class
probabilities, as in MMDeploy. The file is checked against PyTorch before it is written, on images
of the config's test data if they are there. What training added, such as a teacher, is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS
from torch import Tensor, nn

from ipirm_mm import cli
from ipirm_mm.errors import UserError
from ipirm_mm.models.utils import (
    class_names,
    describe_output,
    head_logits,
    input_channels,
    load_classifier,
    score_kind,
)
from ipirm_mm.utils import atomic_write, check_writable
from ipirm_mm.version import __version__

# Packages that an ending of --out needs, by the name of their import and for pip.
NEEDED: dict[str, tuple[str, ...]] = {
    '.onnx': ('onnx', 'onnxruntime', 'onnxscript'),
    '.pt2': (),
    '.pt': (),
}
# Names of MMDeploy's models.
INPUT, OUTPUT = 'input', 'output'

Runner = Callable[[Tensor], Tensor]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of a student or another classifier')
    parser.add_argument('checkpoint', help='its checkpoint, of a training or published')
    parser.add_argument(
        '--out', type=Path, required=True, help='file to write: NAME.onnx, NAME.pt2 or NAME.pt'
    )
    parser.add_argument(
        '--logits', action='store_true', help='give logits instead of probabilities'
    )
    parser.add_argument(
        '--normalize',
        action='store_true',
        help='normalize within the model, which then takes pixels from 0 to 255 as floats '
        '(default: the caller normalizes, as with MMDeploy)',
    )
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        metavar='PIXELS',
        help='height and width of the images, or one number for both (default: as the test '
        'pipeline gives them)',
    )
    parser.add_argument(
        '--images', type=int, default=8, help='number of images to check with (default: 8)'
    )
    parser.add_argument(
        '--tolerance',
        type=float,
        default=1e-4,
        help='largest difference from PyTorch with which the file is written (default: 1e-4)',
    )
    parser.add_argument('--opset', type=int, help="ONNX opset (default: PyTorch's)")
    cli.add_cfg_options(parser)
    args = parser.parse_args()
    if args.images < 1 or any(side < 1 for side in args.shape or ()):
        parser.error('--images and --shape must be at least 1')
    if args.shape and len(args.shape) > 2:
        parser.error('--shape takes one number or two, the height and the width')
    return args


class Exported(nn.Module):
    """What is exported: a classifier from images to probabilities or logits."""

    def __init__(self, model: Any, kind: str | None, normalize: bool) -> None:
        super().__init__()
        self.model = model
        self.kind = kind
        self.normalize = normalize
        if normalize:
            self.register_buffer('mean', model.data_preprocessor.mean.clone())
            self.register_buffer('std', model.data_preprocessor.std.clone())

    def forward(self, images: Tensor) -> Tensor:
        if self.normalize:
            images = (images - self.mean) / self.std
        head = getattr(self.model, 'head', None)
        if head is None:  # a classifier of timm
            logits = self.model(images)
        else:
            logits = head_logits(head, head(self.model.extract_feat(images)))
        if self.kind is None:
            return logits
        return logits.softmax(1) if self.kind == 'softmax' else logits.sigmoid()


def check_out(path: Path) -> str:
    """Return the format, the ending of the file, or say what is wrong with it."""
    kind = path.suffix
    if kind not in NEEDED:
        raise UserError(
            f'--out is {path}, but a model is written as .onnx, .pt2 (torch.export) or .pt '
            '(TorchScript): give a name with one of these endings'
        )
    missing = [name for name in NEEDED[kind] if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f'--out {path} needs {", ".join(missing)}, which is not installed: '
            f'pip install {" ".join(NEEDED[kind])}'
        )
    return kind


def real_images(config: Config, preprocessor: Any, count: int) -> Tensor:
    """Images of the test data as the model gets them, evenly spaced over the data set."""
    dataset = DATASETS.build(config.test_dataloader.dataset)
    numbers = [n * len(dataset) // count for n in range(min(count, len(dataset)))]
    return preprocessor(default_collate([dataset[n] for n in numbers]), False)['inputs']


def pipeline_size(config: Config) -> tuple[int, int] | None:
    """Height and width that the test pipeline makes; None if it does not say."""
    dataset = (config.get('test_dataloader') or {}).get('dataset') or {}
    for step in reversed(dataset.get('pipeline') or []):
        size = step.get('crop_size') or step.get('scale')
        if isinstance(size, int):
            return size, size
        if isinstance(size, (tuple, list)) and len(size) == 2:
            return (size[0], size[1]) if 'crop_size' in step else (size[1], size[0])
    return None


def find_images(config: Config, model: Any, args: argparse.Namespace) -> tuple[Tensor, str]:
    """Images to export and check with, and where they are from."""
    shape = tuple(args.shape * 2)[:2] if args.shape else None
    try:
        images = real_images(config, model.data_preprocessor, args.images)
        source = f'{len(images)} images of the test data'
    except Exception as error:  # the data is not needed, and can lack in many ways
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(f'the test data cannot be read ({reason}): the model is checked on random images')
        size = shape or pipeline_size(config)
        if size is None:
            raise UserError(
                'the size of the images is not known, because the test pipeline does not say it: '
                'give --shape HEIGHT WIDTH'
            ) from None
        channels = input_channels(model) or 3
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(args.images, channels, *size, generator=generator)
        if args.normalize:
            images = (images * 60 + 120).clamp(0, 255)
        source = f'{len(images)} random images'
    images = images.float()
    if shape and tuple(images.shape[2:]) != shape:
        images = nn.functional.interpolate(images, shape, mode='bilinear', antialias=True)
    # PyTorch takes a batch of one for a fixed number.
    return images if len(images) > 1 else images.repeat(2, 1, 1, 1), source


@torch.no_grad()
def find_kind(config: Config, model: Any, images: Tensor) -> str | None:
    """How the classifier turns logits into scores, see ``score_kind``; None if it is neither."""
    head = getattr(model, 'head', None)
    features = images if head is None else model.extract_feat(images)
    output = model(images) if head is None else head(features)
    logits = head_logits(head, output)
    if logits is None:
        raise UserError(
            f'{config.filename} {describe_output(head or model, output)}: only a classifier with '
            'one row of logits per image can be exported'
        )
    return score_kind(head or model, features, logits)


def build(config: Config, args: argparse.Namespace) -> tuple[Exported, Tensor, str]:
    """Build what is exported, and the images to check it with."""
    model = load_classifier(config, args.checkpoint).eval()
    preprocessor = model.data_preprocessor
    if args.normalize and not getattr(preprocessor, '_enable_normalize', False):
        raise UserError(
            f'--normalize needs mean and std of the data preprocessor, which {config.filename} '
            'does not have: leave it out'
        )
    normalizes = getattr(preprocessor, '_enable_normalize', False)
    if args.normalize:
        preprocessor._enable_normalize = False  # the exported model does it
    images, source = find_images(config, model, args)
    probe = (images - preprocessor.mean) / preprocessor.std if args.normalize else images
    preprocessor._enable_normalize = normalizes
    kind = find_kind(config, model, probe)
    if args.logits:
        kind = None
    elif kind is None:
        raise UserError(
            f'{config.filename} has a head whose scores are neither softmax nor sigmoid of its '
            'logits: export the logits by --logits'
        )
    return Exported(model, kind, args.normalize).eval(), images, source


def describe(exported: Exported, images: Tensor, args: argparse.Namespace) -> dict[str, str]:
    """What a user of the file has to know, as text by name."""
    preprocessor = exported.model.data_preprocessor
    config = cli.load_config(args.config, args.cfg_options)
    names = class_names(args.checkpoint, config)
    normalizes = getattr(preprocessor, '_enable_normalize', False)
    rgb = getattr(preprocessor, 'to_rgb', False)
    kinds = dict(softmax='probabilities (softmax)', sigmoid='probabilities (sigmoid)')
    about = dict(
        producer=f'ipirm_mm {__version__}',
        config=Path(args.config).name,
        input=f'float32, (batch, {", ".join(map(str, images.shape[1:]))})',
        channel_order='RGB' if rgb else 'as the test pipeline gives it, BGR by default',
        normalization='inside: give pixels from 0 to 255'
        if exported.normalize
        else 'outside: give (pixels from 0 to 255 - mean) / std'
        if normalizes
        else 'none',
        output=kinds.get(exported.kind or '', 'logits'),
    )
    if normalizes:
        about['mean'] = json.dumps(preprocessor.mean.flatten().tolist())
        about['std'] = json.dumps(preprocessor.std.flatten().tolist())
    if names is not None:
        about['classes'] = json.dumps(list(names))
    if Path(args.checkpoint).is_file():
        data = Path(args.checkpoint).read_bytes()
        about['checkpoint_sha256'] = hashlib.sha256(data).hexdigest()
    return about


def to_onnx(
    exported: Exported, images: Tensor, about: dict[str, str], opset: int | None
) -> tuple[bytes, Runner]:
    """Export to ONNX; returns the file, and a function that runs it."""
    import onnxruntime

    program = torch.onnx.export(
        exported,
        (images,),
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=opset,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim('batch')},),
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    for key, value in about.items():
        model.metadata_props.add(key=key, value=value)
    data = model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=['CPUExecutionProvider'])

    def run(batch: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: batch.numpy()})[0])

    return data, run


def to_pt2(exported: Exported, images: Tensor, about: dict[str, str]) -> tuple[bytes, Runner]:
    """Export by ``torch.export``; returns the file, and a function that runs it."""
    shapes = ({0: torch.export.Dim('batch')},)
    program = torch.export.export(exported, (images,), dynamic_shapes=shapes)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={'metadata.json': json.dumps(about)})
    data = buffer.getvalue()
    return data, torch.export.load(io.BytesIO(data)).module()


def to_torchscript(
    exported: Exported, images: Tensor, about: dict[str, str]
) -> tuple[bytes, Runner]:
    """Trace to TorchScript; returns the file, and a function that runs it."""
    traced = torch.jit.trace(exported, images)
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer, _extra_files={'metadata.json': json.dumps(about)})
    data = buffer.getvalue()
    return data, torch.jit.load(io.BytesIO(data))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what PyTorch says about its own parts while it exports."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(level)


def largest_difference(exported: Exported, run: Runner, images: Tensor) -> float:
    """Largest difference from PyTorch, in batches of all images, of three, and of one."""
    batches = [images, images[:3], images[-1:]]
    return max(float((run(batch) - exported(batch)).abs().max()) for batch in batches)


def are_all_certain(exported: Exported, images: Tensor) -> bool:
    """Whether all outputs are probabilities of 0 or 1, as any file that is similar has them."""
    if exported.kind is None:
        return False
    scores = exported(images)
    return bool((torch.minimum(scores, 1 - scores) < 1e-6).all())


def main() -> None:
    args = parse_args()
    kind = check_out(args.out)
    check_writable(args.out)
    config = cli.load_config(args.config, args.cfg_options)
    init_default_scope(config.get('default_scope', 'mmpretrain'))
    exported, images, source = build(config, args)
    exported.requires_grad_(False)
    about = describe(exported, images, args)
    with torch.no_grad(), quiet():
        try:
            if kind == '.onnx':
                data, run = to_onnx(exported, images, about, args.opset)
            else:
                data, run = (to_pt2 if kind == '.pt2' else to_torchscript)(exported, images, about)
            difference = largest_difference(exported, run, images)
            certain = are_all_certain(exported, images)
        except Exception as error:  # exporters raise errors of many types
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f'{args.config} cannot be exported as {kind} ({type(error).__name__}: {reason}): '
                'try another format, or replace the part of the model that it names'
            ) from error
    if not difference <= args.tolerance:
        raise UserError(
            f'{args.out} is not written: its output differs from that of PyTorch by up to '
            f'{difference:.2g}, more than --tolerance {args.tolerance:g}; try another --opset or '
            'format, or raise the tolerance if this is small enough'
        )
    atomic_write(args.out, data)
    print(f'{args.out}: {len(data) / 2**20:.1f} MiB')
    for name, value in about.items():
        print(f'  {name}: {value}')
    print(f'largest difference from PyTorch: {difference:.2g}, on {source}')
    if certain:
        print(
            'all of these probabilities are 0 or 1, which hides differences: export with --logits '
            'to compare what is before them'
        )
    if kind == '.pt':
        print('PyTorch has deprecated TorchScript: prefer .pt2 or .onnx')


if __name__ == '__main__':
    cli.run(main)
