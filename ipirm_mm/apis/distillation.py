"""Stage II on a folder of labeled images, by one call."""

from __future__ import annotations

import io
import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import print_log

from ipirm_mm import cli
from ipirm_mm.engine import newest_checkpoint
from ipirm_mm.errors import UserError
from ipirm_mm.models.utils import plain_classifier, published_checkpoint, published_config
from ipirm_mm.options import check_one_of, check_whole
from ipirm_mm.resources import SCOPE
from ipirm_mm.utils import atomic_write, check_checkpoint
from ipirm_mm.visualization import format_table

from .folder_config import (
    MODELS,
    PARTS,
    backbone_config,
    center_pipeline,
    folder_dataset,
    loader,
    one_part,
    resized,
    scale_rate,
)
from .image_folder import ImageFolder, Sizes, choose_sizes, read_folder
from .runs import last_accuracy, plain_config, train_in

# The config that each loss changes; the teacher's is that of the report.
TEACHER = 'finetune/teacher_r50.py'
LOSSES = {'ofd': 'distill/ofd_r50.py', 'kl': 'distill/kl_r50.py'}
STUDENT = 'student'
# The part of the epochs in which the learning rate rises (report: 10 of 100).
_WARMUP = 0.1


def distill(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    encoder: str | os.PathLike[str],
    model: str = 'resnet50',
    loss: str = 'ofd',
    *,
    epochs: int = 100,
    batch_size: int | None = None,
    image_size: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    amp: bool = False,
) -> Path:
    """Train a classifier by distillation, from an encoder of :func:`pretrain` and few labels.

    As in Stage II of the report, a teacher is fine-tuned from the encoder with the labels, and a
    student that starts from the encoder too learns from the teacher and the labels. Both are
    ordinary trainings of MMEngine, in ``out/teacher`` and ``out/student``. Called again, it goes
    on where it was interrupted.

    .. code-block:: python

        student = ipirm_mm.distill(data='labeled', out='out/student', encoder='out/encoder.pth')
        print(ipirm_mm.predict('some_images', student.parent)[0])

    Args:
        data: The folder of the images, with a folder for each class. A random fifth of the images
            is held out to measure the accuracy.
        out: The folder to write to, outside of ``data``.
        encoder: ``encoder.pth`` of :func:`pretrain`, or other weights of the backbone.
        model: Backbone of the encoder, see :func:`pretrain`. Defaults to ``'resnet50'``.
        loss: ``'ofd'``, the features before the last ReLU of each stage, or ``'kl'``, the logits.
            Defaults to ``'ofd'``, the best one of the report.
        epochs: Passes over the images, of the teacher and of the student. Defaults to 100
            (report).
        batch_size: Images per step. Defaults to None: as :func:`pretrain` chooses it. The learning
            rate is proportional to it.
        image_size: Side of the crops in pixels. Defaults to None: as :func:`pretrain` chooses it.
        workers: Processes that load images. Defaults to None: as many as there are processors, at
            most 8.
        seed: Seed of both runs. Defaults to 0.
        amp: Whether to train with automatic mixed precision, on a GPU. Defaults to False.

    Returns:
        The weights of the student, ``out/student.pth``; its config for MMPretrain's tools is
        ``out/student.py``.

    Raises:
        UserError: If an option is out of range, an image is in no folder of a class, the encoder
            does not fit the model, or ``out`` holds other trainings.
    """
    check_one_of('model', model, tuple(MODELS))
    check_one_of('loss', loss, tuple(LOSSES))
    check_checkpoint(str(encoder), ': give encoder.pth, which pretrain writes')
    folder, path = read_folder(data, out), Path(out)
    if not folder.classes:
        raise UserError(
            f'data={data} must have a folder for each of at least two classes, and no image '
            'outside of them'
        )
    if folder.empty:
        raise UserError(
            f'data={data} has folders without an image, which would be classes too: '
            f'{", ".join(folder.empty)}; remove them'
        )
    sizes = choose_sizes(folder, batch_size, image_size, workers)
    check_whole('epochs', epochs)
    check_whole('seed', seed, least=0)
    print_log(
        f'{folder.count} images of {len(folder.classes)} classes, a fifth held out; {model}, '
        f'{epochs} epochs for the teacher and for the student, {sizes.batch_size} images of '
        f'{sizes.image_size} pixels per step',
        logger='current',
    )

    def config(base: str) -> Config:
        return classifier_config(base, folder, Path(encoder), model, epochs, sizes, seed)

    teacher = config(TEACHER)
    teacher.work_dir = str(path / 'teacher')
    train_in(path / 'teacher', plain_config(teacher), 'teacher', amp)
    student = config(LOSSES[loss])
    student.work_dir = str(path / STUDENT)
    network = dict(plain_classifier(teacher))
    network.pop('data_preprocessor', None)
    student.model.teacher = dict(model=network, checkpoint=_last(path / 'teacher'))
    train_in(path / STUDENT, plain_config(student), 'student', amp)
    rows = [dict(name=name, accuracy=last_accuracy(path / name)) for name in ('teacher', STUDENT)]
    print(format_table(rows, (('name', ''), ('accuracy', 'accuracy on the fifth held out, %'))))
    weights = io.BytesIO()
    torch.save(published_checkpoint(student, _last(path / STUDENT)), weights)
    atomic_write(path / 'student.py', published_config(student).pretty_text)
    atomic_write(path / 'student.pth', weights.getvalue())
    return path / 'student.pth'


