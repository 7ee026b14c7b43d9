"""Parts of configs for a folder of images: backbones, data sets, loaders and pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config

from ipirm_mm.datasets import EXTENSIONS

# Backbones by the names that they have in timm and torchvision, and their channels.
MODELS: dict[str, tuple[dict[str, Any], int]] = {
    'resnet18': (dict(type='ResNet', depth=18), 512),
    'resnet34': (dict(type='ResNet', depth=34), 512),
    'resnet50': (dict(type='ResNet', depth=50), 2048),
    'resnet101': (dict(type='ResNet', depth=101), 2048),
    'resnet152': (dict(type='ResNet', depth=152), 2048),
    'resnext50_32x4d': (dict(type='ResNeXt', depth=50, groups=32, width_per_group=4), 2048),
}
# Smaller crops are not blurred, as in the code of Wang et al. for small images.
SMALLEST_BLURRED = 128
# A part of this many is held out, to measure an accuracy.
PARTS = 5


def backbone_config(model: str, **more: Any) -> dict[str, Any]:
    """Config of a backbone of :data:`MODELS`; on one GPU its norm needs no synchronization."""
    return dict(**MODELS[model][0], norm_cfg=dict(type='BN'), **more)


def folder_dataset(root: Path, pipeline: list, with_label: bool) -> dict[str, Any]:
    """Config of the images in a folder; with labels, its folders are the classes."""
    return dict(
        type='CustomDataset',
        data_root=str(root),
        with_label=with_label,
        extensions=EXTENSIONS,
        pipeline=pipeline,
    )


def one_part(dataset: dict[str, Any], parts: int, rest: bool = False) -> dict[str, Any]:
    """Config of one of several random parts of a data set, or of all the others.

    Args:
        dataset: Config of the data set.
        parts: Number of parts; of fewer than two, the data set is returned as it is.
        rest: Whether to take all but the part. Defaults to False.
    """
    if parts < 2:
        return dataset
    return dict(
        type='KFoldDataset', dataset=dataset, num_splits=parts, fold=0, test_mode=not rest, seed=0
    )


def loader(
    dataset: dict[str, Any], batch_size: int, workers: int, train: bool = False
) -> dict[str, Any]:
    """Config of a data loader; in training it shuffles and drops an incomplete batch."""
    return dict(
        batch_size=batch_size,
        num_workers=workers,
        # Workers that wait between evaluations would take memory from those of the training.
        persistent_workers=train and workers > 0,
        pin_memory=True,  # without a GPU it is left out
        drop_last=train,
        collate_fn=dict(type='default_collate'),
        dataset=dataset,
        sampler=dict(type='DefaultSampler', shuffle=train),
    )


def scale_rate(cfg: Config, batch_size: int) -> None:
    """Change a config's learning rate in proportion to its batch size.

    Args:
        cfg: The config, changed in place; ``auto_scale_lr`` has the batch size of its rate.
        batch_size: Images per step.
    """
    cfg.optim_wrapper.optimizer.lr *= batch_size / cfg.auto_scale_lr.base_batch_size
    cfg.auto_scale_lr = dict(enable=False, base_batch_size=batch_size)


def center_pipeline(size: int) -> list[dict[str, Any]]:
    """Pipeline of evaluation: the center crop of an image that is an eighth larger."""
    return [
        dict(type='LoadImage'),
        dict(type='ResizeEdge', scale=round(size * 8 / 7), edge='short', backend='pillow'),
        dict(type='CenterCrop', crop_size=size),
        dict(type='PackInputs'),
    ]


def resized(pipeline: Any, size: int) -> Any:
    """A training pipeline with crops of another size, and without blur if they are small."""
    if isinstance(pipeline, (list, tuple)):
        return [
            resized(step, size)
            for step in pipeline
            if size >= SMALLEST_BLURRED
            or not isinstance(step, dict)
            or step.get('type') != 'GaussianBlur'
        ]
    if not isinstance(pipeline, dict):
        return pipeline
    changed = {key: resized(value, size) for key, value in pipeline.items()}
    if changed.get('type') == 'RandomResizedCrop':
        changed['scale'] = size
    return changed
