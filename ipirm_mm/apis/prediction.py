"""Predictions of a classifier for images, by one call."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS, TRANSFORMS

from ipirm_mm import cli
from ipirm_mm.datasets import EXTENSIONS, LoadImage, is_image, one_pipeline
from ipirm_mm.errors import UserError
from ipirm_mm.models.tta import CROPS, VIEW_POLICIES, ScoreMergingTTA, tta_pipeline
from ipirm_mm.models.utils import class_names, label_rule, load_classifier
from ipirm_mm.options import check_one_of, check_whole
from ipirm_mm.utils import ProgressBar, type_name


def predict(
    images: str | os.PathLike[str],
    model: str | os.PathLike[str],
    *,
    tta_crops: str | None = None,
    tta_policy: str = 'tsharpen',
    topk: int = 5,
    batch_size: int = 32,
    device: str | None = None,
) -> list[dict[str, Any]]:
    """Classify an image, or all images in a folder.

    Args:
        images: The image or folder.
        model: The folder that :func:`distill` wrote to, or the config of a classifier whose
            checkpoint lies beside it with the same name (``NAME.py`` and ``NAME.pth``, as
            ``tools/publish_model.py`` writes them), or of an ensemble.
        tta_crops: Views of each image that are merged: ``'flip'``, ``'five'``, ``'ten'`` or
            ``'center'``. Defaults to None: the center crop alone.
        tta_policy: How the views are merged: ``'mean'``, ``'geometric'`` or ``'tsharpen'``.
            Defaults to ``'tsharpen'`` (report).
        topk: Number of classes to name. Defaults to 5.
        batch_size: Images per batch. Defaults to 32.
        device: Such as ``'cuda:0'``. Defaults to None: a GPU if there is one.

    Returns:
        For each image, in the order of the paths: ``image`` (its path), ``labels`` (numbers of the
        classes, highest score first), ``names`` (their names, or the numbers as text) and
        ``scores`` (their probabilities).

    Raises:
        UserError: If there is no image or no model, or a file cannot be read.
    """
    check_whole('topk', topk)
    check_whole('batch_size', batch_size)
    check_one_of('tta_policy', tta_policy, VIEW_POLICIES)
    if tta_crops is not None:
        check_one_of('tta_crops', tta_crops, tuple(CROPS))
    config, checkpoint = _files(Path(model))
    paths = find_images(Path(images))
    predictor = load_predictor(
        cli.load_config(config), checkpoint, config, tta_crops, tta_policy, device=device
    )
    found = []
    for path, _, sample in predicted(predictor, paths, batch_size):
        score, label = sample.pred_score.cpu().topk(min(topk, len(sample.pred_score)))
        labels = label.tolist()
        names = [predictor.names[n] if predictor.names else str(n) for n in labels]
        found.append(dict(image=str(path), labels=labels, names=names, scores=score.tolist()))
    return found


def _files(model: Path) -> tuple[str, str | None]:
    """Config and checkpoint of a model, None for an ensemble."""
    config = model / 'student.py' if model.is_dir() else model.with_suffix('.py')
    checkpoint = config.with_suffix('.pth')
    if not config.is_file():
        raise UserError(
            f'model={model}: there is no config {config}; give the folder that distill wrote to, '
            'or the config of a classifier'
        )
    return str(config), str(checkpoint) if checkpoint.is_file() else None


def find_images(path: Path, leave_out: Path | None = None) -> list[Path]:
    """List the images in a folder and its subfolders, in order; or the one image.

    Args:
        path: The folder or image.
        leave_out: A folder below it whose images are not listed, such as that of the pictures of
            an earlier run. Defaults to None.

    Raises:
        UserError: If there is no image.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f'there is no image or folder {path}')
    root, own = path.resolve(), leave_out.resolve() if leave_out is not None else None
    below = own if own is not None and own != root and own.is_relative_to(root) else None
    found = sorted(
        file
        for file in path.rglob('*')
        if is_image(file.relative_to(path))
        and not file.is_dir()
        and (below is None or not (root / file.relative_to(path)).is_relative_to(below))
    )
    if not found:
        raise UserError(f'{path} has no image: no name ends in one of {", ".join(EXTENSIONS)}')
    return found


