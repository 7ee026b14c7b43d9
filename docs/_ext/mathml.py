"""Equations as MathML, which browsers draw by themselves: no JavaScript, no fonts, no network."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx


def to_mathml(latex: str, display: str) -> str:
    r"""Convert LaTeX to MathML.

    Args:
        latex: LaTeX without delimiters. Where lines end in ``\\``, they are aligned at ``&``.
        display: ``'inline'`` or ``'block'``.
    """
    latex = re.sub(r'\s+', ' ', latex).strip()
    if '\\\\' in latex and '\\begin' not in latex:
        latex = rf'\begin{{aligned}}{latex}\end{{aligned}}'
    return convert(latex, display=display)


def visit_math(self: Any, node: nodes.math) -> None:
    """Write an equation in the text."""
    self.body.append(to_mathml(node.astext(), 'inline'))
    raise nodes.SkipNode


def visit_displayed(self: Any, node: nodes.math_block) -> None:
    """Write displayed equations; blank lines separate them."""
    self.body.append(self.starttag(node, 'div', CLASS='math'))
    for equation in re.split(r'\n\s*\n', node.astext().strip()):
        self.body.append(to_mathml(equation, 'block'))
    self.body.append('</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer."""
    app.add_html_math_renderer('mathml', (visit_math, None), (visit_displayed, None))
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
