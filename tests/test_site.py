"""The documentation site: it builds without a warning, has every public name, and needs no network."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT, open_in_browser

pytestmark = pytest.mark.slow
PACKAGES = (
    'functional',
    'partition',
    'datasets',
    'models',
    'evaluation',
    'visualization',
    'engine',
    'apis',
    'utils',
)


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    pytest.importorskip('sphinx')
    out = tmp_path_factory.mktemp('site')
    command = [sys.executable, '-W', 'ignore', '-m', 'sphinx', '-q', '-W', '--keep-going']
    finished = subprocess.run(
        [*command, '-b', 'html', ROOT / 'docs', out], capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return out


@pytest.mark.parametrize('package', PACKAGES)
def test_every_public_name_is_in_the_reference(site, package):
    page = (site / f'api/{package}.html').read_text()
    anchors = set(re.findall(r'id="([\w.]+)"', page))
    names = importlib.import_module(f'ipirm_mm.{package}').__all__
    missing = [name for name in names if f'ipirm_mm.{package}.{name}' not in anchors]
    constants = [name for name in missing if name.isupper()]
    assert missing == constants, missing


def test_names_in_the_text_lead_to_the_reference(site):
    page = (site / 'equations.html').read_text()
    for name in ('subset_contrastive_risks', 'soft_partition_objective', 'merge_scores'):
        assert f'href="api/functional.html#ipirm_mm.functional.{name}"' in page
    assert page.count('<math') > 20 and '$$' not in page


def test_the_site_needs_no_network_and_can_be_searched(site):
    loaded = r'<(?:script|img|link rel="stylesheet"|iframe)[^>]*(?:src|href)="(?:https?:)?//'
    for page in site.rglob('*.html'):
        assert not re.search(loaded, page.read_text()), page
    assert 'partitionupdatehook' in (site / 'searchindex.js').read_text()


@pytest.mark.skipif(not shutil.which('chromium'), reason='needs Chromium')
@pytest.mark.parametrize('width', [1280, 390])
@pytest.mark.parametrize('name', ['index', 'equations', 'api/partition'])
def test_pages_in_a_browser(site, tmp_path, name, width):
    assert open_in_browser(site / f'{name}.html', width, tmp_path / 'page.png') == []
