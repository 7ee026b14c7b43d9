"""Glyphs: the converter, on the fonts that matplotlib carries and on fonts made from them."""

from __future__ import annotations

import functools
import importlib.util
import io
import json
import shutil
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont
from helpers import fails_with, partitions, run_tool
from mmpretrain.registry import DATASETS

from ipirm_mm.datasets import Glyphs
from ipirm_mm.datasets.glyphs import CHARACTERS, KINDS, SPLITS
from ipirm_mm.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CONVERTER = ROOT / 'tools/dataset_converters/glyphs.py'
MATPLOTLIB = Path(matplotlib.get_data_path()) / 'fonts/ttf'
FONT = MATPLOTLIB / 'DejaVuSans.ttf'


@functools.cache
def small_font() -> bytes:
    """DejaVu Sans with the characters alone, which is changed and saved faster."""
    font = TTFont(FONT)
    subsetter = Subsetter(Options(notdef_outline=True, name_IDs=['*'], layout_features=[]))
    subsetter.populate(text=f'{CHARACTERS} ')
    subsetter.subset(font)
    stream = io.BytesIO()
    font.save(stream)
    return stream.getvalue()


@pytest.fixture(scope='module')
def converter():
    spec = importlib.util.spec_from_file_location('glyphs_converter', CONVERTER)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # in which its dataclass looks up annotations
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def change(path, source=None, family=None, version=None, cmap=(), panose=None):
    """Write a font with other names, other characters or another PANOSE."""
    font = TTFont(source or io.BytesIO(small_font()))
    for number, text in ((1, family), (16, family), (5, version)):
        if text:
            for entry in font['name'].names:
                if entry.nameID == number:
                    entry.string = text
    for table in font['cmap'].tables:
        for character, other in cmap:
            if other is None:
                table.cmap.pop(ord(character), None)
            elif ord(other) in table.cmap:
                table.cmap[ord(character)] = table.cmap[ord(other)]
    if panose:
        font['OS/2'].panose.bFamilyType, font['OS/2'].panose.bSerifStyle = panose
    font.save(path)


def clone(path, family='Other Name'):
    """Write a font of another name whose characters are a little wider."""
    change(path, family=family)
    font = TTFont(path)
    for character in CHARACTERS:
        outline = font['glyf'][font.getBestCmap()[ord(character)]]
        outline.coordinates.scale((1.1, 1))
        outline.recalcBounds(font['glyf'])
    font.save(path)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Fonts of eight families, of matplotlib; some twice, under another name or broken."""
    folder = tmp_path_factory.mktemp('fonts')
    for name in ('DejaVuSans-Bold', 'DejaVuSerif', 'DejaVuSansMono', 'STIXGeneral'):
        shutil.copy(MATPLOTLIB / f'{name}.ttf', folder)
    for name in ('cmr10', 'cmss10', 'cmtt10', 'cmb10', 'cmti10', 'cmmi10'):
        change(folder / f'{name}.ttf', MATPLOTLIB / f'{name}.ttf', panose=(2, 11))
    for name in ('DejaVuSans', 'again'):
        (folder / f'{name}.ttf').write_bytes(small_font())
    clone(folder / 'clone.ttf')
    change(folder / 'lacks.ttf', family='Lacks', cmap=[('g', None)])
    change(
        folder / 'capitals.ttf', family='Capitals', cmap=[(c, c.upper()) for c in 'abdefghnqrt']
    )
    change(folder / 'one_capital.ttf', family='One Capital', cmap=[('a', 'A')])
    change(folder / 'twice.ttf', family='Twice', cmap=[('Q', 'O')])
    change(folder / 'blank.ttf', family='Blank', cmap=[('B', ' ')])
    (folder / 'broken.otf').write_bytes(small_font()[:1000])
    (folder / 'empty.ttf').touch()
    for name in ('LastResortHE-Regular', 'STIXSizOneSymReg'):
        shutil.copy(MATPLOTLIB / f'{name}.ttf', folder)
    (folder / 'no_font.txt').write_text('hello')
    return folder


@pytest.fixture(scope='module')
def made(folder, tmp_path_factory):
    """The file that a user's command makes, and what the command prints."""
    out = tmp_path_factory.mktemp('made') / 'glyphs.npz'
    finished = run_tool(CONVERTER, '--fonts', folder, '--out', out)
    return out, finished.stdout


def read(path):
    with np.load(path, allow_pickle=False) as data:
        arrays = dict(data)
    return arrays, json.loads(arrays['record'].tobytes())


