"""Pictures and the page."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from ipirm_mm.visualization import Table, format_table, partition_grid, write_report


class Images:
    """Grey levels that tell the subset."""

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


def test_table():
    rows = [dict(name='a', x=1.234, y='1 to 2', z='words'), dict(name='long name', x=None)]
    columns = [('name', 'method'), ('x', 'k-NN'), ('y', 'interval'), ('z', 'what it is')]
    assert format_table(rows, columns).splitlines() == [
        'method     k-NN  interval  what it is',
        '-------------------------------------',
        'a           1.2    1 to 2  words',
        'long name     -         -  -',
    ]


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
        '0.50 bits about colour',
    ):
        assert expected in parser.text
