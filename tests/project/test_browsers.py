"""The rule by which tests that want a browser are skipped, or refused where one is required."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import browsers

ROOT = Path(__file__).parents[2]


class Item(NamedTuple):
    """As much of a collected test as the rule looks at."""

    marks: list[str]
    given: list[pytest.MarkDecorator]

    def get_closest_marker(self, name: str) -> str | None:
        return name if name in self.marks else None

    def add_marker(self, mark: pytest.MarkDecorator) -> None:
        self.given.append(mark)


@pytest.fixture
def items() -> list[Item]:
    return [Item([], []), Item(["browser"], []), Item(["browser", "data"], [])]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str | None], None]:
    """(BASCULE_BROWSER, the browser that is there)"""

    def change(wanted: str, browser: str | None) -> None:
        monkeypatch.setenv("BASCULE_BROWSER", wanted)
        monkeypatch.setattr(browsers, "find_chromium", lambda: browser)

    return change


def test_without_a_browser_only_what_wants_one_is_skipped(items: list, world: Callable) -> None:
    world("", None)
    browsers.skip_without_browser(items)
    assert [[mark.name for mark in item.given] for item in items] == [[], ["skip"], ["skip"]]


@pytest.mark.parametrize("wanted", ["", "required"])
def test_with_a_browser_nothing_is_skipped(items: list, world: Callable, wanted: str) -> None:
    world(wanted, "/usr/bin/chromium")
    browsers.skip_without_browser(items)
    assert not any(item.given for item in items)


def test_a_required_browser_that_is_not_there_is_one_error(items: list, world: Callable) -> None:
    world("required", None)
    said = "BASCULE_BROWSER=required, and there is no Chromium for 2 tests: .* or run `make browser`"
    with pytest.raises(pytest.UsageError, match=said):
        browsers.skip_without_browser(items)
    browsers.skip_without_browser(items[:1])


def test_a_misspelt_wish_is_refused(items: list, world: Callable) -> None:
    world("1", "/usr/bin/chromium")
    with pytest.raises(pytest.UsageError, match="BASCULE_BROWSER is '1'; it may be 'required', or absent"):
        browsers.skip_without_browser(items)


def test_ci_looks_for_the_browser_that_the_tests_look_for() -> None:
    script = (ROOT / ".ci" / "browser").read_text(encoding="utf-8")
    (names,) = re.findall(r"^if command -v (.+?) >", script, flags=re.MULTILINE)
    assert tuple(names.split()) == browsers.NAMES
