"""A teacher: a frozen network outside the student's module tree."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ipirm_mm.errors import UserError
from ipirm_mm.resources import find_config
from ipirm_mm.utils import check_checkpoint

from ..utils import class_names, class_order, load_weights, say_unknown, student_alone
from .outputs import NetworkOutputs, collect_outputs
from .recorders import PreActivationRecorder, find_stages


class FrozenTeacher(nn.Module):
    """A network whose weights are loaded and never change (report Section 3.2).

    It stays in ``eval`` mode, so dropout and stochastic depth are off.

    Args:
        model: Config of the network, or path of a config file that has one: a classifier, or a
            self-supervised algorithm for losses that need no classes. Of a
            ``DistillingClassifier`` the student teaches.
        checkpoint: Path or address of its checkpoint. It is read when training begins, or at the
            first use.
        batch_statistics: Whether its batch normalization uses the statistics of the batch in
            training, as the code of Heo et al. does. The stored statistics never change. Defaults
            to False.
        student_preprocessor: The student's data preprocessor. If the teacher's config has another
            normalization, images are converted to it. Defaults to None: images are not converted.

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
        # How its logits become scores, and the shape of an image that it takes: of the dry run.
        self.kind: str | None = 'softmax'
        self.known_shape: tuple[int, ...] = ()
        # Where each class of the student is among its own; None: in the same place.
        self.class_order: Tensor | None = None
        self.batch_statistics = batch_statistics
        config = _model_config(model)
        preprocessor = config.pop('data_preprocessor', None)
        config.pop('target_generator', None)  # of masked image modeling; only its loss needs it
        # The checkpoint is loaded later; weights named by the config would be loaded for nothing.
        for part in (config, config.get('backbone') or {}):
            part.pop('init_cfg', None)
            part.pop('pretrained', None)
        self.network: nn.Module = revert_sync_batchnorm(MODELS.build(config))
        self.network.requires_grad_(False)
        # Not chained: `train` and `eval` of some backbones return None.
        self.network.eval()
        self.norms = [m for m in self.network.modules() if isinstance(m, _BatchNorm)]
        for norm in self.norms if batch_statistics else ():
            # In `training` mode it then uses the statistics of the batch and stores none.
            norm.track_running_stats = False
        self.stage_recorders: list[PreActivationRecorder] = []
        scale, shift, self.flip = _renormalization(student_preprocessor, preprocessor)
        self.register_buffer('scale', scale)
        self.register_buffer('shift', shift)
        self.same_images = not self.flip and bool((scale == 1).all() and (shift == 0).all())

    def record_stages(self) -> None:
        """Collect the features of its stages from now on.

        Raises:
            UserError: If the stages of its backbone cannot be found.
        """
        if not self.stage_recorders:
            self.stage_recorders = [
                PreActivationRecorder(stage) for stage in find_stages(self.network.backbone)
            ]

    def load(self) -> bool:
        """Load the checkpoint, unless it is loaded.

        Returns:
            Whether it was loaded now.

        Raises:
            UserError: If the checkpoint is missing, or lacks a key of the network.
        """
        if self.loaded:
            return False
        if not self.checkpoint:
            raise UserError(
                'the teacher has no checkpoint: train one, and give it by --cfg-options '
                'model.teacher.checkpoint=...'
            )
        check_checkpoint(
            self.checkpoint,
            ' for the teacher: train one, or give another by --cfg-options '
            'model.teacher.checkpoint=...',
        )
        load_weights(self.network, self.checkpoint, strict=True)
        self.loaded = True
        return True

    def match_classes(self, names: tuple[str, ...] | None, name: str) -> None:
        """Give its logits from now on in the order of the student's classes.

        Args:
            names: Names of the student's classes; None if they are not known.
            name: What the teacher is, for messages.

        Raises:
            UserError: If it has other classes. The message has the first difference.
        """
        own = class_names(self.checkpoint) if self.checkpoint else None
        if own is None and names is not None:
            say_unknown(name)
        order = class_order(names, own, 'the training set', name)
        self.class_order = None if order is None else order.to(self.scale.device)

    @torch.no_grad()
    def forward(
        self, inputs: Tensor, training: bool = True, dry_run: bool = False
    ) -> NetworkOutputs:
        """Compute its outputs for a batch that is normalized for the student.

        Args:
            inputs: Images, ``(N, C, H, W)``.
            training: Whether this is a training step. Defaults to True.
            dry_run: Whether this is the dry run. Defaults to False.

        Returns:
            The outputs, without gradient.

        Raises:
            UserError: If it takes no images of this shape.
        """
        # `model.to` does not move the teacher, which is outside the module tree.
        if self.scale.device != inputs.device or self.scale.dtype != inputs.dtype:
            self.to(inputs.device, inputs.dtype)
            if self.class_order is not None:
                self.class_order = self.class_order.to(inputs.device)
        if self.batch_statistics:
            for norm in self.norms:
                norm.training = training
        shape = tuple(inputs.shape[1:])
        if not self.same_images:
            # As MMPretrain, which flips the channels of color images only.
            inputs = inputs.flip(1) if self.flip and shape[0] == 3 else inputs
            inputs = inputs * self.scale + self.shift
        if dry_run:
            outputs = collect_outputs(self.network, inputs, self.stage_recorders, dry_run)
            self.kind, self.known_shape = outputs.kind, shape
        elif shape == self.known_shape or torch.compiler.is_compiling():
            outputs = collect_outputs(self.network, inputs, self.stage_recorders)
        else:
            outputs = self._collect_of_new_shape(inputs)
        if self.class_order is None or outputs.logits is None:
            return outputs
        return replace(outputs, logits=outputs.logits[:, self.class_order])

    def _collect_of_new_shape(self, inputs: Tensor) -> NetworkOutputs:
        """Compute its outputs for images of another shape than the dry run's."""
        try:
            return collect_outputs(self.network, inputs, self.stage_recorders)
        except (AssertionError, IndexError, RuntimeError, ValueError) as error:
            if isinstance(error, (UserError, torch.cuda.OutOfMemoryError)):
                raise
            raise UserError(
                f'the teacher ({network_name(self.network)}) takes no images of the shape '
                f'{tuple(inputs.shape[1:])}, which it gets in training, but those of '
                f'{self.known_shape}: resize the images of the train pipeline to that size. It '
                f'says: {first_line(error)}'
            ) from error


