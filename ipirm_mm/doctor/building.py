"""Check 2: the config is built as a training would build it, in a folder that is removed."""

from __future__ import annotations

import copy
import math
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.hooks import CheckpointHook
from mmengine.registry import VISBACKENDS, VISUALIZERS, init_default_scope
from mmengine.runner import Runner

from ipirm_mm import cli
from ipirm_mm.engine import KNNHook, PartitionUpdateHook, add_training_hooks
from ipirm_mm.engine.memory import states_per_weight
from ipirm_mm.evaluation import build_loader

from .findings import Findings, counted

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


@dataclass
class Setup:
    """A config, and what has been built of it.

    Attributes:
        cfg: The config, with what tools/train.py adds to it.
        gpus: Number of processes that it would run with.
        folder: Folder for what a run writes, removed at the end.
        runner: The runner; None if it cannot be built.
        loaders: The data loaders by the name of their option, of those that can be built.
        can_train: Whether model, data and loop of a training are built.
        optimizer_states: Numbers that the optimizer keeps per weight.
        sample_bytes: Size of an image of the training in a batch, 0 as long as it is not known.
        image_seconds: Time in which one process reads an image of the training.
        left_random: Parts of the model whose checkpoint cannot be loaded.
    """

    cfg: Any
    gpus: int
    folder: str
    runner: Any = None
    loaders: dict[str, Any] = field(default_factory=dict)
    can_train: bool = False
    optimizer_states: float = 0
    sample_bytes: int = 0
    image_seconds: float = 0
    left_random: list[str] = field(default_factory=list)

    @property
    def trains(self) -> bool:
        """Whether the config has a training."""
        return self.cfg.get('train_dataloader') is not None

    @property
    def loop(self) -> dict[str, Any]:
        """Options of the training loop; none if there are none."""
        options = self.cfg.get('train_cfg')
        return options if isinstance(options, dict) else {}

    @property
    def model(self) -> Any:
        """The model; None if it cannot be built."""
        return None if self.runner is None else self.runner.model

    @property
    def partition_hooks(self) -> list[PartitionUpdateHook]:
        """The hooks that find partitions."""
        hooks = [] if self.runner is None else self.runner.hooks
        return [hook for hook in hooks if isinstance(hook, PartitionUpdateHook)]

    @property
    def checkpoint_hooks(self) -> list[CheckpointHook]:
        """The hooks that write checkpoints."""
        hooks = [] if self.runner is None else self.runner.hooks
        return [hook for hook in hooks if isinstance(hook, CheckpointHook)]

    @property
    def images_per_step(self) -> int:
        """Images of a training step on all processes; 1 per process if it is not known."""
        loader = self.loaders.get('train_dataloader')
        return (getattr(loader, 'batch_size', None) or 1) * self.gpus

    def num_steps(self) -> tuple[int, int] | None:
        """Steps of the training, and of each epoch, on all processes; None if not known."""
        loader = self.loaders.get('train_dataloader')
        if loader is None or not len(loader):
            return None
        per_epoch = math.ceil(len(loader) / self.gpus)
        epochs, iterations = (self.loop.get(name) for name in ('max_epochs', 'max_iters'))
        if epochs is not None:
            return epochs * per_epoch, per_epoch
        return None if iterations is None else (iterations, per_epoch)


def prepare(cfg: Any, findings: Findings) -> None:
    """Add to a config what tools/train.py adds, and check it as that tool does.

    Args:
        cfg: The config, changed in place.
        findings: Gets the findings.
    """
    given = Namespace(work_dir=None, no_pin_memory=False, local_rank=0, launcher='none')
    with findings.check('config'):
        cli.merge_common(cfg, given, LOADERS)
    with findings.check('config'):
        cli.fit_to_machine(cfg, LOADERS)
    with findings.check('config'):
        if any(cfg.get(name) is not None for name in cli.TRAINING):
            cli.prepare_training(cfg)
        else:
            cli.check_model(cfg)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))


def build(setup: Setup, findings: Findings) -> None:
    """Build the runner with model and hooks, and the data loaders, each on its own.

    Args:
        setup: Gets what is built.
        findings: Gets the findings.
    """
    cfg = setup.cfg
    trial = copy.deepcopy(cfg)
    trial.update(work_dir=setup.folder, load_from=None, resume=False, log_level='ERROR')
    trial.experiment_name = f'check_setup_{time.time_ns()}'
    with findings.check('visualizer'):
        _check_visualizer(cfg, setup.folder)
    # Backends such as that of Weights & Biases would start a run.
    trial.visualizer, trial.vis_backends = None, []
    with findings.check('model'):
        setup.runner = cli.build_runner(trial)
        if setup.trains:
            add_training_hooks(setup.runner)
        weights = sum(weight.numel() for weight in setup.model.parameters())
        findings.add(
            'ok',
            'model',
            f'{type(setup.model).__name__} is built, with {weights / 1e6:.2f} million parameters '
            f'and {counted(len(setup.runner.hooks), "hook")}',
        )
    with findings.check('optim_wrapper'):
        optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer')
        setup.optimizer_states = states_per_weight(dict(optimizer)) if optimizer else 0
    seed = (cfg.get('randomness') or {}).get('seed') or 0
    for name in LOADERS:
        if cfg.get(name) is None:
            continue
        with findings.check(name):
            setup.loaders[name] = Runner.build_dataloader(copy.deepcopy(cfg[name]), seed=seed)
            if setup.runner is not None:  # which need not build it again
                setattr(setup.runner, f'_{name}', setup.loaders[name])
    if setup.runner is not None and 'train_dataloader' in setup.loaders:
        with findings.check('train_cfg'):
            setup.can_train = setup.runner.train_loop is not None
    for name, config in monitor_loaders(setup):
        with findings.check(name):
            setup.loaders[name] = build_loader(config, seed=seed)


def monitor_loaders(setup: Setup) -> Iterator[tuple[str, Any]]:
    """Configs of the data loaders of k-NN monitors, by name.

    Args:
        setup: What was built.
    """
    for hook in [] if setup.runner is None else setup.runner.hooks:
        if isinstance(hook, KNNHook):
            for name, config in zip(('bank', 'query'), hook.loader_cfgs):
                yield f'KNNHook.{name}_dataloader', config


def _check_visualizer(cfg: Any, folder: str) -> None:
    """Build visualizer and backends, which begin to write only when they are used."""
    visualizer = copy.deepcopy(cfg.get('visualizer') or {})
    for backend in visualizer.pop('vis_backends', None) or ():
        VISBACKENDS.build({'save_dir': folder, **backend})
    if visualizer:
        visualizer['name'] = f'check_setup_{time.time_ns()}'
        VISUALIZERS.build(visualizer)


def first_batch(loader: Any) -> Any:
    """Load a batch, and leave no data workers behind.

    Args:
        loader: A data loader.
    """
    try:
        return next(iter(loader))
    finally:
        loader._iterator = None  # of persistent workers


def work_dir_of(cfg: Any) -> Path:
    """Folder that a training writes to.

    Args:
        cfg: The config.
    """
    return Path(str(cfg.get('work_dir') or './work_dirs')).expanduser().absolute()