def classifier_config(
    base: str,
    folder: ImageFolder,
    encoder: Path,
    model: str,
    epochs: int,
    sizes: Sizes,
    seed: int,
) -> Config:
    """The config of a classifier on a folder of images, changed from one of this package.

    Args:
        base: The config, below ``configs``.
        folder: What is in the folder.
        encoder: Weights of the backbone to start from.
        model: Name in :data:`~ipirm_mm.apis.folder_config.MODELS`.
        epochs: Passes over the images.
        sizes: Images per step, side of the crops and data workers.
        seed: Seed of the run.

    Returns:
        The config.
    """
    cfg = cli.load_config(f'{SCOPE}::{base}')
    classes = len(folder.classes)
    batch, size, workers = sizes.batch_size, sizes.image_size, sizes.workers
    start = dict(type='Pretrained', checkpoint=str(encoder.resolve()), prefix=None)
    cfg.model.backbone = backbone_config(model, init_cfg=start)
    cfg.model.head.update(num_classes=classes, in_channels=MODELS[model][1])
    cfg.data_preprocessor.num_classes = classes
    for each in cfg.model.get('distill_losses') or ():
        each.pop('norm_cfg', None)  # SyncBN
    topk = (1, 5) if classes > 5 else (1,)
    cfg.model.head.topk = topk
    pipeline = resized(cfg.train_dataloader.dataset.pipeline, size)
    images = folder_dataset(folder.root, center_pipeline(size), with_label=True)
    cfg.train_dataloader = loader(
        one_part(dict(images, pipeline=pipeline), PARTS, rest=True), batch, workers, train=True
    )
    held_out = loader(one_part(images, PARTS), batch, workers)
    cfg.val_dataloader = cfg.test_dataloader = held_out
    cfg.val_evaluator = cfg.test_evaluator = dict(type='Accuracy', topk=topk)
    cfg.val_cfg = cfg.test_cfg = dict()
    # About ten times, and after the last epoch too: a divisor of their number.
    interval = max(n for n in range(1, max(epochs // 10, 1) + 1) if epochs % n == 0)
    cfg.train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=interval)
    scale_rate(cfg, batch)
    warmup = max(round(_WARMUP * epochs), 1) if epochs > 1 else 0
    rise, fall = cfg.param_scheduler
    rise.end = fall.begin = warmup
    fall.T_max, fall.end = epochs - warmup, epochs
    cfg.param_scheduler = [rise, fall] if warmup else [fall]
    cfg.randomness = dict(seed=seed)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=interval, max_keep_ckpts=2)
    return cfg


def _last(folder: Path) -> str:
    found, _ = newest_checkpoint(str(folder))
    return str(Path(str(found)).resolve())