@dataclass
class Predictor:
    """A classifier that is ready for images.

    Attributes:
        model: The classifier or ensemble, in eval mode on its device.
        pipeline: Makes its inputs from a record with ``img_path``.
        names: Names of the classes; None if they are not known.
        rule: Its rule for several labels per image; None if it predicts one.
    """

    model: Any
    pipeline: Compose
    names: tuple[str, ...] | None
    rule: Any


def load_predictor(
    cfg: Config,
    checkpoint: str | None,
    config: str,
    tta_crops: str | None = None,
    tta_policy: str | None = None,
    tta_crop_size: int | None = None,
    tta_resize: int | None = None,
    device: str | None = None,
) -> Predictor:
    """Build a classifier or an ensemble with its test pipeline.

    Args:
        cfg: Config of the classifier or ensemble.
        checkpoint: Its checkpoint; None for an ensemble, whose config names those of its members.
        config: Name of the config, for messages.
        tta_crops: Views of each image. Defaults to None: those of the test pipeline.
        tta_policy: How the views are merged. Defaults to None: by their mean.
        tta_crop_size: Side of the views. Defaults to None: that of the test pipeline.
        tta_resize: Shorter side before cropping. Defaults to None: that of the test pipeline.
        device: Such as ``'cuda:0'``. Defaults to None: a GPU if there is one.

    Raises:
        UserError: If a checkpoint is missing or superfluous, or a file cannot be read.
    """
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    pipeline = one_pipeline(cfg.get('test_dataloader'), f'{config}: test_dataloader')
    names: tuple[str, ...] | None
    if type_name(cfg.model.type) == 'EnsembleClassifier':
        if checkpoint or tta_crops:
            raise UserError(
                'the config of an ensemble names the checkpoints and the views of its members: '
                'leave CHECKPOINT and --tta-crops out'
            )
        model = MODELS.build(cfg.model)
        names = model.classes
    else:
        if checkpoint is None:
            raise UserError(f'{config} is no ensemble: give its checkpoint after it')
        model = load_classifier(cfg, checkpoint)
        names = class_names(checkpoint, cfg)
        if tta_crops:
            model = ScoreMergingTTA(model, policy=tta_policy or 'mean')
            pipeline = tta_pipeline(pipeline, tta_crops, tta_crop_size, tta_resize)
    model.to(device or get_device())
    model.eval()
    rule = model.rule if hasattr(model, 'rule') else label_rule(getattr(model, 'module', model))
    steps = Compose([TRANSFORMS.build(step) for step in pipeline])
    return Predictor(model, steps, names, rule)


def predicted(
    predictor: Predictor, paths: list[Path], batch_size: int
) -> Iterator[tuple[Path, Any, Any]]:
    """Classify images, in batches; a bar shows how far it is.

    Args:
        predictor: The classifier.
        paths: The images.
        batch_size: Images per batch.

    Yields:
        Path, image (BGR) and ``DataSample`` of each.
    """
    load = LoadImage()
    with ProgressBar(f'{len(paths)} images') as bar:
        for begin in range(0, len(paths), batch_size):
            chunk = paths[begin : begin + batch_size]
            # LoadImage names a file that cannot be read. Pipelines of file data sets begin with
            # loading and read the file again.
            loaded = [load(dict(img_path=str(path), sample_idx=0)) for path in chunk]
            images = [results['img'].copy() for results in loaded]
            inputs = default_collate([predictor.pipeline(results) for results in loaded])
            yield from zip(chunk, images, predictor.model.test_step(inputs))
            bar((begin + len(chunk)) / len(paths), str(chunk[-1].name))
