"""The documentation site: `make docs` builds it with Sphinx; decision 29 says why so."""

import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

import generators  # noqa: E402
from generators.checkout import with_links  # noqa: E402
from generators.contents import GLOBS, with_contents  # noqa: E402
from sphinx.ext.napoleon import Config, GoogleDocstring  # noqa: E402

import bascule  # noqa: E402
from bascule.core.documented import Documented  # noqa: E402

project = "Bascule"
author = "The Bascule authors"
version = release = bascule.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton"]
root_doc = "index"
exclude_patterns = ["generators", "_build", "**/.ipynb_checkpoints"]

# Pages are Markdown; headings are linked to as in a checkout. Notebooks are shown as they were committed.
myst_heading_anchors = 4
myst_enable_extensions = ["fieldlist"]
nb_execution_mode = "off"

# Docstrings hold code between single backticks, and types in their signatures.
default_role = "code"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True

# Every link that somebody wrote must lead somewhere. Types in signatures are found by Sphinx and are links where a page
# describes them; others' are not ours to describe, and nothing is fetched.
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]
suppress_warnings = ["ref.python"]  # a short name of a type that several modules have

html_theme = "furo"
html_title = f"Bascule {release}"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_theme_options = {"footer_icons": [], "navigation_with_keys": True}
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
copybutton_copy_empty_lines = False


def setup(app: Any) -> None:
    """Write the generated pages, and give each list of pages its table of contents."""
    generators.write(DOCS)
    app.connect("source-read", _completed)
    app.connect("env-get-outdated", lambda *_: list(GLOBS))
    app.connect("autodoc-process-docstring", _sections)


def _completed(_: Any, page: str, source: list[str]) -> None:
    """A page with its table of contents, and with links that hold on the site."""
    if (DOCS / f"{page}.md").exists():
        text = with_links(f"docs/{page}.md", source[0]) if not page.startswith("checkout/") else source[0]
        source[0] = with_contents(DOCS, page, text)


def _sections(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Args, Returns and Raises as Sphinx writes them.

    Not for fields, of which napoleon would take what stands before the first colon for a type. Fields that `help` tells
    of with their class have an entry of their own here.
    """
    if what == "class" and isinstance(own := vars(thing).get("__doc__"), Documented):
        lines[:] = [*own.splitlines(), ""]
    if what in ("class", "exception", "function", "method"):
        config = Config(napoleon_use_rtype=False)
        lines[:] = GoogleDocstring("\n".join(lines), config, app, what, name, thing, options).lines()