def test_command_and_what_it_leaves_out(made):
    out, text = made
    arrays, record = read(out)
    left_out = record['left_out']
    assert left_out == {
        'broken': 2,
        'duplicates': 1,
        'not drawn by the seed': 0,
        'of an undecided kind': 0,
        'with an empty or missing glyph': 1,
        'with capitals as small letters': 3,  # LastResort has one picture for all
        'with two characters of the same shape': 1,
        'without one of the characters': 2,
    }
    for reason, number in left_out.items():
        assert f'{number} {reason}' in text
    files = {font['file'] for font in record['fonts']}
    assert sum(left_out.values()) + len(files) == 22
    assert {'lacks.ttf', 'LastResortHE-Regular.ttf', 'STIXSizOneSymReg.ttf'}.isdisjoint(files)
    number = len(record['fonts']) * len(CHARACTERS)
    assert arrays['images'].shape == (number, 28, 28) and arrays['images'].dtype == np.uint8
    assert arrays['labels'].tolist() == list(range(45)) * len(record['fonts'])
    assert out.with_suffix('.npz.part').exists() is False
    for position, font in enumerate(record['fonts']):
        chosen = arrays['fonts'] == position
        assert set(arrays['factors'][chosen]) == {KINDS.index(font['kind'])}
        assert set(arrays['split'][chosen]) == {SPLITS.index(font['split'])}
        assert font['version'] and len(font['sha256']) == 64
    dejavu = next(font for font in record['fonts'] if font['family'].startswith('DejaVu'))
    assert dejavu['version'].startswith('Version 2.3') and 'Bitstream' in dejavu['license']


def test_images_are_whole_centered_and_smooth(made):
    arrays, _ = read(made[0])
    images = arrays['images']
    assert (images.max((1, 2)) > 100).all()
    # The largest extent is 26 pixels, and no glyph leaves the image.
    rows, columns = images.any(2), images.any(1)
    assert (rows.sum(1) <= 27).all() and (columns.sum(1) <= 27).all()
    middle = np.stack(
        [(side.argmax(1) + 27 - side[:, ::-1].argmax(1)) / 2 for side in (rows, columns)]
    )
    assert np.abs(middle - 13.5).max() <= 3 and middle.std(1).min() > 0.5
    assert 0.1 < ((images > 0) & (images < 255)).sum() / (images > 0).sum() < 0.95


def test_same_seed_same_bytes_in_another_folder(converter, made, folder, tmp_path):
    moved = tmp_path / 'a/b'
    shutil.copytree(folder, moved)
    converter.convert([str(moved)], str(tmp_path / 'again.npz'))
    assert (tmp_path / 'again.npz').read_bytes() == made[0].read_bytes()
    converter.convert([str(folder)], str(tmp_path / 'other.npz'), seed=1)
    assert (tmp_path / 'other.npz').read_bytes() != made[0].read_bytes()


def test_a_font_does_not_depend_on_the_others(converter):
    font = converter.read_font(FONT)
    first = converter.draw(font, 0)
    np.testing.assert_array_equal(first, converter.draw(font, 0))
    assert (first != converter.draw(font, 1)).any()


def test_no_family_and_no_clone_is_in_two_splits(made):
    _, record = read(made[0])
    splits = {}
    for font in record['fonts']:
        name = 'dejavu' if font['family'] in ('Other Name',) else font['family'].split()[0].lower()
        splits.setdefault(name, set()).add(font['split'])
    assert {'dejavu', 'stixgeneral'} <= set(splits)
    assert all(len(found) == 1 for found in splits.values()), splits
    assert {font['split'] for font in record['fonts']} == set(SPLITS)


@pytest.mark.parametrize(
    'names,same',
    [
        (['DejaVu Sans', 'DejaVu Serif', 'DejaVu Sans Mono', 'DejaVuSans Condensed'], True),
        (['Roboto', 'Roboto Slab', 'Roboto Condensed Light'], True),
        (['M PLUS 1', 'M PLUS Code Latin 60'], False),
        (['Because We Build', 'Because We Learn'], False),
        (['OCRA', 'OCRABold'], True),
        (['Katalyst active BRK', 'Katalyst inactive BRK'], True),
        (['B612', 'C059'], False),
    ],
)
def test_names_of_one_family(names, same, converter):
    assert (len({converter.family_key(name) for name in names}) == 1) == same


