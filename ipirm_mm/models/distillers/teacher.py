"""A teacher: a frozen network that hangs beside the student's module tree."""

from __future__ import annotations

import copy
import os
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ipirm_mm.errors import UserError
from ipirm_mm.evaluation import pool_last, pooled_feature
from ipirm_mm.resources import find_config

from ..weights import load_weights
from .distillation_losses import Responses
from .taps import PreActivationTap, find_stages, recording


def respond(network: nn.Module, inputs: Tensor, taps: list[PreActivationTap]) -> Responses:
    """Responses of a network to a batch.

    Args:
        network: A classifier or a self-supervised algorithm.
        inputs: Images, ``(N, C, H, W)``.
        taps: Taps of its stages; may be none.
    """
    with recording(taps):
        if isinstance(network, ImageClassifier):
            features = network.extract_feat(inputs)
            logits = network.head(features) if network.with_head else None
            feature = pool_last(features)
        else:
            logits, feature = None, pooled_feature(network, inputs)
    return Responses(logits, feature, [tap.take() for tap in taps])


class FrozenTeacher(nn.Module):
    """A network whose weights are loaded and left alone.

    It stays in ``eval`` mode, so that dropout and stochastic depth are off.

    Args:
        model: Config of the network, or the path of a config file that has one: a classifier, or
            a self-supervised algorithm for the losses that need no classes.
        checkpoint: Path or address of its checkpoint. It is read when training begins, or at
            first use.
        batch_statistics: Whether its batch normalisation uses the batch's statistics in training
            (as OFD's authors do), which never changes the stored ones. Defaults to False.
        student_preprocessor: The student's data preprocessor. Where the teacher's config has
            another normalisation, images are brought to that.

    Raises:
        UserError: If the config file does not exist or has no model.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        model: dict | str,
        checkpoint: str | None,
        batch_statistics: bool = False,
        student_preprocessor: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.loaded = False
        self.batch_statistics = batch_statistics
        config = _model_config(model)
        preprocessor = config.pop('data_preprocessor', None)
        # What follows from weights is loaded below, and would be loaded twice.
        for part in (config, config.get('backbone') or {}):
            part.pop('init_cfg', None)
            part.pop('pretrained', None)
        self.network: nn.Module = revert_sync_batchnorm(MODELS.build(config))
        self.network.requires_grad_(False)
        # (Some backbones' `train` returns None: nothing is chained.)
        self.network.eval()
        self.norms = [m for m in self.network.modules() if isinstance(m, _BatchNorm)]
        for norm in self.norms if batch_statistics else ():
            # In `training` mode it then normalises by the batch, and stores nothing.
            norm.track_running_stats = False
        self.taps: list[PreActivationTap] = []
        scale, shift, self.flip = _renormalisation(student_preprocessor, preprocessor)
        self.register_buffer('scale', scale)
        self.register_buffer('shift', shift)
        self.same_images = not self.flip and bool((scale == 1).all() and (shift == 0).all())

    def tap_stages(self) -> None:
        """Read its stages from now on."""
        if not self.taps:
            self.taps = [PreActivationTap(stage) for stage in find_stages(self.network.backbone)]

    def load(self) -> bool:
        """Load its weights, if they are not; returns whether it did.

        Raises:
            UserError: If the checkpoint is missing, or a key of the network is not in it.
        """
        if self.loaded:
            return False
        if not self.checkpoint:
            raise UserError(
                'the teacher has no checkpoint: train one, and give it by --cfg-options '
                'model.teacher.checkpoint=...'
            )
        if '://' not in self.checkpoint and not os.path.isfile(self.checkpoint):
            raise UserError(
                f'there is no checkpoint {self.checkpoint} for the teacher: train one, or give '
                'another by --cfg-options model.teacher.checkpoint=...'
            )
        load_weights(self.network, self.checkpoint, strict=True)
        self.loaded = True
        return True

    @torch.no_grad()
    def forward(self, inputs: Tensor, training: bool = True) -> Responses:
        """Its responses to a batch that is normalised for the student.

        Args:
            inputs: Images, ``(N, C, H, W)``.
            training: Whether they are for a training step. Defaults to True.
        """
        # It is not part of the tree that `model.to` moves, and may be shared by copies of it.
        if self.scale.device != inputs.device or self.scale.dtype != inputs.dtype:
            self.to(inputs.device, inputs.dtype)
        if not self.same_images:
            inputs = inputs.flip(1) if self.flip else inputs
            inputs = inputs * self.scale + self.shift
        if self.batch_statistics:
            for norm in self.norms:
                norm.training = training
        return respond(self.network, inputs, self.taps)


class Beside:
    """Holds teachers beside the module tree: not in ``state_dict``, optimiser, DDP or EMA.

    A deep copy of a student shares its teachers.

    Args:
        teachers: The teachers.
    """

    def __init__(self, teachers: list[FrozenTeacher]) -> None:
        self.teachers = teachers

    def __deepcopy__(self, memo: dict) -> Beside:
        return self

    def __iter__(self) -> Any:
        return iter(self.teachers)


def _model_config(model: dict | str) -> ConfigDict:
    """The config of a network, a copy, with its data preprocessor."""
    if not isinstance(model, str):
        return ConfigDict(copy.deepcopy(model))
    config = Config.fromfile(find_config(model, 'of the teacher'))
    if config.get('model') is None:
        raise UserError(f'{model}, the config of the teacher, has no model')
    network = config.model
    if config.get('data_preprocessor') is not None:
        network.setdefault('data_preprocessor', config.data_preprocessor)
    return network


def _renormalisation(
    student: nn.Module | None, teacher: dict | None
) -> tuple[Tensor, Tensor, bool]:
    """Scale and shift, ``(C, 1, 1)``, from the student's images to the teacher's; flip or not."""
    unit = torch.ones(1, 1, 1), torch.zeros(1, 1, 1), False
    if teacher is None or student is None:
        return unit
    if teacher.get('mean') is None:
        mean, std = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    else:
        mean, std = (
            torch.tensor(teacher[k], dtype=torch.float).view(-1, 1, 1) for k in ('mean', 'std')
        )
    own_mean = getattr(student, 'mean', torch.zeros(1, 1, 1)).float()
    own_std = getattr(student, 'std', torch.ones(1, 1, 1)).float()
    swaps = any(teacher.get(name) for name in ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr'))
    own_swaps = bool(
        getattr(student, 'to_rgb', False) or getattr(student, '_channel_conversion', False)
    )
    flip = swaps != own_swaps
    if flip:  # the student's images are flipped first
        own_mean, own_std = own_mean.flip(0), own_std.flip(0)
    return own_std / std, (own_mean - mean) / std, flip
