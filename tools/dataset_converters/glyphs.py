"""Make the data file of Glyphs: letters and digits, drawn from the fonts of this machine.

    python tools/dataset_converters/glyphs.py --out data/glyphs.npz

Each font gives one image of each of 45 characters. The hidden factor is the kind of the font
(serif, sans, mono, hand or display): a shift that nobody planted. A family of fonts, with all its
styles, is in one split only: unlabeled, train, val or test. The draw is seeded; the same fonts,
seed, Pillow and FreeType give the same bytes. Fonts are read from /usr/share/fonts, or from the
folders that --fonts names. The file named below lists packages of Debian 12
with free fonts; all are meant to be installed:

    apt-get install $(cat tools/dataset_converters/glyphs_packages.txt)

Characters: the 26 capitals, the small letters that do not look like their capital, and the digits
but 0 and 1, which look like O and I. This is the choice of EMNIST's "balanced" classes (Cohen et
al., 2017) without 0 and 1.

Kind of a font, by the first of these that decides:

1. BY_NAME, a list of families (and packages of one designer) whose metadata tell nothing or
   something wrong, by the eye of this file's author.
2. mono: all characters have the same advance width.
3. The names of family and style, by the patterns NAME_PATTERNS.
4. OS/2 PANOSE (script: hand; decorative: display; Latin text: serif or sans by its serif style)
   and the synopsis of the font's Debian package by the patterns SYNOPSIS_PATTERNS. If the two
   disagree, or both say nothing, the font is left out.

Left out, and counted in the output: files that FreeType cannot read or that hold no outlines,
symbol fonts, fonts that lack a character or draw it as nothing or as the box of a missing glyph,
fonts with capitals in place of small letters (one small letter is the same shape, or most are more
like their own capital than any other) or with two characters of the same shape, duplicates,
and fonts of an undecided kind. Families with nearly the same shapes (clones) count as one family.
At most 3 fonts of a family and kind and 60 families of a kind are drawn by the seed, so that
no family and no kind is most of the data.

The file has the arrays images (N, 28, 28) uint8, white on black; labels, factors and split (N,);
fonts (N,), the position of the font in the record; and record, UTF-8 text: JSON with the name,
version, license, package, kind and split of each font, and the settings.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont, features

from ipirm_mm.datasets.glyphs import CHARACTERS, KINDS, SIZE, SPLITS
from ipirm_mm.errors import UserError
from ipirm_mm.utils import ProgressBar, atomic_open, check_writable

FOLDER = '/usr/share/fonts'
# Fraction of the families of a kind that each split gets.
FRACTIONS = dict(unlabeled=0.5, train=0.2, val=0.1, test=0.2)
MAX_FAMILIES = 60
MAX_STYLES = 3
# Glyphs are drawn at four times their size and averaged: subpixel positions, smooth edges.
SCALE = 4
# Height of the letter H, offset from the center, and largest extent, in pixels of the image.
HEIGHTS = (14.0, 18.0)
MAX_OFFSET = 2.0
MAX_EXTENT = 26
# Glyphs cropped to their box and resized to this side are compared, gray values 0 to 1.
SHAPE_SIDE = 16
# Mean absolute difference below which two glyphs of a font are the same shape.
SAME_SHAPE = 0.02
# The same over all characters of two fonts, below which one is a clone of the other.
CLONE = 0.055

SYMBOLS = re.compile(
    r'symbol|dingbat|ornament|\bicons?\b|\bmath|music|braille|barcode|emoji|keyboard|^D050000L|'
    # Drawings or Greek letters at the places of Latin letters, and letters that nobody can read.
    r'\bdings?\b|skull|faux snow|binary (01s )?brk|bit blocks|alfa-beta|ellhnikh|3d let|'
    r'pindown brk',
    re.I,
)
SMALL_CAPITALS = re.compile(r'small ?cap|\bcap[sz]\b|\bSC\b|unicase', re.I)
SMALL_CAPITALS_REASON = 'with capitals as small letters'
# Words of a family's name that tell a style or a kind: "DejaVu Sans Mono" is of "DejaVu" here.
STYLE_WORDS = re.compile(
    r'\b(thin|extra|light|book|regular|medium|demi|semi|bold|black|heavy|italics?|oblique|ultra|'
    r'condensed|cond|narrow|wide|expanded|compact|half|tight|loose|alternate|alta|display|text|'
    r'caption|titling|small|libre|basic|plus|new|neue|classic|classical|style|upright|variable|'
    r'width|sans|serif|mono|monospace|slab|code|roman|typewriter|gothic|script|adf|gs|gwf|sil|std|'
    r'pro|ps|tt|ttf|otf|no|series [a-z]+|(?:info|key|lp|pc|sign)font|z|v)\b|\d+|[^\w ]|_'
)
# Families whose metadata tell nothing or something wrong, looked at by eye; '' leaves them out.
# Matched with the beginning of the family's name, or with the name of a package.
BY_NAME = {
    'serif': r'arapey|baskervald|berenis|c059|caslon|charis|cmu concrete|cupola|doulos|elstob|'
    r'essays1743|fanwood|galatia|gentium|irianis|junicode|linux libertine (display )?o|p052|'
    r'prociono|quercus|romande adf (std|no2)|stix|urw bookman',
    'sans': r'aerial$|allerta|andika|b612$|cantarell|cmu bright|comfortaa|dustismo$|go$|go medium|'
    r'inter\b|libris|linux biolinum|national park|osifont|roadgeek|roboto(?! slab)|solothurn|sora|'
    r'tiresias|yanone',
    'hand': r'abecedario$|aoyagi|chilanka|comic neue|domestic manners|joscelyn|kouzan|lobster|'
    r'nanumbarunpen|purisa|setofont|z003',
    'display': r'berenika|cabin ?sketch|el abogado|engadget|fantasma|isabella|junkyard|klaudia|'
    r'le murmure|oldania|penguin attack|rampart|rocknroll|staypuft|summersby|train one|triod|'
    r'wargames|fonts-aenigma',
    '': r'abecedario_|averia gwf|fonts-gotico-antiqua|mekanus|opendyslexic|stick|verana$',
}
# Tried in this order on family and style.
NAME_PATTERNS = {
    'mono': r'mono(?!type)|typewriter(?!.*variable)',
    'hand': r'script|hand(?!le)|writing|cursive|brush|scrawl|calligra',
    'display': r'stencil|outline|shadow|poster|initials|blackletter|fraktur|sketch|title|titling',
    'sans': r'sans|gothic|grotesk|grotesque',
    'serif': r'serif|slab|roman\b|antiqua|didot|bodoni|garamond|baskervil|century|schoolbook',
}
SYNOPSIS_PATTERNS = {
    'hand': r'handwrit|cursive|\bscript (font|type)|calligra|brush',
    'display': r'decorative|black ?letter|headline|titl|\bsigns?\b|signage|poster|stencil|bubbl',
    'sans': r'sans|grotes|geometric',
    'serif': r'(?<!sans[ -])\bserif|roman\b|antiqua|slab|old ?style|didone|garamond|times',
}


@dataclass
class Font:
    """A font file that can be drawn.

    Attributes:
        path: The file.
        sha256: Hash of the file.
        names: Entries of the name table by their number.
        family: Name of the family.
        style: Name of the style.
        panose: OS/2 PANOSE, ten numbers; zeros if there are none.
        fixed: Whether all characters have the same advance width.
        shapes: Glyphs cropped to their boxes, ``(45, 16, 16)``, 0 to 1.
        package: Debian package, or ``''``.
        group: Number of the family, shared with clones.
        kind: Kind, an index of ``KINDS``; -1 if undecided.
        split: Split, an index of ``SPLITS``.
    """

    path: Path
    sha256: str
    names: dict[int, str]
    family: str
    style: str
    panose: tuple[int, ...]
    fixed: bool
    shapes: np.ndarray = field(repr=False)
    package: str = ''
    group: int = -1
    kind: int = -1
    split: int = -1


class LeftOut(Exception):
    """A font is not used; the message says why."""


def find_files(folders: Sequence[str]) -> list[Path]:
    """Find the font files (TrueType and OpenType) of folders.

    Raises:
        UserError: If a folder does not exist or has none.
    """
    found: list[Path] = []
    for folder in folders:
        if not os.path.isdir(folder):
            raise UserError(f'there is no folder {folder}: give --fonts a folder with fonts')
        paths = [p for p in Path(folder).rglob('*') if p.suffix.lower() in ('.ttf', '.otf')]
        if not paths:
            raise UserError(f'{folder} has no font files (.ttf, .otf): install fonts, see --help')
        found += paths
    return sorted(set(found))


def read_names(face: FT2Font) -> dict[int, str]:
    """Entries of the name table by their number; those for Windows, in English, come first."""
    names: dict[int, str] = {}
    entries = sorted(face.get_sfnt().items(), key=lambda e: (e[0][0] == 3, e[0][2] in (0, 0x409)))
    for (platform, _, _, number), value in entries:
        text = value.decode('mac-roman' if platform == 1 else 'utf-16-be', 'replace')
        if text.strip():
            names[number] = ' '.join(text.split())
    return names


def glyph(font: ImageFont.FreeTypeFont, character: str) -> np.ndarray:
    """A character cropped to its box, ``(H, W)`` uint8; empty if nothing is drawn."""
    left, top, right, bottom = (int(side) for side in font.getbbox(character, anchor='ls'))
    if right <= left or bottom <= top or max(right - left, bottom - top) > 4096:
        return np.zeros((0, 0), np.uint8)
    image = Image.new('L', (right - left, bottom - top))
    ImageDraw.Draw(image).text((-left, -top), character, fill=255, font=font, anchor='ls')
    box = image.getbbox()
    return np.asarray(image.crop(box)) if box else np.zeros((0, 0), np.uint8)


def shape_of(image: np.ndarray) -> np.ndarray:
    """A cropped glyph, stretched to a square, ``(SHAPE_SIDE, SHAPE_SIDE)`` float32, 0 to 1."""
    resized = Image.fromarray(image).resize((SHAPE_SIDE, SHAPE_SIDE), Image.Resampling.BOX)
    return np.asarray(resized, np.float32) / 255


def is_same(image: np.ndarray, other: np.ndarray) -> bool:
    """Whether two cropped glyphs are the same but for a subpixel shift."""
    if other.size == 0 or np.abs(np.subtract(image.shape, other.shape)).max() > 1:
        return False
    return bool(np.abs(shape_of(image) - shape_of(other)).mean() < SAME_SHAPE)


def open_font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    """Open a font; the basic layout does not depend on further libraries."""
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def read_font(path: Path) -> Font:
    """Read a font and look at its glyphs.

    Raises:
        LeftOut: If it cannot be used.
    """
    try:
        face = FT2Font(str(path))
        if not face.scalable:
            raise LeftOut('without outlines')
        names = read_names(face)
        charmap = face.get_charmap()
        table = face.get_sfnt_table('OS/2') or {}
        panose = tuple(table.get('panose') or bytes(10))
        font = open_font(path, 64)
    except (OSError, RuntimeError, ValueError, UnicodeDecodeError) as error:
        raise LeftOut('broken') from error
    family = names.get(16) or names.get(1) or face.family_name or path.stem
    style = names.get(17) or names.get(2) or face.style_name or ''
    if SYMBOLS.search(f'{family} {style} {path.stem}') or panose[0] == 5:
        raise LeftOut('symbols')
    if SMALL_CAPITALS.search(f'{family} {style}'):
        raise LeftOut(SMALL_CAPITALS_REASON)
    if not all(charmap.get(ord(character)) for character in CHARACTERS):
        raise LeftOut('without one of the characters')
    try:
        glyphs = [glyph(font, character) for character in CHARACTERS]
        # A character that no font has: what is drawn for it is the box of a missing glyph.
        missing = glyph(font, '\uffff')
        widths = {font.getlength(character) for character in CHARACTERS}
    except (OSError, ValueError) as error:
        raise LeftOut('broken') from error
    if any(image.size == 0 or is_same(image, missing) for image in glyphs):
        raise LeftOut('with an empty or missing glyph')
    shapes = np.stack([shape_of(image) for image in glyphs])
    reason = why_not_distinct(shapes)
    if reason:
        raise LeftOut(reason)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Font(path, digest, names, family, style, panose, len(widths) == 1, shapes)


def why_not_distinct(shapes: np.ndarray) -> str | None:
    """Why the characters of a font cannot be told apart, or None.

    Args:
        shapes: Glyphs ``(45, 16, 16)``, see :class:`Font`.
    """
    flat = shapes.reshape(len(shapes), -1)
    distance = np.abs(flat[:, None] - flat).mean(2)
    small = [position for position, name in enumerate(CHARACTERS) if name.islower()]
    own = [CHARACTERS.index(CHARACTERS[position].upper()) for position in small]
    # Capitals come first. A small letter is most like another capital in fonts that have both.
    nearest = distance[small, : CHARACTERS.index('Z') + 1].argmin(1)
    if (distance[small, own] < SAME_SHAPE).any() or np.mean(nearest == own) > 0.5:
        return SMALL_CAPITALS_REASON
    if (distance[np.triu_indices(len(flat), 1)] < SAME_SHAPE / 4).any():
        return 'with two characters of the same shape'
    return None


def read_packages(fonts: Sequence[Font]) -> dict[str, dict[str, str]]:
    """Find the Debian package of each font, which is noted there; none without ``dpkg-query``.

    Returns:
        ``version``, ``synopsis`` and ``license`` of the packages.
    """
    if not shutil.which('dpkg-query') or not fonts:
        return {}

    def ask(*arguments: str) -> str:
        command = ['dpkg-query', *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    paths = [str(font.path.resolve()) for font in fonts]
    # A path in dpkg's list is a pattern there.
    owners = [
        line.rpartition(': ')[::2]
        for line in ask('-S', *(re.sub(r'([\\*?\[])', r'\\\1', p) for p in paths)).splitlines()
    ]
    by_path = {path: owner.partition(',')[0].partition(':')[0] for owner, path in owners}
    for font, path in zip(fonts, paths):
        font.package = by_path.get(path, '')
    packages: dict[str, dict[str, str]] = {}
    wanted = sorted({font.package for font in fonts} - {''})
    form = '${Package}\t${Version}\t${binary:Summary}\n'
    for line in ask('-W', '-f', form, *wanted).splitlines() if wanted else ():
        name, version, synopsis = line.split('\t')
        path = Path(f'/usr/share/doc/{name}/copyright')
        text = path.read_text(errors='replace') if path.is_file() else ''
        licenses = sorted(set(re.findall(r'^License: *(\S.*)$', text, re.M)))
        license_names = '; '.join(licenses) or f'see {path}'
        packages[name] = dict(version=version, synopsis=synopsis, license=license_names)
    return packages


def match(patterns: dict[str, str], text: str) -> str | None:
    """The kind whose pattern is the first that a text has."""
    return next((k for k, pattern in patterns.items() if re.search(pattern, text, re.I)), None)


def by_panose(panose: Sequence[int]) -> str | None:
    """The kind that PANOSE tells: family kind, and the serif style of Latin text."""
    if panose[0] == 2:
        return 'serif' if 2 <= panose[1] <= 10 else 'sans' if 11 <= panose[1] <= 15 else None
    return {3: 'hand', 4: 'display'}.get(panose[0])


def kind_of(font: Font, synopsis: str) -> str | None:
    """Kind of a font, by the rule in this file's description; None if undecided."""
    for kind, pattern in BY_NAME.items():
        if re.match(pattern, font.family, re.I) or re.fullmatch(pattern, font.package):
            return kind or None
    if font.fixed:
        return 'mono'
    named = match(NAME_PATTERNS, f'{font.family} {font.style}')
    if named:
        return named
    told = {by_panose(font.panose), match(SYNOPSIS_PATTERNS, synopsis)} - {None}
    return told.pop() if len(told) == 1 else None


