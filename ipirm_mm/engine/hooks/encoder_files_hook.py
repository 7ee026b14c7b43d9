"""Files of the encoder at the end of Stage I, for those who do not use MMEngine."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from ipirm_mm.errors import UserError
from ipirm_mm.utils import atomic_write

PLAIN, CLASSIFIER = 'encoder.pth', 'encoder_mmpretrain.pth'


@HOOKS.register_module()
class EncoderFilesHook(Hook):
    """Write the backbone of a self-supervised model when the training ends.

    In the work folder:

    * ``encoder.pth``: the weights of the backbone by their own names. Of a ResNet they are those
      of torchvision and timm: ``timm.create_model('resnet50', num_classes=0).load_state_dict(
      torch.load('encoder.pth'))``. As ``init_cfg=dict(type='Pretrained',
      checkpoint='encoder.pth')`` MMPretrain reads it too.
    * ``encoder_mmpretrain.pth`` and ``encoder_mmpretrain.py``: the same weights as an
      ``ImageClassifier`` without head, and its config, for
      ``mmpretrain.get_model('encoder_mmpretrain.py', pretrained='encoder_mmpretrain.pth')``,
      ``FeatureExtractor`` and MMPretrain's tools.

    .. code-block:: python

        custom_hooks = [dict(type='EncoderFilesHook')]

    Raises:
        UserError: Before the training, if the model has no backbone.
    """

    priority = 'LOW'

    def before_train(self, runner: Runner) -> None:
        """Check that there is an encoder to write."""
        if not hasattr(_plain_model(runner), 'backbone'):
            raise UserError(
                f'EncoderFilesHook writes the backbone of a model, but '
                f'{type(_plain_model(runner)).__name__} has none: remove the hook'
            )

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Write the files."""
        folder = Path(runner.work_dir)
        state = {
            key: value.detach().cpu()
            for key, value in _plain_model(runner).backbone.state_dict().items()
        }
        _save(folder / PLAIN, state)
        prefixed = {f'backbone.{key}': value for key, value in state.items()}
        _save(folder / CLASSIFIER, dict(state_dict=prefixed))
        atomic_write(
            (folder / CLASSIFIER).with_suffix('.py'), _classifier_config(runner.cfg).pretty_text
        )
        runner.logger.info(
            f'The encoder is in {folder / PLAIN}, and for MMPretrain in {CLASSIFIER}'
        )


def _plain_model(runner: Runner) -> Any:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _save(path: Path, content: Any) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    atomic_write(path, buffer.getvalue())


def _classifier_config(cfg: Config) -> Config:
    """Config of the encoder alone, which computes pooled features."""
    backbone = {key: value for key, value in cfg.model.backbone.items() if key != 'init_cfg'}
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    plain = {key: preprocessor[key] for key in ('mean', 'std', 'to_rgb') if key in preprocessor}
    model = dict(
        type='ImageClassifier',
        backbone=backbone,
        neck=dict(type='GlobalAveragePooling'),
        data_preprocessor=plain,
    )
    return Config(dict(default_scope='mmpretrain', model=model))
