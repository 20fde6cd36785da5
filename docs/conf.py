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
    "sphinx.ext.napoleon",
    "links",  # the rest: docs/_extensions
    "mathml",
    "package_pages",
]
exclude_patterns = ["_extensions"]
nitpicky = True

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Names of other packages stand in signatures; their documentation is not here to link to.
_OTHER_PACKAGES = (
    "abc|argparse|cma|collections|concurrent|contextlib|dataclasses|enum|gymnasium|h5py|io|"
    "logging|matplotlib|minari|multiprocessing|np|numpy|npt|pathlib|PIL|rich|safetensors|"
    "subprocess|threading|torch|types|typing|tyro|vizdoom"
)
_BUILTINS = (
    "bool|bytes|callable|complex|dict|float|frozenset|int|list|None|object|set|slice|str|tuple|"
    r"type|[A-Z]\w*(Error|Exception|Warning|Interrupt|Exit)|optional|Ellipsis"
)
nitpick_ignore_regex = [(r"py:.*", rf"({_OTHER_PACKAGES})(\..*)?"), (r"py:.*", _BUILTINS)]

# All that a page needs is in the site: no fonts, scripts or pictures from elsewhere.
html_theme = "furo"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
