"""How the documentation is built: Sphinx reads Markdown through MyST, and docstrings through autodoc."""

import importlib
import sys
from pathlib import Path

project = "metaprune"
author = "the metaprune authors"
copyright = "2026, the metaprune authors"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

default_role = "code"  # docstrings are Markdown-like: single backticks are code
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False

sys.path.insert(0, str(Path(__file__).parent))
write_pages = importlib.import_module("methods").write_pages
write_pages(Path(__file__).parent / "methods")  # one for each room of the registry

html_theme = "furo"
html_title = "metaprune"
html_static_path = ["static"]
html_css_files = ["wide.css"]