def network_name(network: Any) -> str:
    """Name a network by its backbone, for a message.

    Args:
        network: A model of MMPretrain.

    Returns:
        Such as ``'ResNet'``.
    """
    inner = getattr(network, 'backbone', None) or getattr(network, 'model', None) or network
    return type(inner).__name__


def first_line(error: BaseException) -> str:
    """Say what an error says, in one line.

    Args:
        error: The error.

    Returns:
        Its type if it says nothing.
    """
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


class DetachedModules:
    """Holds teachers outside the module tree: not in ``state_dict``, optimizer, DDP or EMA.

    A deep copy of a student shares its teachers.

    Args:
        teachers: The teachers.
    """

    def __init__(self, teachers: list[FrozenTeacher]) -> None:
        self.teachers = teachers

    def __deepcopy__(self, memo: dict) -> DetachedModules:
        return self

    def __iter__(self) -> Any:
        return iter(self.teachers)


def _model_config(model: dict | str) -> ConfigDict:
    """Copy the config of a network, with its data preprocessor."""
    if not isinstance(model, str):
        return student_alone(ConfigDict(copy.deepcopy(model)))
    config = Config.fromfile(find_config(model, 'of the teacher'))
    if config.get('model') is None:
        raise UserError(f'{model}, the config of the teacher, has no model')
    network = student_alone(config.model)
    # A model trained without any was trained on images as they are.
    network.setdefault('data_preprocessor', config.get('data_preprocessor') or {})
    return network


def _renormalization(
    student: nn.Module | None, teacher: dict | None
) -> tuple[Tensor, Tensor, bool]:
    """Find the conversion of the student's images to the teacher's.

    Returns:
        Scale and shift, ``(C, 1, 1)`` each, and whether to flip the channels first.
    """
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
    if flip and len(own_mean) == 3:  # the student's images are flipped first
        own_mean, own_std = own_mean.flip(0), own_std.flip(0)
    return own_std / std, (own_mean - mean) / std, flip