def drop_duplicates(fonts: Sequence[Font]) -> list[Font]:
    """Leave out fonts whose glyphs are those of an earlier font, pixel by pixel."""
    seen: set[bytes] = set()
    kept = []
    for font in fonts:
        key = font.shapes.tobytes()
        if key not in seen:
            seen.add(key)
            kept.append(font)
    return kept


def family_key(name: str) -> str:
    """Name of a family without words of style and kind."""
    spaced = re.sub(r'(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])', ' ', name).lower()
    words = STYLE_WORDS.sub(' ', spaced).split()
    # Brian Kent's families are told by their first word.
    key = words[0] if words and words[-1] == 'brk' else ' '.join(words)
    return key if len(key) > 2 else name.lower()


def group_families(fonts: Sequence[Font]) -> None:
    """Number the groups of fonts that must not be in two splits: of one name, and clones."""
    parent = list(range(len(fonts)))

    def root(node: int) -> int:
        while parent[node] != node:
            node = parent[node]
        return node

    first: dict[str, int] = {}
    shapes = np.stack([font.shapes.ravel() for font in fonts])
    for position, font in enumerate(fonts):
        same = [first.setdefault(family_key(font.family), position)]
        distance = np.abs(shapes[:position] - shapes[position]).mean(1)
        for other in (*same, *np.flatnonzero(distance < CLONE)):
            parent[root(position)] = root(int(other))
    for position, font in enumerate(fonts):
        font.group = root(position)


