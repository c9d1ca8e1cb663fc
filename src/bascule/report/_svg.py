"""Pictures by matplotlib as inline SVG: real text, ids that do not clash, colours that follow the page."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#010203"
"""Stands for the colour of text, whatever it is on the page."""
RULE = "#040506"
"""Stands for the colour of hairlines."""
TEXT_SIZE = 12
"""Pixels."""

_THEMED = {INK: "currentColor", RULE: "var(--rule)"}
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bascule",
    "font.size": TEXT_SIZE,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.unicode_minus": False,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
    "grid.color": RULE,
    "grid.linewidth": 1,
    "axes.axisbelow": True,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Inside, matplotlib draws the same everywhere, whatever its user has set, and in colours that `svg` knows."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def axes_of(width: int, height: int, *, left: int, right: int, top: int, bottom: int) -> Axes:
    """Axes on a new figure; sizes and borders in pixels. No frame, only a grid."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    shares = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    axes = figure.add_axes(shares)
    axes.spines[:].set_visible(False)
    axes.grid(visible=True)
    return axes


def svg(
    axes: Axes,
    *,
    name: str,
    label: str,
    texts: Mapping[str, str] | None = None,
    titles: Mapping[str, str] | None = None,
) -> Markup:
    """The picture as an element for the page; to be called inside `drawing()`.

    Args:
        axes: What to draw.
        name: Unique on the page; put in front of every id.
        label: What it shows, for those who do not see it.
        texts: Text drawn as the key is shown as the value. Names from a study go through here: matplotlib then neither
            reads formulas in them nor needs a font for their letters.
        titles: Text shown while the pointer is over the artist whose gid is the key.
    """
    buffer = io.BytesIO()
    figure = axes.figure
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)  # type: ignore[union-attr]
    root = ElementTree.fromstring(buffer.getvalue())
    _without_style(root)
    for element in root.iter():
        _themed(element, name)
        if element.text in (texts or {}):
            element.text = (texts or {})[element.text or ""]
    for gid, text in (titles or {}).items():
        group = next(element for element in root.iter() if element.get("id") == f"{name}-{gid}")
        title = ElementTree.Element("title")
        title.text = text
        group.insert(0, title)
    width, height = root.attrib["viewBox"].split()[2:]
    root.attrib = {
        "class": "chart", "role": "img", "aria-label": label, "viewBox": f"0 0 {width} {height}", "width": width,
        "height": height,
    }  # fmt: skip
    ElementTree.indent(root, space="")
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _without_style(root: ElementTree.Element) -> None:
    """Take out matplotlib's style sheet: inside a page its rules would hold everywhere. The page has its own."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith("}style"):
                parent.remove(child)


def _themed(element: ElementTree.Element, name: str) -> None:
    element.tag = element.tag.rpartition("}")[2]
    for key, value in list(element.attrib.items()):
        del element.attrib[key]
        key = key.rpartition("}")[2]
        if key == "id":
            value = f"{name}-{value}"
        elif key == "href":
            value = f"#{name}-{value.removeprefix('#')}"
        elif value.startswith("url(#"):
            value = f"url(#{name}-{value.removeprefix('url(#')}"
        elif key == "style":
            rules = [rule for rule in value.split("; ") if not rule.startswith("font-family")]
            value = "; ".join(rules)
            for sentinel, colour in _THEMED.items():
                value = value.replace(sentinel, colour)
        elif key == "transform" and value.startswith("rotate(-0 "):
            continue
        element.attrib[key] = value