@pytest.mark.parametrize(
    'family,style,panose,fixed,synopsis,kind',
    [
        ('Any', 'Regular', (2, 11), False, '', 'sans'),
        ('Any', 'Regular', (2, 4), False, '', 'serif'),
        ('Any', 'Regular', (3, 0), False, '', 'hand'),
        ('Any', 'Regular', (4, 0), False, '', 'display'),
        ('Any', 'Regular', (2, 0), False, 'humanist sans serif font', 'sans'),
        ('Any', 'Regular', (2, 0), False, 'elegant serif font', 'serif'),
        ('Any', 'Regular', (0, 0), False, 'informal handwriting font', 'hand'),
        # The two disagree; both say nothing.
        ('Any', 'Regular', (2, 4), False, 'humanist sans serif font', None),
        ('Any', 'Regular', (2, 0), False, 'free font for many scripts', None),
        # Names before PANOSE, equal widths before names.
        ('Any Sans', 'Regular', (2, 4), False, '', 'sans'),
        ('Any Script', 'Regular', (2, 11), False, '', 'hand'),
        ('Any Sans', 'Regular', (2, 11), True, '', 'mono'),
        ('Comic Neue', 'Bold', (2, 11), False, '', 'hand'),
        ('OpenDyslexic', 'Bold', (2, 11), False, '', None),
    ],
)
def test_rule_of_the_kind(family, style, panose, fixed, synopsis, kind, converter):
    panose = (*panose, *[0] * 8)
    shapes = np.zeros((45, 16, 16))
    font = converter.Font(Path('a.ttf'), '0', {}, family, style, panose, fixed, shapes)
    assert converter.kind_of(font, synopsis) == kind


@pytest.mark.parametrize(
    'cmap,reason',
    [
        ([('g', None)], 'without one of the characters'),
        ([('B', ' ')], 'with an empty or missing glyph'),
        ([('a', 'A')], 'with capitals as small letters'),
        ([('2', '3')], 'with two characters of the same shape'),
    ],
)
def test_fonts_that_cannot_be_used(cmap, reason, converter, tmp_path):
    change(tmp_path / 'font.ttf', cmap=cmap)
    with pytest.raises(converter.LeftOut, match=reason):
        converter.read_font(tmp_path / 'font.ttf')
    assert converter.read_font(FONT).fixed is False
    assert converter.read_font(MATPLOTLIB / 'DejaVuSansMono.ttf').fixed is True


def test_box_of_a_missing_glyph(converter, tmp_path):
    """A font that has a character, but draws its box for missing glyphs there."""
    font = TTFont(io.BytesIO(small_font()))
    font['glyf']['E'] = font['glyf']['.notdef']
    font.save(tmp_path / 'box.ttf')
    with pytest.raises(converter.LeftOut, match='with an empty or missing glyph'):
        converter.read_font(tmp_path / 'box.ttf')


def test_small_capitals_of_another_drawing(converter):
    """Small letters that are wider capitals are found, though no pixel may be the same."""
    shapes = converter.read_font(FONT).shapes
    generator = np.random.default_rng(0)
    assert converter.why_not_distinct(shapes) is None
    for position, character in enumerate(CHARACTERS):
        if character.islower():
            capital = shapes[CHARACTERS.index(character.upper())]
            noise = generator.uniform(0, 0.1, capital.shape)
            shapes[position] = np.clip(0.9 * capital + noise, 0, 1)
    assert converter.why_not_distinct(shapes) == 'with capitals as small letters'


def test_folders_without_fonts(tmp_path, folder):
    out = tmp_path / 'out/glyphs.npz'
    fails_with(
        run_tool(CONVERTER, '--fonts', tmp_path, '--out', out, check=False), 'has no font files'
    )
    missing = tmp_path / 'missing'
    fails_with(
        run_tool(CONVERTER, '--fonts', missing, '--out', out, check=False),
        f'there is no folder {missing}',
    )
    few = tmp_path / 'few'
    few.mkdir()
    shutil.copy(FONT, few)
    fails_with(
        run_tool(CONVERTER, '--fonts', few, '--out', out, check=False),
        '1 families of fonts leave none for the split train',
    )
    (few / 'DejaVuSans.ttf').write_bytes(b'no font')
    fails_with(
        run_tool(CONVERTER, '--fonts', few, '--out', out, check=False), 'has no usable fonts'
    )
    assert not out.exists() and not list(out.parent.glob('*'))


