"""How Sphinx builds these pages: ``sphinx-build -W -b html docs docs/_build``.

hpcpipe must be installed beside Sphinx: ``pip install '.[docs]'``.
"""

import sys
from pathlib import Path

import hpcpipe

sys.path.insert(0, str(Path(__file__).parent))  # for facts.py

project = "hpcpipe"
author = "the hpcpipe developers"
copyright = author
version = release = hpcpipe.__version__

extensions = ["sphinx.ext.autodoc", "sphinx_click", "facts"]
exclude_patterns = ["_build"]
default_role = "py:obj"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
toc_object_entries = False

html_theme = "alabaster"
html_theme_options = {
    "description": "Workflow graphs as the fewest possible job arrays",
    "fixed_sidebar": True,
    "page_width": "1080px",
}
html_show_sourcelink = False
