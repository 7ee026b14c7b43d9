"""Configs whose ``type`` is a class (MMEngine's newer style), written with names instead."""

from __future__ import annotations

import inspect
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry

# Packages whose registered classes are known wherever the tools run.
STACK = ('ipirm_mm', 'mmcv', 'mmengine', 'mmpretrain', 'torch', 'torchvision')


def type_name(kind: Any) -> str:
    """Name of a class as a config gives it: without a scope such as ``mmpretrain.``.

    Args:
        kind: A name or a class.
    """
    return kind.rsplit('.', 1)[-1] if isinstance(kind, str) else getattr(kind, '__name__', '')


def with_names(config: Config) -> Config:
    """Replace the classes in a config by names, so that it can be compared, changed and written.

    A class is replaced by the name that it is registered by. A class or function that is not
    registered is replaced by its full name, which registries look up as well.

    Args:
        config: A config. It is returned as it is if it has names already.

    Returns:
        The config with names.
    """
    imported: set[str] = getattr(config, '_imported_names', set())
    content = {key: value for key, value in config._cfg_dict.items() if key not in imported}
    if not _has_classes(content):
        return config
    return Config(_named(content), cfg_text=config.text, filename=config.filename)


def _is_type(value: Any) -> bool:
    # A lambda or a function within a function has no name that another process could look up.
    return (inspect.isclass(value) or inspect.isroutine(value)) and '<' not in value.__qualname__


def _has_classes(node: Any) -> bool:
    if isinstance(node, dict):
        return _is_type(node.get('type')) or any(_has_classes(value) for value in node.values())
    return isinstance(node, (list, tuple)) and any(_has_classes(value) for value in node)


def _named(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: _full_name(value) if key == 'type' and _is_type(value) else _named(value)
            for key, value in node.items()
        }
    if isinstance(node, (list, tuple)):
        return type(node)(_named(value) for value in node)
    return node


def _full_name(kind: Any) -> str:
    """The name by which registries find a class also in a process that has not imported it."""
    if kind.__module__.split('.')[0] in STACK:
        for registry in _registries():
            for name, found in registry.module_dict.items():
                if found is kind:
                    return name
    return f'{kind.__module__}.{kind.__qualname__}'


def _registries() -> list[Registry]:
    import mmpretrain.registry

    modules = (mmpretrain.registry, mmengine.registry)
    values = (value for module in modules for value in vars(module).values())
    return [value for value in values if isinstance(value, Registry)]
