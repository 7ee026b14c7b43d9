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

    What is written goes to ``PATH.part``, which replaces ``path`` at the end. If anything fails
    before, the part is removed and an earlier file at ``path`` stays as it was.

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
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def atomic_write(path: str | os.PathLike, data: bytes | str) -> None:
    """Write a file whole or not at all, see :func:`atomic_open`.

    Args:
        path: File to write; missing folders are created.
        data: Its content; text is encoded as UTF-8.
    """
    with atomic_open(path) as stream:
        stream.write(data.encode() if isinstance(data, str) else data)


def check_checkpoint(path: str | None, remedy: str = '') -> None:
    """Check that a local checkpoint exists and is complete.

    Args:
        path: Path of the checkpoint. None and addresses (``https://...``) are not checked.
        remedy: What the error says after the path of a missing checkpoint: what it is for, and the
            command or option that mends it. Defaults to nothing.

    Raises:
        UserError: If it is missing or truncated; it is named.
    """
    if path is None or '://' in path:
        return
    if not os.path.isfile(path):
        raise UserError(f'there is no checkpoint {path}{remedy}')
    with open(path, 'rb') as stream:
        zipped = stream.read(2) == b'PK'
    # torch.save writes a zip archive, whose directory is at the end: it is the first to be lost.
    if zipped and not zipfile.is_zipfile(path) or os.path.getsize(path) == 0:
        raise UserError(
            f'the checkpoint {path} is truncated ({os.path.getsize(path):,} bytes): copy it '
            'again, or resume from an earlier one'
        )
    if zipped and not _holds_dict(path):
        raise UserError(
            f'{path} is no checkpoint: torch.save wrote something else than a dict of weights to '
            'it; give the file that tools/train.py saved'
        )


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
