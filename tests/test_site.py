"""The documentation site: built without a warning, complete, and alone in the world."""

from __future__ import annotations

import importlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers import open_in_browser

pytestmark = pytest.mark.slow
pytest.importorskip('sphinx')
pytest.importorskip('latex2mathml')
pytest.importorskip('ziamath')

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = runpy.run_path(str(ROOT / 'docs/_ext/repository.py'))['PACKAGES']


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('site')
    command = [sys.executable, '-W', 'ignore', '-m', 'sphinx', '-b', 'html', '-q', '-W']
    command += ['--keep-going', '-d', str(out / 'doctrees'), 'docs', str(out / 'html')]
    finished = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {'MPLBACKEND': 'Agg'}
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    return out / 'html'


class Loaded(HTMLParser):
    """Addresses that a page loads by itself, and its equations."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.equations = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.equations += tag == 'math'
        if tag in ('script', 'img', 'iframe', 'source', 'video', 'audio'):
            self.addresses.append(values.get('src') or values.get('srcset') or '')
        if tag == 'link' and re.search('stylesheet|icon|preload', values.get('rel') or ''):
            self.addresses.append(values.get('href') or '')


def test_every_public_name_has_an_anchor(site):
    *head, packed = (site / 'objects.inv').read_bytes().split(b'\n', 4)
    assert b'zlib' in head[-1]
    found = set(re.findall(r'^(\S+) py:', zlib.decompress(packed).decode(), re.M))
    missing = {
        f'ipirm_mm.{package}.{name}'
        for package in PACKAGES
        for name in importlib.import_module(f'ipirm_mm.{package}').__all__
    } - found
    assert not missing


def test_search_knows_words(site):
    text = (site / 'searchindex.js').read_text(encoding='utf-8')
    index = json.loads(text[text.index('(') + 1 : text.rindex(')')])
    words = ' '.join([*index['terms'], *index['alltitles'], *index['titleterms']]).lower()
    objects = {entry[4] for entries in index['objects'].values() for entry in entries}
    assert 'PartitionUpdateHook' in objects or 'partitionupdatehook' in words
    assert 'tsharpen' in words
    assert {'method', 'howto', 'api/functional'} <= set(index['docnames'])


def test_no_page_loads_from_the_network(site):
    loads = {}
    for page in site.rglob('*.html'):
        outside = [
            address
            for address in Loaded(page.read_text(encoding='utf-8')).addresses
            if re.match(r'(?:\w+:)?//', address)
        ]
        if outside:
            loads[page.name] = outside
    assert not loads
    for sheet in site.rglob('*.css'):
        assert not re.search(r'(?:url\(|@import)[\s"\']*(?:https?:)?//', sheet.read_text()), sheet


def test_links_between_pages_lead_somewhere(site):
    broken = []
    for page in site.rglob('*.html'):
        for link in re.findall(r'href="([^"#?]+)[#?"]', page.read_text(encoding='utf-8')):
            if not re.match(r'\w+:', link) and not (page.parent / link).exists():
                broken.append(f'{page.relative_to(site)}: {link}')
    assert not broken


def test_equations_lead_to_their_functions(site):
    text = (site / 'method.html').read_text(encoding='utf-8')
    assert Loaded(text).equations > 40
    assert (site / '_static/STIXTwoMath-Regular.ttf').is_file()
    for name in (
        'functional.subset_contrastive_risks',
        'functional.soft_partition_objective',
        'functional.kl_divergence',
        'functional.ofd_distance',
        'functional.crd_loss',
        'functional.merge_scores',
        'models.DistillingClassifier',
        'partition.PartitionSolver',
    ):
        package = name.partition('.')[0]
        assert f'href="api/{package}.html#ipirm_mm.{name}"' in text
    # Each function that the page names by its file is in the API reference: no link is a download.
    assert '_downloads' not in text


def test_every_command_of_equations_is_known(site):
    """The converter writes a command that it does not know as it is."""
    unknown = set()
    for page in site.rglob('*.html'):
        for equation in re.findall(r'<math.*?</math>', page.read_text(encoding='utf-8'), re.S):
            unknown |= set(re.findall(r'\\\w+', re.sub(r'<[^>]*>', ' ', equation)))
    assert not unknown


def test_there_is_a_howto_of_each_tool():
    text = (ROOT / 'docs/howto.md').read_text(encoding='utf-8')
    tools = [*ROOT.glob('tools/**/*.py'), *ROOT.glob('tools/dist_*.sh')]
    assert not [path.name for path in tools if path.relative_to(ROOT).as_posix() not in text]


@pytest.mark.skipif(shutil.which('chromium') is None, reason='needs chromium')
@pytest.mark.parametrize('page', ['index.html', 'method.html'])
def test_browser_has_nothing_to_complain_about(site, page, tmp_path):
    assert open_in_browser(site / page, 1280, tmp_path / 'page.png') == []
    assert (tmp_path / 'page.png').stat().st_size > 10_000
