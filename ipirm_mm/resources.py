"""The configs, tools and model index of this package: where they are, and their names."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from .errors import UserError

SCOPE = 'ipirm_mm'


def resource_root() -> Path:
    """Folder that holds ``configs``, ``tools`` and ``model-index.yml``.

    Returns:
        ``ipirm_mm/.mim`` where the package was installed from a wheel, as OpenMMLab's packages
        have it; in a checkout or an editable installation the root of the checkout.
    """
    package = Path(__file__).resolve().parent
    carried = package / '.mim'
    return carried if carried.is_dir() else package.parent


def list_configs() -> list[str]:
    """Names of all configs of this package, as paths below ``configs``, without bases."""
    folder = resource_root() / 'configs'
    paths = (path.relative_to(folder) for path in folder.rglob('*.py'))
    return sorted(path.as_posix() for path in paths if path.parts[0] != '_base_')


def find_config(name: str | os.PathLike[str], of: str = '') -> str:
    """Find a config file.

    Args:
        name: A path, or the name of a config of this package: ``'ipirm_mm::'`` and its path below
            ``configs``, such as ``'ipirm_mm::distill/kl_r50.py'``. Such a name works in any
            current folder, in a checkout and after ``pip install``.
        of: What the config is of, for the error message, such as ``'of the teacher'``. Defaults to
            ``''``.

    Returns:
        Path of an existing file.

    Raises:
        UserError: If there is no such file. The message names the new place of a config that
            moved, or names that are nearly the same.
    """
    name = os.fspath(name)
    if not name.startswith(f'{SCOPE}::'):
        if os.path.isfile(name):
            return name
        problem = f'there is no config file {name}'
        by_name = False
    else:
        path = resource_root() / 'configs' / name.partition('::')[2]
        if path.is_file():
            return str(path)
        problem = f'ipirm_mm has no config {name}'
        by_name = True
    problem += f' {of}' if of else ''
    raise UserError(problem + _suggest(name, by_name))


def find_by_basename(name: str) -> str | None:
    """Find the config with the basename of a path that does not exist any more.

    Basenames are unique among the configs, so a config that moved is found by its basename.

    Args:
        name: A path, or a name of the form ``ipirm_mm::...``.

    Returns:
        Path of the config below ``configs``, or None.
    """
    for path in list_configs():
        if os.path.basename(path) == _basename(name):
            return path
    return None


def _basename(name: str) -> str:
    return re.split('/|::', name)[-1]


def _suggest(name: str, by_name: bool) -> str:
    """Suggest configs for a name that does not exist.

    Args:
        name: The path or name that was asked for.
        by_name: Whether it is a name (``ipirm_mm::...``), not a path.

    Returns:
        The end of a sentence, which may be empty.
    """
    found = find_by_basename(name)
    if found:
        return f': the config of this name is {_show(found, by_name)}'
    basenames = {os.path.basename(path): path for path in list_configs()}
    near = difflib.get_close_matches(_basename(name), basenames, n=3)
    if near:
        names = ', '.join(_show(basenames[match], by_name) for match in near)
        return f': configs with nearly this name are {names}'
    if by_name:
        return f': the names are the paths below {resource_root() / "configs"}'
    return ''


def _show(path: str, by_name: bool) -> str:
    """How a user would type a config: the path from the current folder where there is one."""
    configs = resource_root() / 'configs'
    if not by_name and Path.cwd() == configs.parent:
        return f'configs/{path}'
    return f'{SCOPE}::{path}'


def register_models() -> None:
    """Make the models of this package known to MMPretrain's ``list_models`` and ``get_model``.

    The model index is read when MMPretrain first reads its own, so that importing this package
    stays cheap. Does nothing where MMPretrain's model hub or the index file is missing.
    """
    try:
        from mmpretrain.apis.model import ModelHub
    except ImportError:  # `modelindex`, which the hub reads files by, is not installed
        return
    index = resource_root() / 'model-index.yml'
    read_theirs = ModelHub._register_mmpretrain_models
    if not index.is_file() or getattr(read_theirs, 'reads_ipirm_mm', False):
        return
    registered = False

    def read_both(cls: type) -> None:
        nonlocal registered
        read_theirs()
        if not registered:
            registered = True
            ModelHub.register_model_index(index, config_prefix=index.parent)

    read_both.reads_ipirm_mm = True  # type: ignore[attr-defined]
    ModelHub._register_mmpretrain_models = classmethod(read_both)
