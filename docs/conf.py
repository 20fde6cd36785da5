"""Configuration of the documentation's site: `sphinx-build -W -n docs build/docs`."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_extensions"))

import worldmodels_fast  # noqa: E402

project = "worldmodels_fast"
author = "The worldmodels_fast developers"
project_copyright = author
version = release = worldmodels_fast.__version__
html_title = f"worldmodels_fast {version}"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "docstrings",  # these and the rest: docs/_extensions
    "links",
    "mathml",
    "package_pages",
]
exclude_patterns = ["_extensions"]
nitpicky = True

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 4

add_module_names = False  # the heading has them
python_maximum_signature_line_length = 90
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"

# All that a page needs is in the site: no fonts, scripts or pictures from elsewhere.
html_theme = "furo"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
