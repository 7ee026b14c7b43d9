"""The classifier that a config trains, without what the training adds to it."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmpretrain.models import BaseClassifier
from mmpretrain.registry import MODELS

from ipirm_mm.errors import UserError
from ipirm_mm.utils import check_checkpoint, with_names

from .weights import load_weights


def plain_classifier(config: Config) -> ConfigDict:
    """Config of the classifier alone, without what training adds to it.

    Args:
        config: A config whose ``model`` is a classifier. Of a ``DistillingClassifier`` only the
            student is kept. The config is not changed.

    Returns:
        A model config, with its data preprocessor and without initial weights.

    Raises:
        UserError: If the model of the config is not a classifier.
    """
    config = with_names(config)
    kind = (config.get('model') or {}).get('type')
    network = MODELS.get(kind) if isinstance(kind, str) else None
    if network is None or not issubclass(network, BaseClassifier):
        raise UserError(
            f'{config.filename} has no classifier: its model.type is {kind}; give the config of a '
            'student or a fine-tuned classifier'
        )
    model = student_alone(copy.deepcopy(config.model))
    model.pop('train_cfg', None)  # batch augmentations such as Mixup
    for part in (model, model.get('backbone') or {}):  # the weights come from a checkpoint
        part.pop('init_cfg', None)
        part.pop('pretrained', None)
    if config.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', copy.deepcopy(config.data_preprocessor))
    return model


def student_alone(model: ConfigDict) -> ConfigDict:
    """Config of the student of a ``DistillingClassifier``, as a classifier of MMPretrain.

    Args:
        model: Config of a model with the name of its type; of other models it is returned as it
            is.
    """
    kind = model.get('type')
    network = MODELS.get(kind) if isinstance(kind, str) else kind
    parts = getattr(network, 'student_parts', None)  # only a DistillingClassifier names them
    if parts is None:
        return model
    kept = {name: model[name] for name in parts if model.get(name) is not None}
    return ConfigDict(type='ImageClassifier', **kept)


def load_classifier(config: Config, checkpoint: str) -> Any:
    """Build the classifier of a config for inference, and load its weights.

    Args:
        config: A config whose ``model`` is a classifier, see :func:`plain_classifier`.
        checkpoint: Path or address of its checkpoint, of a training or published.

    Returns:
        The classifier on the CPU, with BatchNorm instead of SyncBatchNorm, in training mode.

    Raises:
        UserError: If the model is not a classifier, the checkpoint is missing or truncated, or a
            key of the classifier is missing in it or has another shape.
    """
    model = plain_classifier(config)
    check_checkpoint(
        checkpoint, f' of {config.filename}: train it by tools/train.py, or name another'
    )
    # In eval mode BatchNorm needs no other rank.
    network = revert_sync_batchnorm(MODELS.build(model))
    load_weights(network, checkpoint, prefix='', strict=True)
    return network
