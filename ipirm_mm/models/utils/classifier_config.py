"""The classifier that a config trains, without its training."""

from __future__ import annotations

import copy

from mmengine.config import Config, ConfigDict
from mmpretrain.models import BaseClassifier
from mmpretrain.registry import MODELS

from ipirm_mm.errors import UserError


def plain_classifier(config: Config) -> ConfigDict:
    """Copy the config of a classifier, without the parts that only training needs.

    Args:
        config: A config whose ``model`` is a classifier. Of a ``DistillingClassifier`` the student
            remains.

    Returns:
        A model config, with its data preprocessor and without initial weights.

    Raises:
        UserError: If the config has no classifier.
    """
    kind = config.get('model', {}).get('type')
    network = MODELS.get(kind) if isinstance(kind, str) else None
    if network is None or not issubclass(network, BaseClassifier):
        raise UserError(
            f'{config.filename} has no classifier: its model.type is {kind}; give the config of a '
            'student or a fine-tuned classifier'
        )
    model = copy.deepcopy(config.model)
    student_parts = getattr(network, 'student_parts', None)  # of a DistillingClassifier
    if student_parts:
        parts = {name: model[name] for name in student_parts if model.get(name) is not None}
        model = ConfigDict(type='ImageClassifier', **parts)
    model.pop('train_cfg', None)  # batch augmentations
    for part in (model, model.get('backbone') or {}):  # weights come from a checkpoint
        part.pop('init_cfg', None)
        part.pop('pretrained', None)
    if config.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', copy.deepcopy(config.data_preprocessor))
    return model
