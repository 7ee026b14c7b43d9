"""Settings of the documentation site, which `make docs` builds. Nothing in it needs a network."""

import sys
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / '_ext')]

with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # mmcv-lite lacks operators, and MMPretrain says so
    import mmpretrain  # noqa: F401

    import ipirm_mm
    from ipirm_mm.version import __version__

project = 'ipirm_mm'
author = 'the authors of ipirm_mm'
project_copyright = 'the authors of ipirm_mm'
version = release = __version__
language = 'en'

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
    'mathml',  # equations without JavaScript
    'repository',  # pages of other folders; names of the API become links
]
exclude_patterns = ['_build', '_ext']

# Pages are Markdown as GitHub reads it.
myst_enable_extensions = ['dollarmath', 'html_image']
myst_fence_as_directive = ['math']
myst_heading_anchors = 4
highlight_language = 'bash'

# Docstrings are Google's, with types in the signatures.
autodoc_member_order = 'bysource'
autodoc_inherit_docstrings = False
autodoc_default_options = {'members': True, 'show-inheritance': True}
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # fields of tuples and data classes, once
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = 'hide'

html_math_renderer = 'mathml'
html_theme = 'furo'
html_title = f'{ipirm_mm.__name__} {release}'
html_static_path = ['_static']
html_css_files = ['site.css']
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
copybutton_exclude = '.linenos, .gp, .go'


def leave_out_aliases(app, what, name, obj, skip, options):
    """Leave out the fields of named tuples; `Attributes:` of their docstrings has them."""
    return True if (getattr(obj, '__doc__', None) or '').startswith('Alias for field') else None


def setup(app):
    """Connect the handler."""
    app.connect('autodoc-skip-member', leave_out_aliases)
