"""The report as a reader meets it: parsed, whole, and what its parts say."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bascule.record.run import RunRecord
from bascule.report import words
from bascule.report.page.page import Live, write_page
from bascule.report.words import SPACE
from findings import EVIDENCE
from records import Spec, record_of

VOID = {"meta", "link", "br", "img"}
Attributes = dict[str, str]


class Page(HTMLParser):
    """The parsed page; refuses tags that are not balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.elements: list[tuple[str, Attributes]] = []
        self.texts: list[tuple[tuple[int, ...], str]] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((tuple(self._open), data))

    def all(self, tag: str, **wanted: str) -> list[Attributes]:
        """Attributes of the elements with this tag and these attributes."""
        return [has for name, has in self.elements if name == tag and wanted.items() <= has.items()]

    def text(self, tag: str = "body", **wanted: str) -> list[str]:
        """The text of each element with this tag and these attributes, spaces made one."""
        places = [
            place for place, (name, has) in enumerate(self.elements) if name == tag and wanted.items() <= has.items()
        ]
        found = ("".join(text for path, text in self.texts if place in path) for place in places)
        return [" ".join(text.split()) for text in found]

    def section(self, name: str) -> str:
        """The text of one panel."""
        return self.text("section", id=name)[0]


def read_page(runs: Sequence[RunRecord], output: Path, live: Live | None = None) -> Page:
    """The page of some runs, written and parsed."""
    return Page(write_page(runs, output, live=live).read_text(encoding="utf-8"))


def page_of(tmp_path: Path, *rows: Spec, **plan: Any) -> Page:
    output = tmp_path / "out" / "report.html"
    run = record_of(tmp_path / "run", rows, **plan)
    assert write_page([run], output) == output
    return Page(output.read_text(encoding="utf-8"))


def pages_of(tmp_path: Path, runs: dict[str, Sequence[Spec]], **plans: dict[str, Any]) -> Page:
    records = [record_of(tmp_path / name, specs, **plans.get(name, {})) for name, specs in runs.items()]
    page = read_page(records, tmp_path / "page.html")
    check_whole(page)
    return page


def check_whole(page: Page) -> None:
    """Ids are unique, what refers to an id finds it, nothing is fetched."""
    ids = [has["id"] for _, has in page.elements if "id" in has]
    assert len(ids) == len(set(ids))
    for tag, has in page.elements:
        for key in ("href", "clip-path", "aria-labelledby"):
            target = has.get(key, "").removeprefix("url(").removesuffix(")").removeprefix("#")
            assert not target or target == "data:," or target in ids
        assert has.get("src", "data:").startswith("data:")
        assert tag != "img" or has.get("alt")
        assert not {"srcset", "action", "background", "poster", "srcdoc"} & set(has)
        assert not [key for key in has if key.startswith("on")]
        assert not re.search(r"url\((?!#)", has.get("style", ""))
    assert not re.search(r"@import|url\(", page.text("style")[0])
    assert page.all("object") == page.all("iframe") == []
    (script,) = page.all("script")
    assert script == {}
    (own,) = re.findall(r"<script>(.*?)</script>", page.source, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].endswith(f"script-src 'sha256-{digest}'")
    assert policy["content"].startswith("default-src 'none';")


def sections(run: RunRecord, path: Path) -> dict[str, str]:
    """The source of the panels of evidence that the page has."""
    page = read_page([run], path / "page.html")
    check_whole(page)
    found = re.findall(r'<section id="(\w+)".*?>\n(.*?)</section>', page.source, flags=re.DOTALL)
    return {name: body for name, body in found if name in EVIDENCE}


def said(source: str) -> str:
    """The text of a panel, cells of tables apart."""
    bare = re.sub(r"<[^>]+>", "", re.sub(r"</t[dh]>|<span class=\"under\">", " | ", source))
    return " ".join(html.unescape(bare).replace("\xa0", " ").replace(SPACE, " ").replace("\N{EN DASH}", "-").split())


def pictures(source: str) -> dict[str, np.ndarray]:
    """The pixels of the pictures by their text alternative."""
    found = {}
    for uri, alt in re.findall(r'<img class="pixels" src="data:image/png;base64,([^"]+)"[^>]*alt="([^"]*)"', source):
        with Image.open(io.BytesIO(base64.b64decode(uri))) as image:
            found[html.unescape(alt)] = np.asarray(image.convert("RGBA"))
    return found


def plain(text: str) -> str:
    return text.replace(words.SPACE, " ")
