"""How the documents are built: `make docs`, into docs/_build/html."""

import sys
from pathlib import Path

import bbmmopt

sys.path.insert(0, str(Path(__file__).parent))

project = "bbmmopt"
author = "The bbmmopt authors"
copyright = author
version = release = bbmmopt.__version__

extensions = [
    "myst_nb",  # pages in Markdown; those with code cells are executed
    "sphinx.ext.autodoc",
    "plain_docstrings",  # before napoleon: docstrings are plain text, not reStructuredText
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # formulas are drawn without anything from outside
    "sphinx_click",
    "sphinx_copybutton",
    "sphinx_design",  # columns side by side
]
exclude_patterns = ["_build"]
nitpicky = False

# What a page says is what came out: a cell that raises ends the build.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_show_tb = True
nb_execution_timeout = 240
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}
autodoc_inherit_docstrings = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
smartquotes = False  # or "none" could not be copied
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"bbmmopt {version}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_copy_source = False
html_show_sphinx = False
