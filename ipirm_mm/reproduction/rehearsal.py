"""The report's configs with tiny networks and small images, to rehearse its chain in minutes."""

from __future__ import annotations

import copy
import re
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ipirm_mm.resources import find_by_basename, resource_root
from ipirm_mm.utils import with_names

# Replaces each backbone. Like all of the report's, it has four stages and batch normalization.
BACKBONE = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
# Widths of the report's networks, and what they become: ResNet-18 ends in 8 times 8 channels.
WIDTHS = {2048: 64, 512: 32}
# Images of 224 pixels become this large, others in proportion.
SIZE = 32
BATCH = 8
EPOCHS = dict(stage1=2, stage2=1)
KEPT = ('init_cfg', 'frozen_stages', 'norm_eval')
CHECKPOINT = re.compile(r'work_dirs/([^/]+)/epoch_\d+\.pth')
FOLDER = re.compile(r'^work_dirs/')


class RehearsalConfigs:
    """Writes the report's configs anew, each with a tiny network and few epochs, when asked for.

    All else stays: transforms, losses, partitions, teachers, crops, ensembles. Checkpoints are
    looked for in the folder, in place of ``work_dirs``.

    Args:
        folder: Folder of the rehearsal; configs go to ``configs`` in it.
        classes: Number of classes of the data.
        data_root: Folder of the data, as in ``VIPriors``.
    """

    def __init__(self, folder: Path, classes: int, data_root: str) -> None:
        self.folder = folder
        self.classes = classes
        self.data_root = data_root
        self._written: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        """Write a config, and those that it names.

        Args:
            name: Name of the config.

        Returns:
            Path of the config.
        """
        if name not in self._written:
            path = self._written[name] = str(self.folder / 'configs' / f'{name}.py')
            config = load_by_name(name)
            small = Config(_shrink(config.to_dict(), self.classes, self.data_root, self._rename))
            small.work_dir = str(self.folder / name)
            if small.get('train_cfg'):
                small.train_cfg.max_epochs = _epochs(config)
            small.default_hooks.checkpoint.interval = 1
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            small.dump(path)
        return self._written[name]

    def _rename(self, text: str) -> str:
        """Let a name of a config or of a checkpoint mean that of the rehearsal."""
        found = CHECKPOINT.fullmatch(text)
        if found:
            return f'{self.folder}/{found[1]}/epoch_{_epochs(load_by_name(found[1]))}.pth'
        if text.startswith('ipirm_mm::'):
            return self(Path(text.partition('::')[2]).stem)
        return FOLDER.sub(f'{self.folder}/', text)


@cache
def load_by_name(name: str) -> Any:
    """Load a config of this package by its name, such as ``'ofd_r50'``."""
    path = resource_root() / 'configs' / str(find_by_basename(f'{name}.py'))
    return with_names(Config.fromfile(path))


def _epochs(config: Any) -> int:
    return EPOCHS['stage1' if 'IPIRM' in str(config.model.type) else 'stage2']


def _shrink(value: Any, classes: int, data_root: str, rename: Any) -> Any:
    """Shrink a part of a config."""
    if isinstance(value, (list, tuple)):
        return type(value)(_shrink(item, classes, data_root, rename) for item in value)
    if isinstance(value, str):
        return rename(value)
    if not isinstance(value, dict):
        return value
    small = {key: _shrink(item, classes, data_root, rename) for key, item in value.items()}
    if small.get('type') == 'VIPriors':
        small.update(num_classes=classes, per_class=None, data_root=data_root)
    elif small.get('type') == 'NonLinearNeck':
        small['norm_cfg'] = dict(type='BN1d')  # its SyncBN runs on GPUs only
    for key, item in small.items():
        if key == 'backbone' and isinstance(item, dict) and 'type' in item:
            kept = {name: item[name] for name in KEPT if name in item}
            small[key] = dict(copy.deepcopy(BACKBONE), **kept)
        elif key in ('in_channels', 'hid_channels', 'out_channels'):
            small[key] = WIDTHS.get(item, item)
        elif key == 'num_classes':
            small[key] = classes
        elif key in ('scale', 'crop_size') and isinstance(item, int):
            small[key] = round(item * SIZE / 224)
        elif key == 'batch_size':
            small[key] = BATCH
        elif key == 'num_workers':
            small[key] = 0
        elif key == 'persistent_workers':
            small[key] = False
        elif key == 'interval' and small.get('type') == 'PartitionUpdateHook':
            small[key] = 1
    return small
