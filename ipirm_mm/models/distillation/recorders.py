"""Recorders: read features out of unmodified networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ipirm_mm.errors import UserError

from ..backbones import SmallConvNet


class Stage(NamedTuple):
    """The end of a stage of a backbone.

    Attributes:
        relu: The activation at the end of the stage's last block. The block may call it earlier,
            too.
        norm: The normalization before that activation.
    """

    relu: Any
    norm: nn.Module


def find_stages(backbone: Any) -> list[Stage]:
    """Find the stages of a backbone that OFD can read.

    Args:
        backbone: A residual network of MMPretrain with basic or bottleneck blocks (ResNet,
            ResNeXt, SE-ResNet, SE-ResNeXt, ResNeSt and others with their attributes), or
            ``SmallConvNet``.

    Returns:
        The stages, first to last.

    Raises:
        UserError: If it is another kind of backbone.
    """
    if isinstance(backbone, SmallConvNet):
        return [Stage(layer.activate, layer.norm) for layer in backbone.layers]
    stages = []
    names = getattr(backbone, 'res_layers', ())
    for name in names:
        block = getattr(backbone, name)[-1]
        norm = getattr(block, 'norm3', None) or getattr(block, 'norm2', None)
        if norm is None or not isinstance(getattr(block, 'relu', None), nn.Module):
            break
        stages.append(Stage(block.relu, norm))
    if not stages or len(stages) < len(names):
        raise UserError(
            f'OFD cannot find the last activation of the stages of a {type(backbone).__name__}: '
            'it reads ResNet, ResNeXt, SEResNet, SEResNeXt, ResNeSt and SmallConvNet. For other '
            'backbones use LogitKL, FeatureKL or CRD'
        )
    return stages


class PreActivationRecorder:
    """Records the input of the activation at the end of a block: branch plus shortcut.

    A block calls one activation module two or three times, and in place. The input of the last
    call would then be overwritten by its output. So the module does not work in place while the
    recorder exists, which costs less than a copy of the input.

    The hook is a method, so that a deep copy of the network has its own hook and recorder.

    Args:
        stage: The stage to record.
    """

    def __init__(self, stage: Stage) -> None:
        self.recording = False
        self._value: Tensor | None = None
        self._relu = stage.relu
        self._norm = stage.norm
        self._inplace = getattr(stage.relu, 'inplace', False)
        if self._inplace:
            self._relu.inplace = False
        self._handle = stage.relu.register_forward_pre_hook(self._call)

    def _call(self, relu: nn.Module, args: tuple[Tensor]) -> None:
        if self.recording:
            (self._value,) = args  # the last call of a pass remains

    def lost_gradient(self) -> bool:
        """Whether the features have no gradient, although the stage before them is trained."""
        if self._value is None or self._value.requires_grad or not torch.is_grad_enabled():
            return False
        return any(parameter.requires_grad for parameter in self._norm.parameters())

    def take(self) -> Tensor:
        """Return the features of the last pass, ``(N, C, H, W)``, and drop the reference.

        Raises:
            UserError: If there are none.
        """
        value, self._value = self._value, None
        if value is None:  # a compiler drops the hook where it breaks a block for checkpointing
            raise UserError(
                'OFD could not record the features of a stage: torch.compile and with_cp=True of '
                'the backbone do not go together with it. Remove one of the two from the config'
            )
        return value

    def remove(self) -> None:
        """Remove the hook, and let the activation work in place again if it did."""
        self._handle.remove()
        if self._inplace:
            self._relu.inplace = True


class OutputRecorder:
    """Records the output of a module.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self.recording = False
        # Whether the module was called with more than the features, such as the labels.
        self.saw_more_than_features = False
        self._value: Any = None
        self._handle = module.register_forward_hook(self._call, with_kwargs=True)

    def _call(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if self.recording:
            self._value = output
            self.saw_more_than_features = len(args) + len(kwargs) > 1

    def take(self) -> Any:
        """Return the output of the last pass, and drop the reference; None if there was none."""
        value, self._value = self._value, None
        return value

    def remove(self) -> None:
        """Remove the hook."""
        self._handle.remove()


class Recording:
    """Context within which recorders record.

    Args:
        recorders: The recorders.
    """

    def __init__(self, recorders: Sequence[PreActivationRecorder | OutputRecorder]) -> None:
        self.recorders = recorders

    def __enter__(self) -> None:
        for recorder in self.recorders:
            recorder.recording = True

    def __exit__(self, *error: Any) -> None:
        for recorder in self.recorders:
            recorder.recording = False
