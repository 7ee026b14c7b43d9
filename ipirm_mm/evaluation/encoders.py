"""Encoders of several configs and checkpoints, to compare them."""

from __future__ import annotations

import copy
import re
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmpretrain.registry import MODELS

from ipirm_mm.errors import UserError
from ipirm_mm.models.utils import load_weights, student_alone
from ipirm_mm.utils import check_checkpoint


class EncoderFiles(NamedTuple):
    """Files of an encoder.

    Attributes:
        config: Path or name of the config.
        checkpoint: Path or address of the checkpoint.
    """

    config: str
    checkpoint: str


def encoder_files(text: str) -> EncoderFiles:
    """Read ``CONFIG:CHECKPOINT`` of a command line.

    Args:
        text: What was given. The config ends in ``.py``; its name and the checkpoint may have
            colons of their own (``ipirm_mm::...``, ``https://...``).

    Raises:
        UserError: If it has another form.
    """
    match = re.fullmatch(r'(.+?\.py):(.+)', text)
    if match is None:
        raise UserError(
            f'{text} is no encoder: give CONFIG:CHECKPOINT, such as '
            'configs/quickstart/simclr.py:work_dirs/simclr/epoch_20.pth'
        )
    return EncoderFiles(*match.groups())


def load_encoder(config: Config, checkpoint: str) -> Any:
    """Build the model of a config, and load its backbone from a checkpoint.

    Args:
        config: Config of an encoder of Stage I, or of a classifier; of a ``DistillingClassifier``
            only the student is built. Not changed.
        checkpoint: Path or address of its checkpoint.

    Returns:
        The model on its device; only the weights of its backbone are loaded.

    Raises:
        UserError: If the model has no backbone, the checkpoint is missing or truncated, or it
            lacks a key of the backbone.
    """
    check_checkpoint(checkpoint)
    if not (config.get('model') or {}).get('backbone'):
        raise UserError(
            f'{config.filename} has no model.backbone: give the config of an encoder or '
            'classifier of MMPretrain'
        )
    model = student_alone(copy.deepcopy(config.model))
    model.setdefault('data_preprocessor', copy.deepcopy(config.get('data_preprocessor')))
    for part in (model, model.backbone):  # the weights come from the checkpoint
        part.pop('init_cfg', None)
        part.pop('pretrained', None)
    # Only the training needs it, and some are downloaded when they are built (EVA, MILAN).
    model.pop('target_generator', None)
    network = revert_sync_batchnorm(MODELS.build(model)).to(get_device())
    load_weights(network.backbone, checkpoint, strict=True)
    return network
