"""Checkpoints that are written whole, kept until the next one is, and found again.

The functions ``write_whole_files``, ``keep_until_replaced`` and ``resume_the_newest`` mend faults
of MMEngine, as those in :mod:`ipirm_mm.compat` do, for every config and tool.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook, checkpoint_hook
from mmengine.runner import Runner

from ipirm_mm.errors import UserError
from ipirm_mm.utils import atomic_open, atomic_write, check_checkpoint, why_damaged

LAST = 'last_checkpoint'
# What CheckpointHook and SaveOnSignalHook write if the config has no names of its own.
TEMPLATES = ('epoch_{}.pth', 'iter_{}.pth')

# No space left, quota exceeded, file too large.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_whole_files() -> None:
    """Let a checkpoint appear when it is complete and on the disk, or not at all.

    Fault: MMEngine's ``LocalBackend`` writes into the file that a reader will open, so that a
    process that is killed, or a full disk, leaves half of it under the name of a checkpoint.
    """
    if getattr(LocalBackend.put, 'whole', False):
        return

    original = LocalBackend.put

    @functools.wraps(original)
    def put(self: Any, obj: bytes, filepath: str | Path) -> None:
        target = Path(os.path.realpath(filepath))  # the file, where a link names one
        if target.exists() and not target.is_file():
            return original(self, obj, filepath)  # a device or pipe
        try:
            with atomic_open(target) as stream:
                stream.write(obj)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise UserError(
                f'{target} ({len(obj):,} bytes) cannot be written: {error.strerror}; earlier '
                'files are as they were: make room, and go on with --resume'
            ) from error

    put.whole = True  # type: ignore[attr-defined]
    LocalBackend.put = put


class _KeepingBackend:
    """A file backend that puts off what removes files.

    Args:
        backend: The backend.
    """

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.later: list[Callable[[], None]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        """Remember to remove a file."""
        self.later.append(functools.partial(self._remove, self.backend.remove, path))

    def rmtree(self, path: str) -> None:
        """Remember to remove a folder."""
        self.later.append(functools.partial(self._remove, self.backend.rmtree, path))

    @staticmethod
    def _remove(remove: Callable[[str], None], path: str) -> None:
        with suppress(FileNotFoundError):  # somebody was faster
            remove(path)


@contextmanager
def _kept_files(hook: CheckpointHook) -> Iterator[None]:
    """Keep the files of a hook until what it does now has succeeded."""
    backend = hook.file_backend
    if isinstance(backend, _KeepingBackend):  # the last checkpoint, with the new best in it
        yield
        return
    keeping = hook.file_backend = _KeepingBackend(backend)
    written = set()
    try:
        yield
        written = {str(hook.last_ckpt), *map(str, _best_files(hook))}
    finally:
        hook.file_backend = backend
    for remove in keeping.later:
        if str(remove.args[1]) not in written:  # type: ignore[attr-defined]
            remove()


def _best_files(hook: CheckpointHook) -> list[Any]:
    several = getattr(hook, 'best_ckpt_path_dict', None) or {}
    return [getattr(hook, 'best_ckpt_path', None), *several.values()]


def keep_until_replaced() -> None:
    """Let ``CheckpointHook`` remove an old checkpoint when the new one is complete.

    Faults: the hook removes the oldest of ``max_keep_ckpts``, and the last best one, before it
    writes the new one: with ``max_keep_ckpts=1``, a run that is killed while it saves has no
    checkpoint at all. It empties ``last_checkpoint`` before it writes into it.
    """
    if getattr(CheckpointHook._save_checkpoint_with_step, 'keeps', False):
        return

    def keeping(method: Callable) -> Callable:
        @functools.wraps(method)
        def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
            with _kept_files(self):
                return method(self, *args, **kwargs)

        wrapped.keeps = True  # type: ignore[attr-defined]
        return wrapped

    for name in ('_save_checkpoint_with_step', '_save_best_checkpoint'):
        setattr(CheckpointHook, name, keeping(getattr(CheckpointHook, name)))

    # The hook's module opens one file, `last_checkpoint`.
    checkpoint_hook.open = _open_whole  # type: ignore[attr-defined]


@contextmanager
def _open_whole(path: str, mode: str) -> Iterator[io.StringIO]:
    """Open a text file for writing that appears at the end, whole."""
    stream = io.StringIO()
    yield stream
    atomic_write(path, stream.getvalue())


def resume_the_newest() -> None:
    """Let ``--resume`` go on from the newest complete checkpoint, and check what is loaded.

    Faults: MMEngine takes what ``last_checkpoint`` says. If that file is missing, it begins anew
    in a folder with checkpoints, as it does for the ranks of machines that do not see the folder.
    If it is empty, names a file that is gone, or one that is damaged, the run ends. One that an
    earlier training left is resumed. Changed bytes are loaded.
    """
    original = Runner.load_or_resume
    if getattr(original, 'finds_newest', False):
        return

    @functools.wraps(original)
    def load_or_resume(self: Any) -> None:
        if self._has_loaded:
            return
        given = self._load_from
        if self._resume and given is None:
            path, lines = on_first_rank(lambda: _newest_of(self))
            for line in lines:
                self.logger.warning(line)
            if path is None:
                self.logger.warning(
                    f'--resume: there is no checkpoint in {self.work_dir}, so that the training '
                    'begins anew'
                )
                return
            self.logger.info(f'Auto resumed from the latest checkpoint {path}.')
            self._load_from = path
        elif given is not None:
            on_first_rank(lambda: check_checkpoint(given))
        try:
            original(self)
        finally:
            self._load_from = given

    load_or_resume.finds_newest = True  # type: ignore[attr-defined]
    Runner.load_or_resume = load_or_resume


def on_first_rank(work: Callable[[], Any]) -> Any:
    """Do something on the first rank; all get its result, or its ``UserError``.

    Args:
        work: What to do; its result is sent pickled.
    """
    shared: list[Any] = [None, None]
    if is_main_process():
        try:
            shared[0] = work()
        except UserError as error:
            shared[1] = str(error)
    broadcast_object_list(shared)
    if shared[1] is not None:
        raise UserError(shared[1])
    return shared[0]


def _newest_of(runner: Runner) -> tuple[str | None, list[str]]:
    """The newest checkpoint of a run, where its hooks write and by the names they give."""
    folders, templates = [runner.work_dir], list(TEMPLATES)
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            templates.append(hook.filename_tmpl)
            if hook.out_dir and '://' not in str(hook.out_dir):
                name = os.path.basename(runner.work_dir.rstrip(os.sep))
                folders += [str(hook.out_dir), os.path.join(hook.out_dir, name)]
    return newest_checkpoint(runner.work_dir, folders, templates)


class _Saved(NamedTuple):
    """A checkpoint, in the order in which a training writes them."""

    time: str
    iteration: int
    path: Path


def newest_checkpoint(
    work_dir: str, folders: Iterable[str] = (), templates: Iterable[str] = TEMPLATES
) -> tuple[str | None, list[str]]:
    """Find the newest complete checkpoint of a training.

    The newest is the one that was written last, by the time and the iteration that it holds. So a
    training in a folder of an earlier one is not taken for that, and copies of files may have any
    date.

    Args:
        work_dir: Work folder of the training, where ``last_checkpoint`` is.
        folders: Where else to look for checkpoints. Defaults to nowhere.
        templates: Names of checkpoints, with ``{}`` for a number. Defaults to ``epoch_{}.pth`` and
            ``iter_{}.pth``.

    Returns:
        Its path, None if there is no trace of a checkpoint; and lines for the log: files that are
        damaged, and whether ``last_checkpoint`` says otherwise.

    Raises:
        UserError: If there were checkpoints, and none is left that can be resumed.
    """
    record = Path(work_dir) / LAST
    named = record.read_text(errors='replace').strip() if record.is_file() else None
    if named and ('://' in named or os.path.isdir(named)):
        return named, []  # on a server, or a folder of DeepSpeed
    names = [re.escape(template).replace(r'\{\}', r'\d+') for template in templates]
    pattern = re.compile('|'.join(names))
    paths = {
        path.resolve()
        for folder in {str(work_dir), *map(str, folders)}
        for path in Path(folder).glob('*')
        if path.is_file() and pattern.fullmatch(path.name)
    }
    if named and os.path.isfile(named):
        paths.add(Path(named).resolve())
    saved, damaged = [], []
    for path in sorted(paths):
        entry = _read_position(path)
        if isinstance(entry, str):
            damaged.append(f'{path} is {entry}')
        else:
            saved.append(entry)
    for entry in sorted(saved, reverse=True):
        reason = why_damaged(entry.path)
        if reason is None:
            break
        damaged.append(f'{entry.path} is {reason}')
    else:
        if named is None and not damaged:
            return None, []
        if named is not None and not (named and os.path.isfile(named)):
            what = f'names {named}, which is not there' if named else 'is empty'
            damaged.insert(0, f'{record} {what}')
        raise UserError(
            f'there is no checkpoint to resume in {work_dir}: {"; ".join(damaged)}; copy one '
            'there, or begin anew without --resume'
        )
    chosen = str(entry.path)
    lines = [f'{line}: it is not resumed' for line in damaged]
    if not named:
        lines.append(f'{record} is {"missing" if named is None else "empty"}: resuming {chosen}')
    elif not os.path.isfile(named) or not entry.path.samefile(named):
        why = 'was written later' if os.path.isfile(named) else 'is there'
        lines.append(f'{record} names {named}, but {chosen} {why}: resuming the latter')
    return chosen, lines


def _read_position(path: Path) -> _Saved | str:
    """When a checkpoint was written, without its tensors; or why it cannot be resumed."""
    with open(path, 'rb') as stream:
        zipped = stream.read(2) == b'PK'
    try:
        meta = torch.load(str(path), map_location='cpu', mmap=zipped)['meta']
        return _Saved(str(meta['time']), int(meta['iter']), path)
    except (KeyError, TypeError):
        return 'no checkpoint of a training (it does not say when it was saved)'
    except Exception as error:  # of many types, for bytes that are no checkpoint
        first = str(error).splitlines() or ['']
        return why_damaged(path) or f'no checkpoint ({type(error).__name__}: {first[0]})'
