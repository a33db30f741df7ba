"""Sphinx's settings of the site; `make_site.py` lays out its sources and says in which language."""

from __future__ import annotations

import os

from cliptune import __version__

_LANGUAGE = os.environ["CLIPTUNE_DOCS_LANGUAGE"]

project = "cliptune"
copyright = "the cliptune authors; MIT licence"
version = release = __version__
language = {"en": "en", "zh": "zh_CN"}[_LANGUAGE]
root_doc = "docs/index"

extensions = [
    "sphinx.ext.autodoc",
    "myst_parser",
    "mathml",
    "chinese_search",
    "docstrings",
    "references",
    "result_plots",
]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
smartquotes = False  # options begin with two hyphens
default_role = "code"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types of other libraries have no page here

html_theme = "furo"
html_title = f"cliptune {__version__}"
html_search_language = {"en": "en", "zh": "zh-bigrams"}[_LANGUAGE]
templates_path = ["templates"]
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["offline.js"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"top_of_page_buttons": ["view"]}
html_context = {
    "other_language": {"en": "zh", "zh": "en"}[_LANGUAGE],
    "other_language_name": {"en": "简体中文", "zh": "English"}[_LANGUAGE],
    "other_language_tag": {"en": "zh-CN", "zh": "en"}[_LANGUAGE],
}
