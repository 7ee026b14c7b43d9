"""What the HTML pages share: one file each, without scripts or files beside it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import jinja2

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent, encoding='utf-8'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """Fill in a template of this folder.

    Args:
        template: Its file name.
        **values: What it names; they are escaped.

    Returns:
        The page.
    """
    return _ENVIRONMENT.get_template(template).render(**values)


def data_url(png: bytes) -> str:
    """A picture as an address that holds the picture itself.

    Args:
        png: Content of a PNG file.

    Returns:
        The address.
    """
    return f'data:image/png;base64,{base64.b64encode(png).decode()}'
