"""Sphinx configuration: MyST pages, the API from numpydoc docstrings, tables from the code."""

import inspect
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import generate

from adatom import __version__

project = "adatom"
author = "the adatom authors"
copyright = author  # noqa: A001 (the name that Sphinx reads)
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "**/_generated"]
nitpicky = False  # docstrings name types of packages whose inventories are not fetched

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
default_role = "py:obj"  # single backticks link to the object where there is one

autodoc_typehints = "none"  # the signature has them
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "furo"
html_title = "adatom"
html_static_path = ["_static"]
html_css_files = ["wide-tables.css"]
html_theme_options = {"navigation_with_keys": True}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def give_types_to_returns(_app, _what, _name, obj, _options, lines) -> None:
    """Put the annotated type before a Returns section that is prose alone.

    numpydoc takes the first line of that section for a type. Our docstrings say what comes back
    and leave its type to the annotation.
    """
    text = [line.rstrip() for line in lines]
    if "Returns" not in text or text[text.index("Returns") + 1].strip("-"):
        return
    start = text.index("Returns") + 2
    stop = next(
        (i - 1 for i in range(start, len(text)) if text[i] and not text[i].strip("-")), len(text)
    )
    body = text[start:stop]
    if any(line.startswith(" ") for line in body):
        return
    function = obj.fget if isinstance(obj, property) else obj
    returned = inspect.signature(function).return_annotation
    lines[start:stop] = [str(returned), *(f"    {line}" if line else "" for line in body)]


def setup(app) -> None:
    """Write the generated pages before Sphinx reads any."""
    app.connect("builder-inited", lambda app: generate.write_all(Path(app.srcdir)))
    app.connect("autodoc-process-docstring", give_types_to_returns, priority=100)
