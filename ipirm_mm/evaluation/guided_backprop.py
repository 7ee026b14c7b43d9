"""Guided backpropagation, by which Figure 2 (b) of the report shows what filters see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ipirm_mm.errors import UserError

# The functions that modules, timm and networks of users rectify by, without and with in-place.
_RELUS = (F.relu, torch.relu, Tensor.relu)
_RELUS_IN_PLACE = (F.relu_, torch.relu_, Tensor.relu_)


class _GuidedReLU(torch.autograd.Function):
    """A ReLU, up to a largest value, whose gradient loses its negative entries."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, largest: float) -> Tensor:
        ctx.save_for_backward((x > 0) & (x < largest))
        return x.clamp(0, largest)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (passes,) = ctx.saved_tensors
        return gradients[0].clamp(min=0) * passes, None


class GuidedReLUs(TorchFunctionMode):
    """Within this context every ReLU passes positive gradients only, and only where it is active.

    This is guided backpropagation of Springenberg et al., "Striving for Simplicity: The All
    Convolutional Net" (2015). What is replaced is the function, not the modules: so it does not
    matter whether a network rectifies by modules or by functions, in place, or several times by
    one module, and the network remains as it was. ReLU6 (of MobileNets) is a ReLU with a largest
    value. Other activations keep their gradients.

    Attributes:
        count: Number of ReLUs that were computed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Compute a function; if it is a ReLU, the guided one."""
        kwargs = kwargs or {}
        found = _rectified(func, args, kwargs)
        if found is None:
            return func(*args, **kwargs)
        x, largest, in_place = found
        self.count += 1
        result = _GuidedReLU.apply(x, largest)
        # A caller of an in-place function may ignore what it returns.
        return x.copy_(result) if in_place else result


def _rectified(func: Any, args: tuple, kwargs: dict) -> tuple[Tensor, float, bool] | None:
    """What a call rectifies, up to which value, and whether in place; None if it is no ReLU."""
    is_hard_tanh = func in (F.hardtanh, F.hardtanh_)
    if not is_hard_tanh and func not in (*_RELUS, *_RELUS_IN_PLACE, F.relu6):
        return None
    limits = ('min_val', 'max_val') if is_hard_tanh else ()
    given = {**dict(zip(('input', *limits, 'inplace'), args)), **kwargs}
    if is_hard_tanh:  # that of nn.ReLU6 begins at 0
        if given.get('min_val', -1.0) != 0:
            return None
        largest = float(given.get('max_val', 1.0))
    else:
        largest = 6.0 if func is F.relu6 else float('inf')
    in_place = func in (*_RELUS_IN_PLACE, F.hardtanh_) or bool(given.get('inplace', False))
    return args[0] if args else given['input'], largest, in_place


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put all modules of a network into ``eval`` mode, and restore the mode of each.

    Args:
        network: The network; some of its modules may be frozen in ``eval`` mode.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def filter_maps(
    run: Callable[[Tensor], Any], images: Tensor, layers: dict[str, nn.Module]
) -> dict[str, Tensor]:
    """Activation of each filter of some layers: the positive part of what the layer gives.

    Args:
        run: Runs the network on images.
        images: ``(B, C, H, W)``, as the network takes them.
        layers: Modules of the network, by name. Of one that is used several times the last use
            counts.

    Returns:
        For each layer ``(B, filters, H', W')``.

    Raises:
        UserError: If a layer was not used, or gives no such maps.
    """
    found: dict[str, Any] = {}

    def record(name: str) -> Callable[[Any, Any, Any], None]:
        def hook(module: Any, args: Any, output: Any) -> None:
            # A copy, because the next module may write into it.
            found[name] = output.clone() if isinstance(output, Tensor) else output

        return hook

    handles = []
    try:
        for name, layer in layers.items():
            handles.append(layer.register_forward_hook(record(name)))
        run(images)
    finally:
        for handle in handles:
            handle.remove()
    for name in layers:
        output = found.get(name)
        if not isinstance(output, Tensor) or output.ndim != 4:
            gives = 'is not used by the network' if output is None else 'gives no feature map'
            shape = f' but {tuple(output.shape)}' if isinstance(output, Tensor) else ''
            raise UserError(
                f'the layer {name} {gives}{shape}: name one that gives maps of the shape '
                '(images, filters, height, width)'
            )
    # The maximum with 0, not a ReLU, which would be counted and guided.
    return {name: found[name].clamp(min=0) for name in layers}


def guided_backpropagation(
    network: nn.Module, images: Tensor, layer: nn.Module, filters: Tensor, name: str = 'given'
) -> Tensor:
    """Show what in each image excites a filter: the guided gradient of its largest activation.

    The activation is the positive part of what the layer gives, at the position where it is
    largest in the image; as in the paper one neuron, so that the gradient shows a place. The
    network runs in ``eval`` mode, so that images do not depend on each other. It is left as it
    was: modes, ``requires_grad`` and gradients of its parameters, hooks.

    Args:
        network: The network, a backbone.
        images: ``(B, C, H, W)``, as the network takes them.
        layer: Module of the network, whose output is ``(B, filters, H', W')``.
        filters: Number of the filter for each image, ``(B,)`` long.
        name: Name of the layer, for messages. Defaults to ``'given'``.

    Returns:
        Gradient with respect to the images, ``(B, C, H, W)``.

    Raises:
        UserError: If the layer gives no maps, or the network has no ReLU: without one, nothing
            guides the gradient.
    """
    images = images.detach().clone().requires_grad_()
    with evaluation_mode(network), torch.enable_grad(), GuidedReLUs() as relus:
        # Adding zero makes a tensor that an in-place function may change.
        maps = filter_maps(network, images + 0, {name: layer})[name]
        active = maps[torch.arange(len(images), device=images.device), filters].amax((1, 2)).sum()
        (gradient,) = torch.autograd.grad(active, images)
    if not relus.count:
        raise UserError(
            f'{type(network).__name__} has no ReLU, without which nothing guides '
            'backpropagation: give a network with ReLU, such as a ResNet or VGG'
        )
    return gradient
