"""List files: the path of an image and its class per line."""

from __future__ import annotations

import codecs
import csv
import os
import re
from pathlib import Path

from ipirm_mm.errors import UserError

# One image: its path under the data root, and its class.
Entry = tuple[str, 'int | None']
# Byte-order marks, longest first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, 'utf-32'),
    (codecs.BOM_UTF32_BE, 'utf-32'),
    (codecs.BOM_UTF8, 'utf-8-sig'),
    (codecs.BOM_UTF16_LE, 'utf-16'),
    (codecs.BOM_UTF16_BE, 'utf-16'),
)
# What stands between a path and its class: a blank or tabs, a comma or a semicolon.
_LABELED = re.compile(r'(?P<name>.*[^\s,;])(?:[ \t]*[,;\t][ \t]*|[ \t]+)(?P<label>\d+)')
# What stands after the path of an image, but is no class.
_NO_NUMBER = re.compile(
    r'(?P<name>.*\.(?:jpe?g|png|bmp|webp|tiff?|ppm|pgm|gif))[ ,;\t]+'
    r'(?P<label>[^\s,;/.][^/.]*|-?[\d.]+)',
    re.IGNORECASE,
)
_QUOTED = re.compile(r'"(?P<name>(?:[^"]|"")*)"(?:\s*[,;\t ]\s*"?(?P<label>\d+)"?)?')
_HEADER = re.compile(
    r'"?(path|file|filename|file_name|image|images|img|img_path|image_path|name|id|image_id)"?'
    r'\s*[,;\t ]\s*"?(class|label|target|category|class_id|label_id|gt_label)"?',
    re.IGNORECASE,
)


def read_list(path: Path) -> list[Entry]:
    """Read a list file; each line has the path of an image and, optionally, its class.

    Between them is a blank, a tab, a comma or a semicolon, as in every line of the file. Names may
    contain blanks and commas, and may be quoted. Lines may end as on Windows. A byte-order mark,
    empty lines, lines that begin with ``#`` and a header (``path,class``) are skipped, and
    backslashes are read as slashes.

    Args:
        path: The file.

    Returns:
        Path and class, or None, of each image.

    Raises:
        UserError: If the file is missing, empty or malformed, or names an image twice.
    """
    entries: list[Entry] = []
    first: dict[str, int] = {}
    for number, line in enumerate(_lines(path), 1):
        text = line.strip()
        if not text or text.startswith('#') or (not entries and _HEADER.fullmatch(text)):
            continue
        name, label = _split(text)
        name = _relative(name)
        wrong = _NO_NUMBER.fullmatch(name) if label is None else None
        if wrong:
            raise UserError(
                f'{path}, line {number}: the class of {wrong["name"]!r} is {wrong["label"]!r}: '
                'classes are numbers, from 0 on; write the number of the class after the path, '
                'and nothing else'
            )
        if os.path.isabs(name) or '..' in Path(name).parts or re.match('[A-Za-z]:/', name):
            raise UserError(
                f'{path}, line {number}: {name!r} is not a path below the folder of the images'
            )
        if name in first:
            raise UserError(
                f'{path} names {name!r} twice, in lines {first[name]} and {number}: remove one'
            )
        first[name] = number
        entries.append((name, label))
    if not entries:
        raise UserError(f'the list file {path} is empty')
    return entries


def _lines(path: Path) -> list[str]:
    """Lines of a text file, in UTF-8 unless a byte-order mark tells otherwise."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f'the list file {path} cannot be read: {error}') from error
    encoding = next((code for mark, code in _MARKS if content.startswith(mark)), 'utf-8')
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b'\n') + 1
        raise UserError(
            f'the list file {path} cannot be read: line {line} is not in UTF-8; save it as UTF-8, '
            f'as by iconv -f latin1 -t utf-8 {path}'
        ) from error
    if '\0' in text:
        raise UserError(f'the list file {path} cannot be read: it is no text; save it as UTF-8')
    # Not splitlines, which also splits at characters that names may contain.
    return re.split('\r\n|\n|\r', text)


def _split(text: str) -> tuple[str, int | None]:
    """Path and class of a line."""
    found = _QUOTED.fullmatch(text)
    if found:
        name = next(csv.reader([f'"{found["name"]}"']))[0]
        return name, int(found['label']) if found['label'] else None
    found = _LABELED.fullmatch(text.replace('"', '')) if text.endswith('"') else None
    found = found or _LABELED.fullmatch(text)
    if found and found['label'].isascii():
        return found['name'], int(found['label'])
    return text, None  # no class; names may contain blanks


def _relative(name: str) -> str:
    """A path with slashes, without ``./`` before it or double slashes."""
    name = name.replace('\\', '/')
    return re.sub(r'^(\./+)+', '', re.sub('(?<=.)/+(\\./+)*', '/', name))
