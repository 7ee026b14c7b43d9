"""Settings of the documentation site, which `make docs` builds. Nothing in it needs a network."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / '_ext')]

from ipirm_mm.version import __version__  # noqa: E402

project = 'ipirm_mm'
author = project_copyright = 'the ipirm_mm maintainers'
version = release = __version__
extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
    'mathml',  # equations without JavaScript
    'repository',  # names of the API become links
]
exclude_patterns = ['_build', '_ext']

# Pages are Markdown as GitHub reads it.
myst_enable_extensions = ['dollarmath', 'html_image']
myst_fence_as_directive = ['math']
myst_heading_anchors = 4
highlight_language = 'bash'

autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes of data classes are described once
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = 'hide'

html_math_renderer = 'mathml'
html_theme = 'furo'
html_title = f'{project} {release}'
html_static_path = ['_static']
html_css_files = ['site.css']
html_copy_source = html_show_sourcelink = html_show_sphinx = False
