"""A trained classifier as plain weights and a config for MMPretrain's tools."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config
from mmpretrain.registry import DATASETS, METRICS, MODELS, TRANSFORMS

from ipirm_mm.utils import type_name

from .classes import class_names
from .classifier_config import load_classifier, plain_classifier

# Settings of the published config.
_EVALUATION = tuple(
    f'{split}_{part}' for split in ('val', 'test') for part in ('dataloader', 'cfg')
)


def published_config(config: Config) -> Config:
    """Config of the classifier alone, with what MMPretrain's tools need to test it.

    Args:
        config: Config of the training.
    """
    plain = dict(default_scope='mmpretrain', model=plain_classifier(config))
    for name in _EVALUATION:
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

    Args:
        config: Config of the training.
        path: Its checkpoint.

    Returns:
        ``state_dict``, and ``meta`` where the checkpoint names the classes.

    Raises:
        UserError: If a key is missing or has another shape.
    """
    published: dict[str, Any] = dict(state_dict=load_classifier(config, path).state_dict())
    classes = class_names(path)
    if classes is not None:  # MMPretrain's inferencer reads them from the checkpoint
        published['meta'] = dict(dataset_meta=dict(classes=list(classes)))
    return published
