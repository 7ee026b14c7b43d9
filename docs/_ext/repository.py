"""Pages that GitHub shows too: names of the API become links, other files plain text."""

from __future__ import annotations

import importlib
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

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
# A link to a file outside of docs, such as a config: the site does not have it.
_OUTSIDE = re.compile(r'\[(?P<text>[^\]]+)\]\(\.\./[^)]+\)')


def public_names() -> dict[str, tuple[str, str]]:
    """Page and anchor in the API reference of each public name."""
    found = {}
    for package in PACKAGES:
        module = importlib.import_module(f'ipirm_mm.{package}')
        for name in module.__all__:
            found.setdefault(name, (f'api/{package}', f'ipirm_mm.{package}.{name}'))
    return found


def leave_out_links(app: Sphinx, docname: str, source: list[str]) -> None:
    """Keep the text of links to files that the site does not have."""
    source[0] = _OUTSIDE.sub(r'\g<text>', source[0])


def link_names(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Link public names that stand in the text as code to the API reference."""
    names = public_names()
    for literal in list(doctree.findall(nodes.literal)):
        text = literal.astext().removesuffix('()').removeprefix('ipirm_mm.')
        within = literal.parent
        while within is not None and not isinstance(within, nodes.reference):
            within = within.parent
        place = names.get(text.rpartition('.')[2])
        if within is not None or place is None:
            continue
        page, anchor = place
        address = f'{app.builder.get_relative_uri(docname, page)}#{anchor}'
        literal.replace_self(nodes.reference('', '', literal.deepcopy(), refuri=address))


def skip_fields(
    app: Sphinx, kind: str, name: str, member: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out the fields of named tuples, which their class describes."""
    return True if 'Alias for field number' in (getattr(member, '__doc__', '') or '') else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Register all of it."""
    app.connect('autodoc-skip-member', skip_fields)
    app.connect('source-read', leave_out_links)
    app.connect('doctree-resolved', link_names)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
