"""Stage I on a folder of images, by one call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ipirm_mm import cli
from ipirm_mm.engine.hooks.encoder_files_hook import CLASSIFIER, PLAIN
from ipirm_mm.errors import UserError
from ipirm_mm.options import check_one_of, check_whole
from ipirm_mm.resources import SCOPE

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
from .image_folder import (
    ImageFolder,
    Sizes,
    choose_epochs,
    choose_sizes,
    choose_subsets,
    read_folder,
)
from .runs import plain_config, train_in

# The config that each method changes: IP-IRM, the methods that it builds on, and its controls.
METHODS = {
    'ipirm-simclr': 'ours/ipirm_simclr_r50_ours.py',
    'ipirm-simsiam': 'ours/ipirm_simsiam_r50_ours.py',
    'simclr': 'baselines/simclr_r50.py',
    'simsiam': 'baselines/simsiam_r50.py',
    'simclr-penalty-only': 'ours/simclr_r50_ours_penalty_only.py',
    'simclr-random-partition': 'ours/simclr_r50_ours_random_partition.py',
    'simsiam-penalty-only': 'ours/simsiam_r50_ours_penalty_only.py',
    'simsiam-random-partition': 'ours/simsiam_r50_ours_random_partition.py',
}
# With fewer, k-NN could have to name a class that no voting image has.
LEAST_PER_CLASS = 10
# Images of the page: their nearest neighbors and their map.
_SHOWN = 500


def pretrain(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    model: str = 'resnet50',
    method: str = 'ipirm-simclr',
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    image_size: int | None = None,
    num_subsets: int | None = None,
    labels: bool | None = None,
    workers: int | None = None,
    seed: int = 0,
    amp: bool = False,
) -> Path:
    """Train an encoder on a folder of images, without labels.

    The images may have any size and mode, and lie in folders of any depth. The training is an
    ordinary one of MMEngine, on one processor or GPU: its config, ``out/config.py``, can be read,
    changed and trained by ``tools/train.py`` and ``tools/dist_train.sh``. Called again, it goes on
    where it was interrupted; Ctrl-C saves a checkpoint first. While it runs, ``out/index.html``
    shows losses, partitions, nearest neighbors, a map of the features, and the time left.

    .. code-block:: python

        import ipirm_mm

        encoder = ipirm_mm.pretrain(data='my_images', out='out/my_encoder')

    Args:
        data: The folder of the images.
        out: The folder to write to, outside of ``data``.
        model: Backbone, by its name in timm: ``'resnet18'``, ``'resnet34'``, ``'resnet50'``,
            ``'resnet101'``, ``'resnet152'`` or ``'resnext50_32x4d'``. Defaults to ``'resnet50'``.
        method: ``'ipirm-simclr'``, ``'ipirm-simsiam'``, or without partitions ``'simclr'`` and
            ``'simsiam'``. Defaults to ``'ipirm-simclr'``. IP-IRM has the recipe of
            ``configs/ours``: a quarter of the epochs without partition, then one partition by
            k-means. Its controls, which tell whether the partition is what helps, are
            ``'simclr-penalty-only'`` and ``'simclr-random-partition'``, and the same of SimSiam.
        epochs: Passes over the images. Defaults to None: 100 to 800, so that as many images are
            seen as in the report, if that is in this range.
        batch_size: Images per step. Defaults to None: a power of two from 8 to 256, for at least
            four steps per epoch. The learning rate is proportional to it.
        image_size: Side of the crops in pixels. Defaults to None: the largest of 64, 96, 128, 160,
            192 and 224 that most images have.
        num_subsets: Subsets of the partition. Defaults to None: one for five images of a batch,
            2 to 50.
        labels: Whether the folders in ``data`` are classes. They are not trained on, but the k-NN
            accuracy of a fifth of the images by the others is shown. Defaults to None: if each
            image is in one of at least two folders of at least 10 images each.
        workers: Processes that load images. Defaults to None: as many as there are processors, at
            most 8.
        seed: Seed of the run. Defaults to 0.
        amp: Whether to train with automatic mixed precision, on a GPU. Defaults to False.

    Returns:
        The weights of the backbone, ``out/encoder.pth``, which timm and torchvision load. For
        MMPretrain's ``get_model`` and tools there are ``encoder_mmpretrain.py`` and
        ``encoder_mmpretrain.pth`` beside it.

    Raises:
        UserError: If an option is out of range, the folder of the images has too few, or ``out``
            holds another training.
    """
    check_one_of('model', model, tuple(MODELS))
    check_one_of('method', method, tuple(METHODS))
    folder, path = read_folder(data, out), Path(out)
    sizes = choose_sizes(folder, batch_size, image_size, workers)
    epochs = choose_epochs(folder.count) if epochs is None else epochs
    check_whole('epochs', epochs)
    subsets = choose_subsets(sizes.batch_size) if num_subsets is None else num_subsets
    check_whole('num_subsets', subsets, least=2)
    check_whole('seed', seed, least=0)
    enough = folder.smallest_class >= LEAST_PER_CLASS
    if labels and not enough:
        found = f'{len(folder.classes)} classes, the smallest of {folder.smallest_class} images'
        raise UserError(
            f'labels=True needs each image of data={data} in one of at least two folders, the '
            f'classes, of at least {LEAST_PER_CLASS} images each, but there are {found}: sort the '
            'images, or leave labels out'
        )
    classes = folder.classes if enough and labels is not False else ()
    cfg = pretraining_config(folder, classes, model, method, epochs, sizes, subsets, seed)
    cfg.work_dir = str(path)
    encoder = path / PLAIN
    known = f'{len(classes)} folders as classes for k-NN' if classes else 'no classes'
    divided = f', {subsets} subsets' if _divides(cfg) else ''
    print_log(
        f'{folder.count} images ({known}); {method} of {model}: {epochs} epochs, '
        f'{sizes.batch_size} images of {sizes.image_size} pixels per step{divided}. '
        f'Page: {path / "index.html"}',
        logger='current',
    )
    train_in(path, cfg, 'training', amp, (PLAIN, CLASSIFIER))
    print_log(f'{encoder} is the encoder, and {path / "index.html"} the page', logger='current')
    return encoder


def pretraining_config(
    folder: ImageFolder,
    classes: tuple[str, ...],
    model: str,
    method: str,
    epochs: int,
    sizes: Sizes,
    num_subsets: int,
    seed: int,
) -> Config:
    """The config of a training on a folder of images.

    Args:
        folder: What is in the folder.
        classes: Names of the classes; none if there are no labels.
        model: Name in :data:`MODELS`.
        method: Name in :data:`METHODS`.
        epochs: Passes over the images.
        sizes: Images per step, side of the crops and data workers.
        num_subsets: Subsets of the partition; of no meaning for a method without one.
        seed: Seed of the run.

    Returns:
        Config with the sections that a runner reads.
    """
    cfg = cli.load_config(f'{SCOPE}::{METHODS[method]}')
    batch, size, workers = sizes.batch_size, sizes.image_size, sizes.workers
    cfg.model.backbone = backbone_config(model, zero_init_residual=True)
    cfg.model.neck.in_channels = MODELS[model][1]
    views = resized(cfg.train_dataloader.dataset.pipeline, size)
    images = folder_dataset(folder.root, center_pipeline(size), bool(classes))
    cfg.train_dataloader = loader(dict(images, pipeline=views), batch, workers, train=True)
    for split in ('val', 'test'):
        for name in ('dataloader', 'cfg', 'evaluator'):
            cfg[f'{split}_{name}'] = None
    cfg.train_cfg = dict(by_epoch=True, max_epochs=epochs)
    scale_rate(cfg, batch)
    cfg.randomness = dict(seed=seed)
    divides, begin = _divides(cfg), max(epochs // 4, 1)
    partition_hook = _partition_hook(cfg)
    if divides:
        partition_hook.interval = begin
    if 'num_subsets' in cfg.model:  # also of the penalty alone, whose config is that of IP-IRM
        cfg.model.num_subsets = num_subsets
    if 'irm_warmup_epochs' in cfg.model.head:
        cfg.model.head.irm_warmup_epochs = begin
    hooks: list[dict[str, Any]] = [partition_hook]
    interval = max(epochs // 20, 1)
    if classes:
        k = min(max(folder.count // 50, 5), 200)
        cfg.knn_bank = loader(one_part(images, PARTS, rest=True), batch, workers)
        cfg.test_dataloader = loader(one_part(images, PARTS), batch, workers)
        cfg.test_cfg, cfg.test_evaluator = dict(), dict(type='KNNAccuracy', k=k)
        hooks.append(
            dict(
                type='KNNHook',
                interval=interval,
                k=k,
                bank_dataloader=cfg.knn_bank,
                query_dataloader=cfg.test_dataloader,
            )
        )
    shown = {
        'images': f'{folder.count} in {folder.root}',
        'classes': f'{len(classes)} folders, for k-NN only' if classes else 'none',
        'model': model,
        'method': method,
        'epochs': epochs,
        **vars(sizes),
        **(dict(num_subsets=num_subsets) if divides else {}),
        'seed': seed,
    }
    hooks += [
        dict(
            type='TrainingPageHook',
            sample_dataloader=loader(
                one_part(images, round(folder.count / _SHOWN)), batch, workers
            ),
            interval=interval,
            title=f'{method}: {model} on {folder.root.name}',
            settings=shown,
            next_steps=_next_steps(model),
        ),
        dict(type='EncoderFilesHook'),
    ]
    cfg.custom_hooks = hooks
    cfg.default_hooks.checkpoint = dict(
        type='CheckpointHook', interval=max(epochs // 50, 1), max_keep_ckpts=2
    )
    return plain_config(cfg)


def _partition_hook(cfg: Config) -> Any:
    return next(hook for hook in cfg.custom_hooks if hook.type == 'PartitionUpdateHook')


def _divides(cfg: Config) -> bool:
    """Whether a method finds partitions."""
    return bool(_partition_hook(cfg).get('max_partitions') != 0)


def _next_steps(model: str) -> dict[str, str]:
    return {
        'timm': f"timm.create_model('{model}', num_classes=0)"
        f".load_state_dict(torch.load('{PLAIN}'))",
        'MMPretrain': f"mmpretrain.get_model('{Path(CLASSIFIER).stem}.py', "
        f"pretrained='{CLASSIFIER}')",
        'a classifier': 'python -m ipirm_mm distill --data LABELED_FOLDER --encoder '
        f'{PLAIN} --model {model} --out OUT',
    }
