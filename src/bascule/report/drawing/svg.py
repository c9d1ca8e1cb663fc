"""Drawings by matplotlib. On the page inline SVG: real text, ids that do not clash, colours that follow the page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib import figure
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.text import Text

from bascule.report.drawing.figure import DPI, Figure, Form

INK = "#1b1e22"
"""The colour of text; on the page whatever that is there."""
RULE = "#dfe2e6"
"""The colour of hairlines; on the page whatever that is there."""
TEXT_SIZE = 12
"""Pixels."""

_THEMED = {INK: "currentColor", RULE: "var(--rule)"}
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bascule",
    "pdf.fonttype": 42,  # letters stay letters
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


_FRAMES: ContextVar[dict[Hashable, _Frame] | None] = ContextVar("frames", default=None)
"""Inside a block of `drawing`, the axes that several drawings share."""


@contextmanager
def drawing() -> Iterator[None]:
    """Inside, matplotlib draws the same everywhere, whatever its user has set, and in colours that `svg` knows.

    A block inside another one changes nothing: a page of hundreds of drawings sets all this once.
    """
    if _FRAMES.get() is not None:
        yield
        return
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        token = _FRAMES.set({})
        try:
            yield
        finally:
            _FRAMES.reset(token)


def axes_of(width: int, height: int, *, left: int, right: int, top: int, bottom: int) -> Axes:
    """Axes on a new figure; sizes and borders in pixels. No frame, only a grid."""
    drawn = figure.Figure(figsize=(width / 72, height / 72), dpi=72)
    shares = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    axes = drawn.add_axes(shares)
    axes.spines[:].set_visible(False)
    axes.grid(visible=True)
    return axes


@dataclass(frozen=True, eq=False)
class _Frame:
    """Axes that hold what one drawing after the other puts there: setting them up takes longer than drawing lines."""

    axes: Axes
    own: frozenset[Artist]
    """What belongs to every drawing."""


def shared_axes(key: Hashable, make: Callable[[], Axes]) -> Axes:
    """The axes that `make` gives, made once for all drawings of a page with this key; to be called inside `drawing()`.

    What is put on them must have a colour of its own and leave limits and ticks alone. `svg` takes it off again, and
    the drawing remembers it.
    """
    frames = _FRAMES.get()
    assert frames is not None, "outside of drawing()"
    if key not in frames:
        axes = make()
        frames[key] = _Frame(axes, frozenset(axes.get_children()))
    return frames[key].axes


@dataclass(frozen=True, eq=False)
class Drawing(Figure):
    """A drawing, for the page and for files."""

    axes: Axes
    name: str
    label: str
    texts: Mapping[str, str] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)
    artists: Sequence[Artist] = ()
    """What it puts on axes that it shares."""

    def __html__(self) -> Markup:
        """The element for the page: templates write `{{ drawing }}`."""
        root = self._tree(transparent=True)
        _without_style(root)
        for element in root.iter():
            _themed(element, self.name)
        for gid in self.titles:
            group = next(element for element in root.iter() if element.get("id") == f"{self.name}-{gid}")
            group.attrib |= {"class": "point", "role": "img", "tabindex": "0"}
        if self.titles:  # what is not a mark is said by the label
            for element in root.iter("text"):
                element.set("aria-hidden", "true")
        width, height = root.attrib["viewBox"].split()[2:]
        root.attrib = {
            "class": "chart", "role": "group" if self.titles else "img", "aria-label": self.label,
            "viewBox": f"0 0 {width} {height}", "width": width, "height": height,
        }  # fmt: skip
        return Markup(ElementTree.tostring(root, encoding="unicode"))

    def save(self, path: Path, form: Form) -> None:
        if form == "svg":
            root = self._tree(transparent=False)
            title = ElementTree.Element(f"{{{_SVG}}}title")
            title.text = self.label
            root.insert(0, title)
            text = _sayable(ElementTree.tostring(root, encoding="unicode"))
            path.write_text(text + "\n", encoding="utf-8")
            return
        with drawing(), self._whole(), self._named():
            nothing = {"png": ("Software",), "pdf": ("Creator", "Producer", "CreationDate")}[form]
            self._figure.savefig(path, format=form, dpi=DPI, facecolor="white", metadata=dict.fromkeys(nothing))

    @property
    def _figure(self) -> figure.Figure:
        drawn = self.axes.figure
        assert isinstance(drawn, figure.Figure)
        return drawn

    def _tree(self, *, transparent: bool) -> ElementTree.Element:
        """As matplotlib writes it, with the texts and titles in place."""
        buffer = io.BytesIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        colour = {} if transparent else {"facecolor": "white"}
        with drawing(), self._whole():
            self._figure.savefig(buffer, format="svg", transparent=transparent, metadata=nothing, **colour)
        root = ElementTree.fromstring(buffer.getvalue())
        for element in root.iter():
            if element.text is not None and element.text in self.texts:
                element.text = self.texts[element.text]
        for gid, words in self.titles.items():
            group = next(element for element in root.iter() if element.get("id") == gid)
            title = ElementTree.Element(f"{{{_SVG}}}title")
            title.text = words
            group.insert(0, title)
        ElementTree.indent(root, space="")
        return root

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Inside, shared axes hold what is drawn here."""
        for artist in self.artists:
            clip = artist.get_clip_box()
            self.axes.add_artist(artist)
            artist.set_clip_box(clip)  # texts have none, and would get one
        try:
            yield
        finally:
            for artist in self.artists:
                artist.remove()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Inside, matplotlib draws the texts themselves; dollars in them are dollars."""
        items = [item for item in self._figure.findobj(Text) if item.get_text() in self.texts]
        keys = [item.get_text() for item in items]
        for item, key in zip(items, keys, strict=True):
            item.set(text=self.texts[key], parse_math=False)
        try:
            yield
        finally:
            for item, key in zip(items, keys, strict=True):
                item.set(text=key, parse_math=True)


def svg(
    axes: Axes,
    *,
    name: str,
    label: str,
    texts: Mapping[str, str] | None = None,
    titles: Mapping[str, str] | None = None,
) -> Drawing:
    """What was drawn, for the page and for files; to be called inside `drawing()`.

    Args:
        axes: What to draw.
        name: Unique on the page; put in front of every id, and the name of its files.
        label: What it shows, for those who do not see it.
        texts: Text drawn as the key is shown as the value. Names from a study go through here: on the page matplotlib
            then neither reads formulas in them nor needs a font for their letters.
        titles: What the artist whose gid is the key stands for: shown while the pointer is over it or it has the focus.
    """
    frame = next((one for one in (_FRAMES.get() or {}).values() if one.axes is axes), None)
    if frame is None:
        return Drawing(axes, name, label, texts or {}, titles or {})
    artists = [artist for artist in axes.get_children() if artist not in frame.own]
    for artist in artists:
        artist.remove()
    return Drawing(axes, name, label, texts or {}, titles or {}, artists)


_SVG = "http://www.w3.org/2000/svg"
ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")


def _sayable(words: str) -> str:
    """Without the characters that no XML file may hold; a page may."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", words)


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
