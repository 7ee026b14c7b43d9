"""Equations as MathML, which browsers draw by themselves: no JavaScript, no network.

They need a font with a table of mathematics, which few machines have. So the site carries STIX Two
Math, from the package ziamath.
"""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from pathlib import Path
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
    latex = re.sub(r'\\log\s+(?=[a-zA-Z]|\\(?:frac|sum|hat))', r'\\log\\, ', latex)
    latex = re.sub(r'(\\text\{[^{}]*?)\\_', r'\1_', latex)
    latex = re.sub(r'\\[lr]Vert\b', r'\\|', latex)  # which the converter does not know
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


def copy_font(app: Sphinx, error: Exception | None) -> None:
    """Put the font beside the style sheets, where `site.css` looks for it."""
    spec = find_spec('ziamath')
    if error is None and spec is not None and spec.origin is not None:
        font = Path(spec.origin).parent / 'fonts/STIXTwoMath-Regular.ttf'
        shutil.copyfile(font, Path(app.outdir) / '_static/STIXTwoMath-Regular.ttf')


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer, `html_math_renderer = 'mathml'`."""
    app.add_html_math_renderer('mathml', (visit_math, None), (visit_displayed, None))
    app.connect('build-finished', copy_font)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
