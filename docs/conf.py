"""How the documentation is built: Sphinx reads Markdown through MyST, and docstrings through autodoc."""

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

html_theme = "furo"
html_title = "metaprune"