def test_half_written_files_never_stay(converter, folder, tmp_path, monkeypatch):
    out = tmp_path / 'glyphs.npz'
    out.write_bytes(b'earlier')

    def fail(*_, **__):
        raise OSError('disk full')

    monkeypatch.setattr(converter.zipfile.ZipFile, 'writestr', fail)
    with pytest.raises(OSError, match='disk full'):
        converter.convert([str(folder)], str(out))
    assert [path.name for path in tmp_path.iterdir()] == ['glyphs.npz']
    assert out.read_bytes() == b'earlier'


def test_data_set(made):
    arrays, _ = read(made[0])
    for number, split in enumerate(SPLITS):
        config = dict(type='Glyphs', split=split, data_file=str(made[0]))
        dataset = DATASETS.build(config)
        chosen = np.flatnonzero(arrays['split'] == number)
        assert len(dataset) == len(chosen)
        for position in (0, len(chosen) - 1):
            info = dataset[position]
            assert info['gt_label'] == arrays['labels'][chosen[position]]
            assert info['factor'] == arrays['factors'][chosen[position]]
            assert info['img'].shape == (28, 28, 3) and info['img_path'] == f'{split}/{position}'
            np.testing.assert_array_equal(info['img'][..., 1], arrays['images'][chosen[position]])
    assert len(dataset.metainfo['classes']) == 45


def test_data_set_of_some_kinds(made):
    arrays, _ = read(made[0])
    every = Glyphs(split=SPLITS, data_file=str(made[0]))
    assert len(every) == len(arrays['labels'])
    some = Glyphs(split=SPLITS, kinds=('mono', 'serif'), data_file=str(made[0]))
    wanted = [every[n] for n in range(len(every)) if every[n]['factor'] in (0, 2)]
    assert 0 < len(some) == len(wanted) < len(every)
    for number in (0, len(some) - 1):
        # The same image has the same name, whatever kinds there are.
        assert some[number]['img_path'] == wanted[number]['img_path']
        assert some[number]['sample_idx'] == number
        np.testing.assert_array_equal(some[number]['img'], wanted[number]['img'])
    few = Glyphs(split=SPLITS, kinds='sans', indices=5, data_file=str(made[0]))
    assert [few[n]['factor'] for n in range(5)] == [1] * 5


def test_errors_of_the_data_set(made, tmp_path):
    with pytest.raises(UserError, match=r"Glyphs.kinds must be of .* but is 'gothic'"):
        Glyphs(kinds=['gothic'], data_file=str(made[0]))
    with pytest.raises(UserError, match=r"no images of the kinds \('hand',\) in train"):
        Glyphs(kinds=['hand'], data_file=str(made[0]))
    with pytest.raises(UserError, match='Glyphs.split must be of'):
        Glyphs(split='full', data_file=str(made[0]))
    missing = tmp_path / 'none.npz'
    with pytest.raises(UserError, match=f'{missing} is missing: make it by python tools/'):
        Glyphs(data_file=str(missing))
    for content in (made[0].read_bytes()[:5000], b'', b'hello'):
        missing.write_bytes(content)
        with pytest.raises(UserError, match=f'{missing} is damaged'):
            Glyphs(data_file=str(missing))
    np.savez(missing, images=np.zeros(3))
    with pytest.raises(UserError, match=f'{missing} is damaged'):
        Glyphs(data_file=str(missing))


def test_training_and_test_through_the_tools(made, tmp_path):
    """Stage I with the partition by the kind of font, then k-NN on the test images."""
    data_file = made[0]
    places = [f'{part}_dataloader' for part in ('train', 'val', 'test')]
    places += [f'custom_hooks.1.{part}_dataloader' for part in ('bank', 'query')]
    options = [
        *(f'{place}.dataset.data_file={data_file}' for place in places),
        'train_dataloader.batch_size=32',
        'train_cfg.max_epochs=2',
        'custom_hooks.0.interval=1',
        'model.head.irm_warmup_epochs=1',
        'default_hooks.checkpoint.interval=2',
    ]
    work_dir = tmp_path / 'run'
    config = ROOT / 'configs/glyphs/true_factor_glyphs.py'
    run_tool(ROOT / 'tools/train.py', config, '--work-dir', work_dir, '--cfg-options', *options)
    (partition,) = partitions(work_dir, 2)
    unlabeled = Glyphs(split='unlabeled', data_file=str(data_file))
    assert partition.tolist() == [unlabeled[number]['factor'] for number in range(len(unlabeled))]
