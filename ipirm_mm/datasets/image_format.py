"""Whether an image file is whole, told by its structure: decoders fill missing parts with gray."""

from __future__ import annotations

import io
import re
import struct

from PIL import Image, UnidentifiedImageError

# The next marker of a JPEG; within a scan FF 00 is data and FF D0 to FF D7 are restarts.
# Without a repeat of FF, which may come before a marker: the search is 40 times as fast.
_MARKER = re.compile(rb'\xff([^\x00\xff])')
_MARKER_AFTER_SCAN = re.compile(rb'\xff([^\x00\xd0-\xd7\xff])')
# Markers that may follow a scan: tables, another scan, the end, application data, a comment.
_AFTER_SCAN = {0xC4, 0xCC, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xDF, 0xFE, *range(0xE0, 0xF0)}
_STANDALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length


def is_truncated(content: bytes) -> bool:
    """Whether an image file lacks its end. What follows the end does not matter.

    Phones append a video to a photograph, and other programs append padding: such files are whole.

    Args:
        content: Content of the file.

    Returns:
        True for a JPEG, PNG, GIF, WebP, BMP or TIFF that lacks a part. Other formats are not
        checked.
    """
    if content[:2] == b'\xff\xd8':
        return not _jpeg_ends(content)
    if content[:8] == b'\x89PNG\r\n\x1a\n':
        return not _png_ends(content)
    if content[:6] in (b'GIF87a', b'GIF89a'):
        return not _gif_ends(content)
    if content[:4] == b'RIFF' and content[8:12] == b'WEBP':
        return struct.unpack('<I', content[4:8])[0] + 8 > len(content)
    if content[:2] == b'BM' and len(content) >= 14:
        return not 0 <= struct.unpack('<I', content[2:6])[0] <= len(content)
    if content[:4] in (b'II*\0', b'MM\0*'):
        return not _tiff_ends(content)
    return False


def _jpeg_ends(content: bytes) -> bool:
    """Whether the segments and scans of a JPEG lead to its end marker."""
    place, after_scan = 2, False
    while True:
        found = (_MARKER_AFTER_SCAN if after_scan else _MARKER).search(content, place)
        if found is None:
            return False
        marker, place = found[1][0], found.end()
        if marker == 0xD9:
            return True
        if after_scan and marker not in _AFTER_SCAN:
            return False  # other bytes took the place of the rest
        if marker in _STANDALONE:
            continue
        if place + 2 > len(content):
            return False
        place += struct.unpack('>H', content[place : place + 2])[0]
        after_scan = marker == 0xDA


def _png_ends(content: bytes) -> bool:
    place = 8
    while place + 12 <= len(content):
        length, kind = struct.unpack('>I4s', content[place : place + 8])
        place += 12 + length
        if kind == b'IEND':
            return place <= len(content)
    return False


def _gif_ends(content: bytes) -> bool:
    """Whether the first image of a GIF is whole; only that is read."""

    def color_table(packed: int) -> int:
        return 3 << ((packed & 7) + 1) if packed & 0x80 else 0

    try:
        place = 13 + color_table(content[10])
        while True:
            kind = content[place]
            if kind == 0x3B:
                return True
            if kind == 0x2C:
                place += 10 + color_table(content[place + 9]) + 1
            elif kind == 0x21:
                place += 2
            else:
                return False
            while content[place]:  # blocks of data, each with its length
                place += 1 + content[place]
            place += 1
            if kind == 0x2C:
                return place <= len(content)
    except IndexError:
        return False


def _tiff_ends(content: bytes) -> bool:
    """Whether the strips or tiles of a TIFF are in the file."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            tags = image.tag_v2  # type: ignore[attr-defined]
            for offsets, counts in ((273, 279), (324, 325)):
                for offset, count in zip(tags.get(offsets, ()), tags.get(counts, ())):
                    if offset + count > len(content):
                        return False
    except UnidentifiedImageError:
        return True  # of a kind that Pillow does not read: another decoder tells
    except (OSError, ValueError, SyntaxError, struct.error, TypeError, KeyError):
        return False
    return True
