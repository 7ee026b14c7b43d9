"""The site as one with the repository: pages of other folders, and links to source code.

Pages are written for GitHub, so their links are paths within the repository. Here

* the Markdown pages of other folders are copied to ``docs/_repository`` before a build, and links
  to them lead there;
* a link to a file of the package whose text is a public name leads to the API reference, and so
  does each public name that stands in the text as code;
* other files become downloads, and folders lose their link.
"""

from __future__ import annotations

import importlib
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
COPIES = 'docs/_repository'
FOLDERS = ('', 'benchmarks', 'configs', 'projects', 'ipirm_mm')
PACKAGES = (
    'apis',
    'functional',
    'partition',
    'datasets',
    'models',
    'evaluation',
    'visualization',
    'engine',
    'utils',
)
LINK = re.compile(r'(?P<before>\[(?P<text>[^\]]*)\]\()(?P<target>[^)\s]+)\)')
# In the text, these are keys of configs.
CONFIG_KEYS = {'tta_pipeline'}
# What a name may stand in without becoming a link.
LEFT_ALONE = (nodes.reference, nodes.title, addnodes.pending_xref)
FENCE = re.compile(r'^(```.*?^```\n)', re.M | re.S)


def public_names() -> dict[str, str]:
    """Full name of each public name of the package."""
    names = {}
    for package in PACKAGES:
        module = importlib.import_module(f'ipirm_mm.{package}')
        for name in module.__all__:
            names.setdefault(name, f'ipirm_mm.{package}.{name}')
    return names


def pages() -> dict[str, str]:
    """Place in the site of each Markdown page of the repository, both as paths within it."""
    found = {'README.md': 'docs/index.md'}
    for folder in FOLDERS:
        pattern = '**/*.md' if folder else '*.md'
        for path in sorted((ROOT / folder).glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            found.setdefault(name, f'{COPIES}/{name}')
    return found


def translate(text: str, page: str, places: dict[str, str], names: dict[str, str]) -> str:
    """Rewrite the links of a page to where things are in the site.

    Args:
        text: Markdown.
        page: Path of the page within the repository.
        places: Places of pages, from :func:`pages`.
        names: From :func:`public_names`.
    """
    here = posixpath.dirname(places.get(page, page))

    def link(match: re.Match) -> str:
        path, hash_, anchor = match['target'].partition('#')
        if not path or re.match(r'\w+:', path):
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
        name = match['text'].strip('`')
        if target.startswith('ipirm_mm/') and name in names:
            return f'{{py:obj}}`{name} <{names[name]}>`'
        if (ROOT / target / 'README.md').is_file():
            target = f'{target}/README.md'
        elif (ROOT / target).is_dir():
            return match['text']
        place = posixpath.relpath(places.get(target, target), here)
        return f'{match["before"]}{place}{hash_}{anchor})'

    parts = FENCE.split(text)
    parts[::2] = [LINK.sub(link, part) for part in parts[::2]]
    return ''.join(parts)


def copy_pages(app: Sphinx) -> None:
    """Copy pages of other folders into the site; unchanged ones stay untouched."""
    places, names = pages(), public_names()
    for page, place in places.items():
        if not place.startswith(COPIES):
            continue
        text = translate((ROOT / page).read_text(encoding='utf-8'), page, places, names)
        text = f'---\norphan: true\n---\n\n{text}'
        copy = ROOT / place
        if not copy.is_file() or copy.read_text(encoding='utf-8') != text:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(text, encoding='utf-8')
    for copy in sorted((ROOT / COPIES).rglob('*.md')):
        if copy.relative_to(ROOT).as_posix() not in places.values():
            copy.unlink()


def translate_page(places: dict[str, str], names: dict[str, str]) -> Callable:
    """Make the handler that rewrites links of the pages of ``docs``."""

    def translate_source(app: Sphinx, docname: str, source: list[str]) -> None:
        if not docname.startswith('_repository'):
            source[0] = translate(source[0], f'docs/{docname}.md', places, names)

    return translate_source


def link_names(names: dict[str, str]) -> Callable:
    """Make the handler that turns public names in the text into links to the API reference."""

    def link_literals(app: Sphinx, document: nodes.document) -> None:
        if app.env.docname.startswith('api/'):
            return
        for literal in list(document.findall(nodes.literal)):
            name = literal.astext().removesuffix('()')
            if name not in names or name in CONFIG_KEYS or isinstance(literal.parent, LEFT_ALONE):
                continue
            reference = addnodes.pending_xref(
                '',
                refdomain='py',
                reftype='obj',
                reftarget=names[name],
                refexplicit=True,
                refdoc=app.env.docname,
            )
            literal.replace_self(reference)
            reference += literal

    return link_literals


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the handlers."""
    places, names = pages(), public_names()
    app.connect('builder-inited', copy_pages)
    app.connect('source-read', translate_page(places, names))
    app.connect('doctree-read', link_names(names))
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
