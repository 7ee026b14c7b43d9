"""Pictures and reports of partitions, tables, and the page of results."""

from __future__ import annotations

import html
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from ipirm_mm.functional import mutual_information, normalized_mutual_information
from ipirm_mm.partition import PartitionResult
from ipirm_mm.visualization import (
    SampleImages,
    Table,
    format_markdown,
    format_table,
    partition_grid,
    partition_record,
    write_report,
)


class Images:
    """Gray levels that tell the subset."""

    def __init__(self, assignment):
        self.assignment = assignment
        self.read = 0

    def __getitem__(self, index):
        self.read += 1
        return np.full((8, 8, 3), 10 + 40 * int(self.assignment[index]), np.uint8)


@pytest.mark.parametrize('num_subsets', [2, 5, 30])
def test_grid_shows_the_images_of_the_subsets(num_subsets):
    assignment = torch.arange(3000) % num_subsets
    images = Images(assignment.clamp(max=5))
    picture = partition_grid(images, assignment, title='A partition')
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    assert images.read == 24 * min(num_subsets, 20)
    for subset in range(min(num_subsets, 5)):
        level = 10 + 40 * subset
        assert (picture == level).all(2).sum() >= 24 * 44 * 44 * 0.9


def test_grid_of_a_small_and_an_empty_subset():
    assignment = torch.tensor([0] * 10 + [2])
    assert partition_grid(Images(assignment), assignment).shape[0] > 100


class Packed:
    """A data set whose samples are packed already, ``(C, H, W)``."""

    def __init__(self, *images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return dict(inputs=torch.from_numpy(self.images[index]))


GRAY = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)


@pytest.mark.parametrize(
    'image',
    [
        GRAY,
        np.concatenate((GRAY, 255 - GRAY)),  # with an alpha channel
        np.repeat(GRAY, 3, axis=0),
        GRAY.astype(np.float32),
        GRAY.astype(np.uint16) * 257,
        GRAY.astype(np.float32) / 255,
        (GRAY.astype(np.float32) - 73) / 90,
    ],
    ids=['gray', 'gray and alpha', 'color', 'float', '16 bits', 'up to 1', 'normalized'],
)
def test_gray_images_look_the_same_in_every_format(image):
    (shown,) = SampleImages(Packed(image))
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown, np.repeat(GRAY[0][..., None], 3, axis=2))


def test_colors_are_those_of_the_image():
    color = np.stack((GRAY[0], 255 - GRAY[0], GRAY[0] // 2))
    for image in (color, np.concatenate((color, GRAY)), color.astype(np.uint16) * 257):
        (shown,) = SampleImages(Packed(image))
        np.testing.assert_array_equal(shown, color[::-1].transpose(1, 2, 0))  # BGR
    assert not SampleImages(Packed(np.zeros((1, 4, 4), np.float32)))[0].any()


def test_table():
    rows = [dict(name='a', x=1.234, y='1 to 2', z='words'), dict(name='long name', x=None)]
    columns = [('name', 'method'), ('x', 'k-NN'), ('y', 'interval'), ('z', 'what it is')]
    assert format_table(rows, columns).splitlines() == [
        'method     k-NN  interval  what it is',
        '-------------------------------------',
        'a           1.2    1 to 2  words',
        'long name     -         -  -',
    ]
    assert format_markdown(rows, columns).splitlines() == [
        '| method | k-NN | interval | what it is |',
        '| --- | --- | --- | --- |',
        '| a | 1.2 | 1 to 2 | words |',
        '| long name | - | - | - |',
    ]


def test_record_of_a_partition():
    assignment = torch.arange(60) % 3
    result = PartitionResult(
        assignment, 1.5, [], 'kmeans', sizes=[20, 20, 20], nmi=[0.25], seconds=2.0
    )
    labels = torch.arange(60) % 6
    record = partition_record(result, 2, 10, dict(gt_label=labels, sample_idx=assignment))
    assert record == dict(
        number=2,
        epoch=10,
        strategy='kmeans',
        objective=1.5,
        sizes=[20, 20, 20],
        nmi_with_earlier=[0.25],
        seconds=2.0,
        bits_about_class=pytest.approx(float(mutual_information(assignment, labels))),
        nmi_with_class=pytest.approx(float(normalized_mutual_information(assignment, labels))),
    )
    assert record['bits_about_class'] == pytest.approx(np.log2(3))


def test_page_escapes_every_value(tmp_path):
    """Names, notes, captions and settings are text, also those that look like HTML."""
    picture = tmp_path / 'p.png'
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(picture)
    hostile = '"><script>alert(1)</script>&'
    record = dict(method=hostile, number=1, epoch=0, sizes=[1], objective=0.0, picture=picture)
    write_report(
        tmp_path / 'index.html',
        title=hostile,
        tables=[Table(hostile, [dict(name=hostile)], [('name', hostile)], [hostile])],
        curves={hostile: {}},
        partitions=[record],
        settings={hostile: hostile},
    )
    page = (tmp_path / 'index.html').read_text()
    assert '<script' not in page and hostile not in page
    # Title twice, the table's title, heading, cell and note, the plot's and the picture's caption
    # each in the figure and its alternative text, the setting's name and value.
    assert html.unescape(page).count(hostile) == 2 + 4 + 2 * 2 + 2


def test_page_without_a_partition_or_notes(tmp_path):
    table = Table('T', [dict(name='a')], [('name', 'method')])
    write_report(tmp_path / 'index.html', 'T', [table], {'loss': {}}, [], {})
    page = (tmp_path / 'index.html').read_text()
    assert 'No partition was found.' in page and '<ul>' not in page


def test_page_is_self_contained(tmp_path):
    picture = tmp_path / 'p.png'
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(picture)
    columns = [('name', 'method'), ('knn', 'k-NN')]
    write_report(
        tmp_path / 'sub' / 'index.html',
        title='T < U',
        tables=[
            Table('Stage I', [dict(name='SimCLR', knn=50.04)], columns, ['A note.']),
            Table('Stage II', [dict(name='IP-IRM & more', knn=60.0)], columns),
        ],
        curves={'loss': {'SimCLR': [(1, 2.0), (2, 1.0)], 'none yet': []}},
        partitions=[
            dict(
                method='IP-IRM',
                number=1,
                epoch=5,
                sizes=[3, 4],
                objective=9.0,
                bits_about_factor=0.5,
                nmi_with_earlier=[0.25],
                picture=picture,
            )
        ],
        settings=dict(command='make demo'),
    )
    assert [path.name for path in (tmp_path / 'sub').iterdir()] == ['index.html']
    page = (tmp_path / 'sub' / 'index.html').read_text()

    class Parser(HTMLParser):
        text, sources = '', []

        def handle_starttag(self, tag, attrs):
            self.sources += [v for k, v in attrs if k in ('src', 'href')]
            assert tag != 'script'

        def handle_data(self, data):
            self.text += data

    parser = Parser()
    parser.feed(page)
    assert all(source.startswith('data:image/png;base64,') for source in parser.sources)
    assert len(parser.sources) == 2
    for expected in (
        'T < U',
        'IP-IRM & more',
        '50.0',
        'make demo',
        'A note.',
        'Stage II',
        '0.50 bits about color',
    ):
        assert expected in parser.text