def assign_splits(fonts: Sequence[Font], generator: np.random.Generator) -> list[Font]:
    """Draw families and styles, and give each family a split.

    Returns:
        The fonts that are used.

    Raises:
        UserError: If a split gets no font.
    """
    groups: dict[int, list[Font]] = {}
    for font in fonts:
        groups.setdefault(font.group, []).append(font)
    # A group with several kinds counts for its most frequent one.
    by_kind: dict[int, list[list[Font]]] = {kind: [] for kind in range(len(KINDS))}
    for group in groups.values():
        counts = Counter(font.kind for font in group)
        by_kind[max(counts, key=lambda kind: (counts[kind], -kind))].append(group)
    used: list[Font] = []
    fractions = np.array([FRACTIONS[split] for split in SPLITS])
    for families in by_kind.values():
        given = np.zeros(len(SPLITS))
        order = generator.permutation(len(families))[:MAX_FAMILIES]
        for number, position in enumerate(order):
            # To the split that lacks most.
            split = int((fractions * (number + 1) - given).argmax())
            given[split] += 1
            for kind in range(len(KINDS)):
                styles = [font for font in families[position] if font.kind == kind]
                for style in generator.permutation(len(styles))[:MAX_STYLES]:
                    styles[style].split = split
                    used.append(styles[style])
    empty = [name for n, name in enumerate(SPLITS) if all(font.split != n for font in used)]
    if empty:
        raise UserError(
            f'{len(groups)} families of fonts leave none for the split {empty[0]}: install more '
            'fonts, see --help'
        )
    return sorted(used, key=lambda font: (font.split, font.family, font.style, font.sha256))


