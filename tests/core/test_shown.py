"""What a result looks like where it is printed, and in a notebook."""

from __future__ import annotations

import base64
import io
import re
import sys
from collections.abc import Sequence
from html.parser import HTMLParser

import pytest
from PIL import Image

from bascule.core import shown
from bascule.core.grid import Grid, TableCell
from bascule.core.shown import LARGEST, Lines, Part, Picture, Pictures, Shown, html_of, text_of

TABLE = Grid(["Row"], ["A %"], [[TableCell("one"), TableCell("5.0", "4.0 to 6.0")]])


class Well(HTMLParser):
    """Tags that are open, and everything that is said; a tag that closes another one is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.said: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in ("br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)


class Two(Shown):
    def shown(self) -> Sequence[Part]:
        return [TABLE, Lines(["below"]), Lines(["inside"], "A title")]


def test_text_is_the_table_with_the_lines_below_it() -> None:
    assert str(Two()).splitlines() == [
        " Row          A %", " ────────────────", " one          5.0", "       4.0 to 6.0", "", "below", "", "A title",
        "  inside",
    ]  # fmt: skip
    assert repr(Two()) == str(Two())


def test_a_terminal_gets_lines_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "terminal_width", lambda: 40)
    words = "word " * 30
    assert max(map(len, text_of([Lines([words], "Title")], width=40).splitlines())) <= 40
    assert max(map(len, text_of([Lines([words])], width=None).splitlines())) > 140


def test_without_standard_output_there_is_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert shown.terminal_width() is None


def test_html_holds_the_same_and_no_scripts() -> None:
    page = Well(Two()._repr_html_())
    said = " ".join(page.said)
    for word in ("Row", "A %", "one", "5.0", "4.0 to 6.0", "below", "A title", "inside"):
        assert word in said
    assert "script" not in page.seen


def test_what_others_wrote_is_escaped() -> None:
    evil = "<script>alert(1)</script>\x1b[31m\"'"
    picture = Picture(Image.new("L", (2, 2)), evil)
    text = html_of([Grid([evil], [evil], [[TableCell(evil, evil), TableCell(evil)]]), Lines([evil], evil),
                    Pictures([picture], evil)])  # fmt: skip
    page = Well(text)
    assert "script" not in page.seen
    assert "\x1b" not in text
    assert "\x1b" not in text_of([Lines([evil], evil), Pictures([picture])])


def test_no_colour_is_set_but_for_rules_that_both_pages_show() -> None:
    """A dark page has light letters: nothing here brings a colour of its own."""
    text = html_of([TABLE, Lines(["a"], "b"), Pictures([Picture(Image.new("L", (2, 2)), "c")])])
    assert set(re.findall(r"rgba?\([^)]*\)|#[0-9a-f]{3,6}\b", text)) == {"rgba(128,128,128,.35)"}
    assert "background" not in text


def test_a_picture_is_shown_as_it_is_and_named_in_text() -> None:
    image = Image.new("RGB", (8, 4), (10, 20, 30))
    parts = [Pictures([Picture(image, "a trigger")])]
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html_of(parts))
    with Image.open(io.BytesIO(base64.b64decode(data))) as read:
        assert read.size == (8, 4)
        assert read.getpixel((0, 0)) == (10, 20, 30)
    assert 'width="112" height="56"' in html_of(parts)
    assert text_of(parts) == "1 picture, which a notebook shows: a trigger"


@pytest.mark.parametrize(
    "part",
    [
        Grid(["Row"], ["A"] * 40, [[TableCell("name", "interval")] * 41] * 500),
        Lines(["x" * 3000] * 200),
        Pictures([Picture(Image.effect_noise((200, 200), 90), "noise")] * 20),
        Grid(["Row"], ["heading" * 100] * 1000, [[TableCell("name")] * 1001]),
    ],
)
def test_it_stays_small_and_says_what_is_left_out(part: Part) -> None:
    text = html_of([part, Lines(["the end"])])
    Well(text)
    assert len(text) < LARGEST < 200_000
    assert re.search(r"\d+ pieces? more: print it to see all", text)
