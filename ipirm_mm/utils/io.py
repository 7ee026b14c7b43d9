"""Files: writing them whole or not at all, and checking checkpoints before they are loaded."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ipirm_mm.errors import UserError


@contextmanager
def atomic_open(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a file for writing that appears when it is complete, or not at all.

    What is written goes to ``PATH.part``, which is flushed to the disk and then replaces ``path``.
    If anything fails before, the part is removed and an earlier file at ``path`` stays as it was.
    A process or machine that is stopped leaves the part and the earlier file.

    Args:
        path: File to write; missing folders are created.

    Yields:
        A binary stream.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.part')
    try:
        with open(part, 'wb') as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
        _flush_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, without which a new file can be lost."""
    if os.name != 'posix':
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems flush files only
        pass
    finally:
        os.close(descriptor)


def atomic_write(path: str | os.PathLike, data: bytes | str) -> None:
    """Write a file whole or not at all, see :func:`atomic_open`.

    Args:
        path: File to write; missing folders are created.
        data: Its content; text is encoded as UTF-8.
    """
    with atomic_open(path) as stream:
        stream.write(data.encode() if isinstance(data, str) else data)


def check_writable(path: str | os.PathLike | None, folder: bool = False) -> None:
    """Check that a result can be written, before the work that it is the result of.

    Nothing is created.

    Args:
        path: File to write, whose folders may be missing. None is not checked.
        folder: Whether it is a folder to write files to. Defaults to False.

    Raises:
        UserError: If it cannot be written; what is in the way is named.
    """
    if path is None:
        return
    path = Path(path)
    if not folder and path.is_dir():
        raise UserError(f'{path} cannot be written, because it is a folder: give a file in it')
    whole = path.absolute()
    places = (whole, *whole.parents) if folder else whole.parents
    there = next(place for place in places if os.path.lexists(place))
    if not there.is_dir():
        raise UserError(
            f'{path} cannot be written, because {there} is no folder: give another name'
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(
            f'{path} cannot be written, because you have no right to write to {there}: give '
            'another name'
        )


def check_checkpoint(path: str | None, remedy: str = '') -> None:
    """Check that a local checkpoint exists, is complete, and holds the bytes that were saved.

    The file is read once, because ``torch.load`` does not compare the checksums that
    ``torch.save`` writes. Files of PyTorch before 1.6 have none.

    Args:
        path: Path of the checkpoint. None and addresses (``https://...``) are not checked.
        remedy: What the error says after the path of a missing checkpoint: what it is for, and the
            command or option that mends it. Defaults to nothing.

    Raises:
        UserError: If it is missing, truncated or changed; it is named.
    """
    if path is None or '://' in path:
        return
    if not os.path.isfile(path):
        raise UserError(f'there is no checkpoint {path}{remedy}')
    reason = why_damaged(path)
    if reason:
        raise UserError(
            f'the checkpoint {path} is {reason}: copy it again, or resume from an earlier one'
        )
    if _is_zip(path) and not _holds_dict(path):
        raise UserError(
            f'{path} is no checkpoint: torch.save wrote something else than a dict of weights to '
            'it; give the file that tools/train.py saved'
        )


def why_damaged(path: str | os.PathLike) -> str | None:
    """Why a file of ``torch.save`` is not what was saved; None if it is, or if nothing tells.

    Args:
        path: A file.

    Returns:
        The end of a sentence that begins with the file's name and "is".
    """
    size = os.path.getsize(path)
    if size and not _is_zip(path):
        return None
    try:
        # torch.save writes a zip archive, whose directory is at the end: it is lost first.
        if not size or not zipfile.is_zipfile(path):
            return f'truncated ({size:,} bytes)'
        with zipfile.ZipFile(path) as archive:
            # PyTorch's reader gives memory as it is for a part that is marked as a folder.
            folders = (info.filename for info in archive.infolist() if info.external_attr & 0x10)
            part = archive.testzip() or next(folders, None)
    except Exception as error:  # a changed directory ends in errors of many types
        return f'damaged ({" ".join(str(error).split()) or type(error).__name__})'
    return f'damaged (its part {part} is not as it was saved)' if part else None


def _is_zip(path: str | os.PathLike) -> bool:
    with open(path, 'rb') as stream:
        return stream.read(2) == b'PK'


def _holds_dict(path: str) -> bool:
    """Whether a file of ``torch.save`` holds a dict, told by the beginning of its pickle."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith('data.pkl')]
        if not names:
            return False
        with archive.open(names[0]) as stream:
            start = stream.read(3)
    # After the protocol: an empty dict, or a class such as OrderedDict.
    return start[2:] in (b'}', b'c')
