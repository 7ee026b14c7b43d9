"""Layers of a network by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ipirm_mm.errors import UserError

from .guided_backprop import evaluation_mode


def find_layers(model: nn.Module, names: list[str]) -> dict[str, nn.Module]:
    """Find modules by name.

    Args:
        model: The model.
        names: Names such as ``'backbone.layer4'``.

    Returns:
        The modules, by name.

    Raises:
        UserError: If there is no module of a name; modules beside it are named.
    """
    layers = {}
    for name in names:
        try:
            layers[name] = model.get_submodule(name)
        except AttributeError as error:
            above, path = model, ''
            for part in name.split('.'):
                inner = dict(above.named_children()).get(part)
                if inner is None:
                    break
                above, path = inner, f'{path}{part}.'
            beside = ', '.join(path + key for key, _ in above.named_children())
            raise UserError(
                f'{type(model).__name__} has no layer {name}: '
                + (f'there are {beside}' if beside else f'{path[:-1]} has no parts')
            ) from error
    return layers


@torch.no_grad()
def last_stages(model: Any, images: Tensor, number: int = 2) -> list[str]:
    """Names of the last stages of a backbone.

    A stage ends where the size of the feature maps changes. Among the parts of the backbone, the
    last of each size is taken. Pooling is no part of a stage.

    Args:
        model: A model with the attribute ``backbone``.
        images: ``(B, C, H, W)``, as the network takes them.
        number: How many. Defaults to 2.

    Returns:
        Names of at most so many modules, as :func:`find_layers` takes them; the last one last.

    Raises:
        UserError: If no part of the backbone gives feature maps, ``(B, filters, H, W)``.
    """
    sizes: dict[str, tuple[int, ...]] = {}

    def record(name: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                sizes.pop(name, None)  # so that names are in the order of their last use
                sizes[name] = tuple(output.shape[2:])

        return hook

    handles = [
        module.register_forward_hook(record(name))
        for name, module in model.backbone.named_modules(prefix='backbone')
    ]
    try:
        with evaluation_mode(model.backbone):
            model.backbone(images)
    finally:
        for handle in handles:
            handle.remove()
    parts = list(_used_parts(model.backbone, 'backbone', sizes))
    while len(parts) == 1:  # a sequence of everything
        inner = list(_used_parts(parts[0][1], parts[0][0], sizes))
        if not inner:
            break
        parts = inner
    used = {name for name, part in parts if not isinstance(part, (nn.MaxPool2d, nn.AvgPool2d))}
    last = {size: name for name, size in sizes.items() if name in used}
    if not last:
        raise UserError(
            f'no part of {type(model.backbone).__name__} gives feature maps of the shape '
            '(images, filters, height, width): give a convolutional network'
        )
    return sorted(last.values(), key=list(sizes).index)[-number:]


def _used_parts(
    module: nn.Module, prefix: str, sizes: dict[str, tuple[int, ...]]
) -> Iterator[tuple[str, nn.Module]]:
    """The children of a module that give maps; of those never called, such as lists, theirs."""
    for name, child in module.named_children():
        path = f'{prefix}.{name}'
        if path in sizes:
            yield path, child
        else:
            yield from _used_parts(child, path, sizes)