def draw(font: Font, seed: int) -> np.ndarray:
    """Draw all characters of a font, ``(45, 28, 28)`` uint8.

    Height and position are drawn for each image by the seed and the font's own hash, so that they
    do not depend on the other fonts.
    """
    generator = np.random.default_rng([seed, int(font.sha256[:15], 16)])
    height = glyph(open_font(font.path, 256), 'H').shape[0]
    images = []
    for character in CHARACTERS:
        wanted = generator.uniform(*HEIGHTS) * SCALE
        offsets = generator.uniform(-MAX_OFFSET, MAX_OFFSET, 2) * SCALE
        size = max(1, round(256 * wanted / height))
        drawn = glyph(open_font(font.path, size), character)
        extent = max(drawn.shape)
        if extent > MAX_EXTENT * SCALE:
            drawn = glyph(
                open_font(font.path, max(1, int(size * MAX_EXTENT * SCALE / extent))), character
            )
        canvas = Image.new('L', (SIZE * SCALE, SIZE * SCALE))
        # The offset is smaller if the glyph would not be whole.
        free = [(SIZE * SCALE - side) // 2 for side in drawn.shape[::-1]]
        corner = [
            middle + int(np.clip(round(offset), -max(middle, 0), max(middle, 0)))
            for middle, offset in zip(free, offsets)
        ]
        canvas.paste(Image.fromarray(drawn), tuple(corner))
        images.append(np.asarray(canvas.reduce(SCALE)))
    return np.stack(images)


def describe(font: Font, packages: dict[str, dict[str, str]]) -> dict[str, str]:
    """What the record says of a font."""
    package = packages.get(font.package, {})
    return dict(
        file=font.path.name,
        family=font.family,
        style=font.style,
        kind=KINDS[font.kind],
        split=SPLITS[font.split],
        version=font.names.get(5, ''),
        license=font.names.get(13, '')[:300],
        license_url=font.names.get(14, ''),
        copyright=font.names.get(0, '')[:300],
        package=font.package,
        package_version=package.get('version', ''),
        package_license=package.get('license', ''),
        sha256=font.sha256,
    )


def convert(folders: Sequence[str], out: str, seed: int = 0) -> None:
    """Write the data file; the same fonts and seed give the same bytes.

    Raises:
        UserError: If there are no fonts, or too few.
    """
    check_writable(out)
    files = find_files(folders)
    left_out: Counter[str] = Counter()
    fonts: list[Font] = []
    with ProgressBar('fonts') as bar:
        for number, path in enumerate(files):
            try:
                fonts.append(read_font(path))
            except LeftOut as reason:
                left_out[str(reason)] += 1
            bar((number + 1) / len(files))
    # An order that does not depend on where the fonts are.
    fonts.sort(key=lambda font: (font.family, font.style, font.path.name, font.sha256))
    unique = drop_duplicates(fonts)
    left_out['duplicates'] = len(fonts) - len(unique)
    packages = read_packages(unique)
    for font in unique:
        kind = kind_of(font, packages.get(font.package, {}).get('synopsis', ''))
        font.kind = KINDS.index(kind) if kind else -1
    known = [font for font in unique if font.kind >= 0]
    left_out['of an undecided kind'] = len(unique) - len(known)
    if not known:
        raise UserError(f'{", ".join(folders)} has no usable fonts: install more, see --help')
    group_families(known)
    used = assign_splits(known, np.random.default_rng(seed))
    left_out['not drawn by the seed'] = len(known) - len(used)

    per_font = len(CHARACTERS)
    record = dict(
        seed=seed,
        characters=CHARACTERS,
        kinds=list(KINDS),
        pillow=Image.__version__,
        freetype=features.version('freetype2'),
        left_out=dict(sorted(left_out.items())),
        fonts=[describe(font, packages) for font in used],
    )
    arrays = dict(
        images=np.concatenate([draw(font, seed) for font in used]),
        labels=np.tile(np.arange(per_font, dtype=np.uint8), len(used)),
        factors=np.repeat(np.array([font.kind for font in used], np.uint8), per_font),
        split=np.repeat(np.array([font.split for font in used], np.uint8), per_font),
        fonts=np.repeat(np.arange(len(used), dtype=np.int16), per_font),
        record=np.frombuffer(json.dumps(record, indent=1).encode(), np.uint8),
    )
    # Not np.savez, which writes the time into the archive.
    with atomic_open(out) as stream, zipfile.ZipFile(stream, 'w') as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f'{name}.npy')
            archive.writestr(entry, buffer.getvalue(), zipfile.ZIP_DEFLATED, 9)
    print(f'{len(files)} font files; left out:')
    for reason, number in left_out.items():
        print(f'{number:6} {reason}')
    print(f'{len(used)} fonts of {len({font.group for font in used})} families:')
    for kind, name in enumerate(KINDS):
        counts = [sum((f.kind, f.split) == (kind, s) for f in used) for s in range(len(SPLITS))]
        print(f'{name:>8}: ' + ', '.join(f'{n} {split}' for n, split in zip(counts, SPLITS)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--fonts', nargs='+', default=[FOLDER], help=f'folders of fonts (default: {FOLDER})'
    )
    parser.add_argument('--out', required=True, help='file to write, data/glyphs.npz for configs')
    parser.add_argument('--seed', type=int, default=0, help='seed of the draw (default: 0)')
    args = parser.parse_args()
    try:
        convert(args.fonts, args.out, args.seed)
    except UserError as error:
        sys.exit(f'error: {error}')
    except OSError as error:
        sys.exit(f'error: {args.out} cannot be written: {error}')
    print(f'{args.out}: {os.path.getsize(args.out):,} bytes')


if __name__ == '__main__':
    main()
