"""Reading features out of unmodified networks."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from ipirm_mm.errors import UserError

from ..backbones import SmallConvNet


class Stage(NamedTuple):
    """Where a stage of a backbone ends.

    Attributes:
        relu: The activation that its last block ends with, and maybe calls before.
        norm: The normalisation before that.
    """

    relu: Any
    norm: nn.Module


def find_stages(backbone: Any) -> list[Stage]:
    """The stages of a backbone that OFD can read.

    Args:
        backbone: A residual network of MMPretrain, of basic or bottleneck blocks (ResNet, ResNeXt,
            SE-ResNet, SE-ResNeXt, ResNeSt and others of their interface), or ``SmallConvNet``.

    Raises:
        UserError: If it is another.
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
            f'OFD cannot find the activations that the stages of a {type(backbone).__name__} end '
            'with: it reads ResNet, ResNeXt, SEResNet, SEResNeXt, ResNeSt and SmallConvNet; for '
            'other backbones use LogitKL, FeatureKL or CRD'
        )
    return stages


class PreActivationTap:
    """Takes what goes into the activation at the end of a block: the sum of branch and shortcut.

    A block calls one activation module two or three times, and in place: what goes into its last
    call would be what comes out. As long as the tap is there, the module therefore does not work
    in place, which costs less than a copy of what goes in.

    Hooks are methods, so that a deep copy of the network has hooks and tap of its own.

    Args:
        stage: The stage.
    """

    def __init__(self, stage: Stage) -> None:
        self.recording = False
        self._value: Tensor | None = None
        self._relu = stage.relu
        self._inplace = getattr(stage.relu, 'inplace', False)
        if self._inplace:
            self._relu.inplace = False
        self._handle = stage.relu.register_forward_pre_hook(self._call)

    def _call(self, relu: nn.Module, args: tuple[Tensor]) -> None:
        if self.recording:
            (self._value,) = args  # of the last call, in the end

    def take(self) -> Tensor:
        """The features of the last pass; the tap keeps no hold on them, nor on their graph."""
        value, self._value = self._value, None
        assert value is not None, 'nothing was recorded'
        return value

    def remove(self) -> None:
        """Leave the network as it was."""
        self._handle.remove()
        if self._inplace:
            self._relu.inplace = True


class OutputTap:
    """Takes what a module puts out.

    Args:
        module: The module.
    """

    def __init__(self, module: nn.Module) -> None:
        self.recording = False
        self._value: Any = None
        self._handle = module.register_forward_hook(self._call)

    def _call(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.recording:
            self._value = output

    def take(self) -> Any:
        """The output of the last pass; the tap keeps no hold on it."""
        value, self._value = self._value, None
        return value

    def remove(self) -> None:
        """Take the hook off the module."""
        self._handle.remove()


class recording:  # noqa: N801  (a context manager, used as a word)
    """Let taps record within a ``with`` block.

    Args:
        taps: The taps.
    """

    def __init__(self, taps: list[Any]) -> None:
        self.taps = taps

    def __enter__(self) -> None:
        for tap in self.taps:
            tap.recording = True

    def __exit__(self, *error: Any) -> None:
        for tap in self.taps:
            tap.recording = False
