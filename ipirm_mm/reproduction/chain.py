"""Commands in the order in which each finds what it needs, read from the configs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ipirm_mm.errors import UserError
from ipirm_mm.utils import with_names

# The report's configs are for this number of processes.
GPUS = 8


@dataclass(frozen=True)
class Step:
    """A command of a chain.

    Attributes:
        title: What it does, in a few words.
        command: The words of the command.
        makes: The file that it writes last.
        needs: Files that must be there first.
        work_dir: Work folder of a training, which can be continued. Defaults to None: the command
            is no training.
        config: Path of the config of a training. Defaults to None.
    """

    title: str
    command: tuple[str, ...]
    makes: Path
    needs: tuple[Path, ...] = ()
    work_dir: Path | None = None
    config: str | None = None

    @property
    def done(self) -> bool:
        """Whether its file is there, and is no older than what it was made from.

        A training is never started again because of a file's age: it can have cost weeks.
        """
        if not self.makes.exists():
            return False
        if self.work_dir is not None:
            return True
        made = self.makes.stat().st_mtime
        return all(need.stat().st_mtime <= made for need in self.needs if need.exists())

    @property
    def begun(self) -> bool:
        """Whether it is a training that was cut off, and has a checkpoint to go on from."""
        return (
            self.work_dir is not None
            and not self.makes.exists()
            # Those of an epoch or an iteration; `last_checkpoint` may be missing.
            and any(self.work_dir.glob('*_[0-9]*.pth'))
        )

    def words(self) -> list[str]:
        """The words of the command; one that was cut off gets ``--resume``."""
        return [*self.command, *(['--resume'] if self.begun else [])]


@dataclass
class Chain:
    """The steps of one or more tables, without repetition.

    What a step needs is read from its config: the checkpoint that the backbone starts from, those
    of the teachers, and the members and weights of an ensemble. The config that makes a checkpoint
    is found by the name of its folder, which is the name of the config.

    .. code-block:: python

        chain = Chain(find)
        checkpoint = chain.train('ofd_r50')  # adds Stage I and the teacher first
        chain.evaluate('ofd_r50')
        for step in chain.steps: ...

    Args:
        find: Gives the path of a config by its name, such as ``'ofd_r50'``.
        gpus: Number of processes of a command. Defaults to 8, for which the configs are; with
            another number the learning rate is scaled.
        settings: Gives further words of a training by the name of its config, such as ``--amp``.
            Defaults to None: there are none.
        data: What makes the data set. Defaults to None: it is there.
        work_dirs: Folder of the work folders. Defaults to ``work_dirs``, where the configs look.
        tools: Folder of the tools, as the commands name it. Defaults to ``tools``.

    Attributes:
        steps: The steps by what they make, in an order in which they can run.
    """

    find: Callable[[str], str]
    gpus: int = GPUS
    settings: Callable[[str], Sequence[str]] | None = None
    data: Step | None = None
    work_dirs: Path = Path('work_dirs')
    tools: str = 'tools'
    steps: dict[Path, Step] = field(default_factory=dict)
    _loaded: dict[str, tuple[str, Any]] = field(default_factory=dict, repr=False)

    def add(self, step: Step) -> Path:
        """Add a step, if there is none yet that makes its file.

        Args:
            step: The step.

        Returns:
            The file that it makes.
        """
        self.steps.setdefault(step.makes, step)
        return step.makes

    def train(self, name: str) -> Path:
        """Add the training of a config, and before it all that it starts from.

        Args:
            name: Name of the config.

        Returns:
            Its last checkpoint.

        Raises:
            UserError: If the config starts from a checkpoint that no config makes.
        """
        path, config = self.load(name)
        folder = self.work_dirs / name
        checkpoint = folder / f'epoch_{config.train_cfg.max_epochs}.pth'
        if checkpoint in self.steps:
            return checkpoint
        starts = [self._make_checkpoint(found, path) for found in checkpoints_of(config.model)]
        command = self._run('train', path)
        # The configs have the learning rate of 8 processes.
        command += ['--auto-scale-lr'] if self.gpus != GPUS else []
        command += self.settings(name) if self.settings else []
        needs = self._with_data(starts)
        return self.add(Step(f'train {name}', tuple(command), checkpoint, needs, folder, path))

    def evaluate(self, name: str, suffix: str = '', options: Sequence[str] = ()) -> Path:
        """Add the accuracy of a trained config on its test split, as a file.

        Args:
            name: Name of the config.
            suffix: Ending of the file's name. Defaults to nothing.
            options: Further options of ``tools/test.py``. Defaults to none.

        Returns:
            The file, JSON.
        """
        out = self.work_dirs / name / f'accuracy{suffix}.json'
        return self._test(name, out, [*options, '--out', str(out), '--out-item', 'metrics'])

    def predict(self, name: str, split: str, options: Sequence[str] = ()) -> Path:
        """Add the predictions of a trained config, as a file.

        Args:
            name: Name of the config.
            split: ``'val'`` or ``'test'``.
            options: Options of ``tools/test.py``, such as the crops. Defaults to none.

        Returns:
            The file.
        """
        out = self.work_dirs / name / f'{split}.pkl'
        words = [*options, '--out', str(out)]
        # The test split of the challenge has no labels: configs test on the validation split.
        if split == 'test':
            words += ['--cfg-options', 'test_dataloader.dataset.split=test']
        return self._test(name, out, words)

    def tool(
        self, title: str, script: str, words: Sequence[str], makes: Path, needs: Sequence[Path]
    ) -> Path:
        """Add a command of another tool.

        Args:
            title: What it does.
            script: The tool, as a path below the folder of the tools.
            words: Its arguments.
            makes: The file that it writes.
            needs: Files that must be there first.

        Returns:
            ``makes``.
        """
        command = ('python', f'{self.tools}/{script}', *words)
        return self.add(Step(title, command, makes, tuple(needs)))

    def _test(self, name: str, out: Path, words: Sequence[str]) -> Path:
        checkpoint = self.train(name)
        path, _ = self.load(name)
        command = self._run('test', path, str(checkpoint)) + list(words)
        title = f'test {name}, {out.name}'
        return self.add(Step(title, tuple(command), out, self._with_data([checkpoint])))

    def _run(self, tool: str, *files: str) -> list[str]:
        """The first words of a training or a test."""
        if self.gpus == 1:
            return ['python', f'{self.tools}/{tool}.py', *files]
        return ['bash', f'{self.tools}/dist_{tool}.sh', *files, str(self.gpus)]

    def _with_data(self, needs: Sequence[Path]) -> tuple[Path, ...]:
        return (*needs, *([] if self.data is None else [self.add_data()]))

    def add_data(self) -> Path:
        """Add what makes the data set, as the first step.

        Returns:
            The folder of the data set.
        """
        assert self.data is not None
        if self.data.makes not in self.steps:
            self.steps = {self.data.makes: self.data, **self.steps}
        return self.data.makes

    def load(self, name: str) -> tuple[str, Any]:
        """Load a config.

        Args:
            name: Its name.

        Returns:
            Its path, and the config.
        """
        if name not in self._loaded:
            path = self.find(name)
            self._loaded[name] = path, with_names(Config.fromfile(path))
        return self._loaded[name]

    def _make_checkpoint(self, found: str, path: str) -> Path:
        """Add the training that makes a checkpoint which a config names."""
        wanted = Path(found)
        made = self.train(wanted.parent.name) if wanted.parent.name else None
        if made is None or made != wanted:
            raise UserError(
                f'{path} starts from {found}, but the config of that name makes {made}: name the '
                'checkpoint of the last epoch'
            )
        return made


def checkpoints_of(value: Any) -> Iterator[str]:
    """Find the checkpoints that a model's config names, at any depth.

    Args:
        value: The config of a model.

    Yields:
        Paths, each once.
    """
    seen = set()
    for path in _checkpoints(value):
        if path not in seen:
            seen.add(path)
            yield path


def _checkpoints(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == 'checkpoint' and item:
                yield str(item)
            else:
                yield from _checkpoints(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _checkpoints(item)
