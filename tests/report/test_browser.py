"""The page as a reader meets it, in a real browser where there is one: pointer, keyboard, finger, phone and paper."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, Error, Locator, Page, Request, expect, sync_playwright

from bascule.record.run import RunRecord
from bascule.report.page.page import Live, write_page
from browsers import find_chromium

PATIENCE = 60_000
POINTS, TIP = ".point[id^=tradeoff]", "figure:not(.maps figure) .tip"
"""The marks of the trade-off picture, and what names them; maps have their own."""
"""Milliseconds that a slow machine may take for any one thing."""
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 3}

pytestmark = pytest.mark.browser
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def report(tiny_run: RunRecord, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page([tiny_run], tmp_path_factory.mktemp("page") / "r.html")


@pytest.fixture(scope="module")
def several(tiny_run: RunRecord, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    other = RunRecord(Path(shutil.copytree(tiny_run.path, folder / "another-run-of-the-same-study")))
    return write_page([tiny_run, other], folder / "r.html")


@pytest.fixture(scope="module")
def browser(report: Path, several: Path) -> Iterator[Browser]:
    """One process for all; the pages come first, since runs are not made inside the driver's event loop."""
    with sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])


class Visit(NamedTuple):
    """A window on a page, what the browser complained about, and everything that it was told to fetch besides."""

    page: Page
    complaints: list[str]
    requests: list[Request]

    def asked(self) -> list[str]:
        """The addresses of what the page's own rule did not keep the browser from asking for, reached or not."""
        return [request.url for request in self.requests if request.failure != "csp"]


@contextmanager
def visiting(browser: Browser, file: Path, *, clock: bool = False, **options: Any) -> Iterator[Visit]:
    """A reader's first visit, cut off from the network; with `clock`, time can be made to pass."""

    def note(request: Request) -> None:
        if request.url != file.as_uri():
            visit.requests.append(request)

    context = browser.new_context(offline=True, **options)
    try:
        context.set_default_timeout(PATIENCE)
        visit = Visit(context.new_page(), [], [])
        context.on("request", note)
        context.on("console", lambda message: visit.complaints.append(message.text))
        context.on("weberror", lambda error: visit.complaints.append(str(error.error)))
        if clock:
            visit.page.clock.install()
        visit.page.goto(file.as_uri())
        yield visit
    finally:
        context.close()


@contextmanager
def reading(browser: Browser, file: Path, **options: Any) -> Iterator[Page]:
    """A visit during which the browser must complain about nothing, and nobody may be asked for anything."""
    with visiting(browser, file, **options) as visit:
        yield visit.page
        assert visit.complaints == []
        assert visit.asked() == []


def changed(file: Path, folder: Path, old: str, new: str) -> Path:
    """A copy of the page in which `new` stands once for `old`."""
    text, done = re.subn(old, lambda _: new, file.read_text(encoding="utf-8"), count=1)
    assert done == 1
    copy = folder / "changed.html"
    copy.write_text(text, encoding="utf-8")
    return copy


def test_the_page_loads_without_a_complaint_and_its_script_may_run(browser: Browser, report: Path) -> None:
    with reading(browser, report) as page:
        expect(page.locator("table.joint").get_by_role("button")).to_have_count(7)


def test_nothing_but_convenience_is_missing_without_script(browser: Browser, report: Path) -> None:
    with reading(browser, report, java_script_enabled=False) as page:
        expect(page.locator("table.joint tbody")).to_have_count(4)
        expect(page.locator("table.joint").get_by_role("button")).to_have_count(0)
        expect(page.locator(f"{POINTS} title")).to_have_count(4)


def test_another_script_may_not_run(browser: Browser, report: Path, tmp_path: Path) -> None:
    file = changed(report, tmp_path, "</body>", "<script>document.title = 1</script></body>")
    with visiting(browser, file) as (page, complaints, _):
        expect(page).to_have_title(re.compile("Bascule"))
        (complaint,) = complaints
        assert complaint.startswith("Executing inline script violates")


POLICY = '<meta http-equiv="Content-Security-Policy"[^>]*>'
FOREIGN = '<img src="http://example.org/dot.png" alt=""><main'


@pytest.mark.parametrize("runs", ["report", "several"])
def test_nothing_is_asked_of_the_network_even_where_it_would_be_allowed(
    browser: Browser, runs: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with reading(browser, changed(request.getfixturevalue(runs), tmp_path, POLICY, "")) as page:
        page.keyboard.press("End")
        expect(page.locator("#reading")).to_be_in_viewport()


def test_a_picture_from_elsewhere_would_be_seen(browser: Browser, report: Path, tmp_path: Path) -> None:
    foreign = changed(report, tmp_path, "<main", FOREIGN)
    with visiting(browser, foreign) as visit:
        assert visit.asked() == []  # the page's own rule forbids it
        assert "example.org" in visit.complaints[0]
    with visiting(browser, changed(foreign, tmp_path, POLICY, "")) as visit:
        assert visit.asked() == ["http://example.org/dot.png"]


def top(element: Locator) -> float:
    """Pixels from the window's upper edge."""
    place: float = element.evaluate("element => element.getBoundingClientRect().top")
    return place


class Table:
    """The joint table, as its reader sees it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.table = page.locator("table.joint")
        self.said = page.get_by_role("status")

    def button(self, name: str) -> Locator:
        return self.table.get_by_role("button", name=re.compile(f"^{re.escape(name)}"))

    def column(self, place: int) -> list[str]:
        """The values of one column from above to below."""
        values: list[tuple[float, str]] = self.table.locator("tbody").evaluate_all(
            f"""bodies => bodies.map((body) => [
              body.getBoundingClientRect().top, body.rows[0].cells[{place}].dataset.value
            ])"""
        )
        return [value for _, value in sorted(values, key=lambda value: value[0])]

    def numbers(self, place: int) -> list[float]:
        return [float(value) for value in self.column(place)]

    def orders(self) -> list[str | None]:
        orders: list[str | None] = self.table.locator("thead th").evaluate_all(
            "cells => cells.map((cell) => cell.getAttribute('aria-sort'))"
        )
        return orders


def tab_to(page: Page, wanted: Locator) -> None:
    """Press Tab until `wanted` has the focus, as a reader without a pointer must."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if wanted.evaluate("element => element === document.activeElement"):
            return
    pytest.fail(f"{wanted} is out of the keyboard's reach")


def test_the_table_is_sorted_by_pointer(browser: Browser, report: Path) -> None:
    with reading(browser, report) as page:
        table = Table(page)
        accuracies = table.numbers(2)
        assert table.column(1) == ["0.01", "0.001"] * 2
        table.button("Accuracy").click()
        expect(table.said).to_have_text("Sorted by Accuracy, descending.")
        assert table.numbers(2) == sorted(accuracies, reverse=True)
        assert table.orders() == [None, None, "descending", *[None] * 4]
        table.button("Accuracy").click()
        expect(table.said).to_have_text("Sorted by Accuracy, ascending.")
        assert table.numbers(2) == sorted(accuracies)
        table.button("train.lr").click()
        expect(table.said).to_have_text("Sorted by train.lr, ascending.")
        assert table.column(1) == ["0.001", "0.001", "0.01", "0.01"]
        assert table.orders() == [None, "ascending", *[None] * 5]


def test_the_table_is_sorted_by_keyboard(browser: Browser, report: Path) -> None:
    with reading(browser, report) as page:
        table = Table(page)
        accuracies = table.numbers(2)
        button = table.button("train.lr")
        tab_to(page, button)
        page.keyboard.press("Enter")
        expect(table.said).to_have_text("Sorted by train.lr, ascending.")
        page.keyboard.press("x")
        assert table.column(1) == ["0.001", "0.001", "0.01", "0.01"]
        top = page.evaluate("scrollY")
        page.keyboard.press(" ")
        expect(table.said).to_have_text("Sorted by train.lr, descending.")
        assert table.column(1) == ["0.01", "0.01", "0.001", "0.001"]
        page.keyboard.press(" ")
        expect(table.said).to_have_text("In the order of the study.")
        assert table.column(1) == ["0.01", "0.001"] * 2
        assert table.numbers(2) == accuracies
        assert table.orders() == [None] * 7
        assert page.evaluate("scrollY") == top  # Space does not turn the page as well
        expect(button).to_be_focused()


def test_the_table_is_sorted_by_finger(browser: Browser, report: Path) -> None:
    with reading(browser, report, **PHONE) as page:
        table = Table(page)
        table.button("Row").tap()
        expect(table.said).to_have_text("Sorted by Row, ascending.")
        assert table.column(0) == sorted(table.column(0))


def test_unknown_numbers_are_last_in_both_orders(browser: Browser, report: Path) -> None:
    with reading(browser, report) as page:
        table = Table(page)
        table.table.locator("tbody").first.evaluate("body => { body.rows[0].cells[2].dataset.value = ''; }")
        for order in ("descending", "ascending"):
            table.button("Accuracy").click()
            expect(table.said).to_have_text(f"Sorted by Accuracy, {order}.")
            *known, last = table.column(2)
            assert last == ""
            assert [float(value) for value in known] == sorted(map(float, known), reverse=order == "descending")


def test_flags_move_with_their_row(browser: Browser, report: Path) -> None:
    with reading(browser, report) as page:
        table = Table(page)
        bodies = table.table.locator("tbody")
        before = [" ".join(text.split()) for text in bodies.all_inner_texts()]
        assert all("two seeds: intervals over seeds are very wide" in text for text in before)
        for order in ("ascending", "descending"):
            table.button("Row").click()
            expect(table.said).to_have_text(f"Sorted by Row, {order}.")
        after = [" ".join(text.split()) for text in bodies.all_inner_texts()]
        assert before != after
        assert sorted(before) == sorted(after)
        heads, flags = (bodies.locator(f"tr{kind}").all() for kind in (":first-child", ".flags"))
        tops = [top(row) for pair in zip(heads, flags, strict=True) for row in pair]
        assert tops == sorted(tops)


def within_the_window(page: Page, element: Locator) -> bool:
    """Whether all of an element can be seen without scrolling."""
    inside: bool = element.evaluate(
        """element => {
          const { left, right, top, bottom, height } = element.getBoundingClientRect();
          const root = document.documentElement;
          return height > 20 && left >= 0 && top >= 0 && right <= root.clientWidth && bottom <= innerHeight;
        }"""
    )
    return inside


def test_marks_are_named_by_pointer(browser: Browser, report: Path) -> None:
    with reading(browser, report) as page:
        tip, points, lit = page.locator(TIP), page.locator(POINTS), page.locator(".legend .on")
        expect(points).to_have_count(4)
        expect(tip).to_be_hidden()
        last = points.last  # nothing lies on top of it
        name = last.get_attribute("aria-label") or ""
        assert name.startswith(r"Width $\frac$ <4> · train.lr 0.001: robust accuracy ")
        last.locator("use").hover()
        expect(tip).to_have_text(name)
        expect(lit).to_have_attribute("data-mark", "tradeoff-mark-3")
        expect(page.locator(f"{POINTS} title")).to_have_count(0)  # the browser's own box would come as well
        assert within_the_window(page, tip)
        page.keyboard.press("Escape")
        expect(tip).to_be_hidden()
        expect(lit).to_have_count(0)
        page.get_by_role("heading", level=1).hover()
        last.locator("use").hover()
        expect(tip).to_be_visible()
        page.get_by_role("heading", level=1).hover()
        expect(tip).to_be_hidden()
        expect(lit).to_have_count(0)
        page.locator(".legend li").first.hover()
        expect(page.locator(f"{POINTS}.on")).to_have_id("tradeoff-mark-0")


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
def test_marks_are_named_by_keyboard(browser: Browser, report: Path, options: dict[str, Any]) -> None:
    with reading(browser, report, **options) as page:
        tip, points, lit = page.locator(TIP), page.locator(POINTS), page.locator(".legend .on")
        tab_to(page, points.first)
        for number, point in enumerate(points.all()):
            if number:
                page.keyboard.press("Tab")
            expect(point).to_be_focused()
            expect(tip).to_have_text(point.get_attribute("aria-label") or "")
            expect(lit).to_have_attribute("data-mark", f"tradeoff-mark-{number}")
            assert within_the_window(page, tip)
        page.keyboard.press("Escape")
        expect(tip).to_be_hidden()
        expect(lit).to_have_count(0)
        expect(points.last).to_be_focused()
        page.keyboard.press("Shift+Tab")
        expect(tip).to_have_text(points.nth(2).get_attribute("aria-label") or "")
        for _ in range(2):
            page.keyboard.press("Tab")
        expect(tip).to_be_hidden()


def test_marks_are_named_by_finger(browser: Browser, report: Path) -> None:
    with reading(browser, report, **PHONE) as page:
        tip, last = page.locator(TIP), page.locator(POINTS).last
        last.locator("use").tap()
        expect(tip).to_have_text(last.get_attribute("aria-label") or "")
        assert within_the_window(page, tip)
        page.get_by_role("heading", name="The trade-off").tap()
        expect(tip).to_be_hidden()


def test_the_name_of_a_mark_at_the_edge_of_the_window_can_be_read(browser: Browser, report: Path) -> None:
    with reading(browser, report) as page:
        tip, mark = page.locator(TIP), page.locator(POINTS).last.locator("use")
        mark.evaluate("mark => scrollBy({ top: mark.getBoundingClientRect().top - 4, behavior: 'instant' })")
        mark.hover()
        expect(tip).to_be_visible()
        assert within_the_window(page, tip)


def broken(names: Locator) -> list[str]:
    """Words of names that do not stand on one line."""
    words: list[str] = names.evaluate_all(
        """names => names.flatMap((name) => [...name.textContent.matchAll(/[^\\s-]+/g)].filter((word) => {
          const range = document.createRange();
          range.setStart(name.firstChild, word.index);
          range.setEnd(name.firstChild, word.index + word[0].length);
          return new Set([...range.getClientRects()].map((line) => line.top)).size > 1;
        }).map((word) => word[0]))"""
    )
    return words


@pytest.mark.parametrize("runs", ["report", "several"])
@pytest.mark.parametrize("width", [390, 800, 1400])
def test_nothing_is_wider_than_the_screen(
    browser: Browser, runs: str, width: int, request: pytest.FixtureRequest
) -> None:
    options = PHONE if width == 390 else {"viewport": {"width": width, "height": 900}}
    with reading(browser, request.getfixturevalue(runs), **options) as page:
        page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true;")
        root = page.locator("html")
        assert root.evaluate("root => [innerWidth, root.clientWidth, root.scrollWidth]") == [width] * 3
        joint, name = page.locator(".scroll:has(.joint)"), page.locator(".joint tbody th").first
        name.scroll_into_view_if_needed()
        joint.evaluate("region => { region.scrollLeft = region.scrollWidth; }")
        moved = joint.evaluate("region => region.scrollLeft")
        assert broken(page.locator(".joint tbody .name")) == []
        if width == 390:  # the names stay while the numbers move
            assert moved > 100
            assert name.bounding_box()["x"] == joint.bounding_box()["x"]
        else:
            assert name.evaluate("name => getComputedStyle(name).position") == "static"


CONTRAST = """() => {
  const colour = (text) => text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255);
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = getComputedStyle(at).backgroundColor;
      if (!found.endsWith(", 0)")) return light(colour(found));
    }
  };
  const texts = [...document.querySelectorAll(
    "h1, h2, h3, p, li, dt, dd, th, td, a, figcaption, summary, code, .under, .tip, svg text"
  )].filter((text) => !text.closest(".maps svg"));  // these stand on squares: tests/report/panels/test_maps.py
  const written = (text) => colour(getComputedStyle(text)[text.localName === "text" ? "fill" : "color"]);
  const page = light(colour(getComputedStyle(document.body).backgroundColor));
  return [page, Math.min(...texts.map((text) => contrast(light(written(text)), behind(text))))];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(browser: Browser, several: Path, scheme: str) -> None:
    with reading(browser, several) as page:
        page.emulate_media(color_scheme=scheme)
        lightness, least = page.evaluate(CONTRAST)
        assert (lightness > 0.5) == (scheme == "light")
        assert least >= 4.5  # WCAG 2, level AA


def test_the_page_prints(browser: Browser, report: Path, tmp_path: Path) -> None:
    with reading(browser, report, color_scheme="dark") as page:
        data = page.pdf(format="A4")
        assert data.startswith(b"%PDF")
        assert 1 <= len(re.findall(rb"/Type /Page\b", data)) <= 8
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        expect(page.get_by_role("navigation")).to_be_hidden()


A4, A5 = (round((millimetres - 20) * 96 / 25.4) for millimetres in (210, 148))
"""Pixels across a sheet between margins of a centimetre."""


@pytest.mark.parametrize("sheet", [A4, A5])
def test_the_joint_table_fits_on_paper(browser: Browser, several: Path, sheet: int) -> None:
    with reading(browser, several, viewport={"width": sheet, "height": 900}) as page:
        page.emulate_media(media="print")
        names = page.locator(".joint tbody .name")
        expect(names).to_have_count(8)
        assert broken(names) == []
        if sheet == A4:
            assert page.evaluate("document.documentElement.scrollWidth") == sheet
        first = names.first
        first.evaluate("name => { name.textContent = 'x'.repeat(200); }")  # a word that must be broken
        assert broken(names) == ["x" * 200]
        assert first.bounding_box()["width"] < sheet / 2


FAR = 3600
"""Seconds between two looks: nothing happens until the clock is told to go on."""


@pytest.fixture
def live(tiny_run: RunRecord, tmp_path: Path) -> Path:
    return write_page([tiny_run], tmp_path / "r.html", live=Live(datetime(2024, 5, 6, tzinfo=UTC), every=FAR))


def pass_time(page: Page) -> None:
    """Let the time until the next look go by, after which the page must be as it was."""
    page.evaluate("window.same = true; navigation.addEventListener('navigate', () => { window.same = false; });")
    page.clock.fast_forward(1000 * FAR)
    assert page.evaluate("window.same")


def pass_time_and_load(page: Page, seconds: int = FAR) -> None:
    """Let time go by, after which the page must be loaded anew."""
    with page.expect_event("load"), suppress(Error):  # a page may be gone before it says that the time has passed
        page.clock.fast_forward(1000 * seconds)


def test_a_page_that_goes_on_is_loaded_anew_and_looks_as_it_was_left(
    browser: Browser, tiny_run: RunRecord, live: Path
) -> None:
    with reading(browser, live, clock=True, viewport={"width": 1000, "height": 700}) as page:
        table, folds, heading = (
            Table(page),
            page.locator("details"),
            page.get_by_role("heading", name="The joint table"),
        )
        expect(folds).to_have_count(3)
        folds.last.locator("summary").click()
        for _ in range(2):
            table.button("Accuracy").click()
        heading.evaluate("heading => scrollBy({ top: heading.getBoundingClientRect().top, behavior: 'instant' })")
        place = top(heading)
        expect(page.locator("time")).to_contain_text("2024-05-06")
        write_page([tiny_run], live, live=Live(datetime(2024, 5, 7, tzinfo=UTC), every=FAR))
        for last in (False, True):
            pass_time_and_load(page)
            expect(page.locator("time")).to_have_text([] if last else [re.compile("2024-05-07")])
            expect(table.said).to_have_text("Sorted by Accuracy, ascending.")
            assert table.numbers(2) == sorted(table.numbers(2))
            assert table.orders() == [None, None, "ascending", *[None] * 4]
            assert [fold.get_attribute("open") is not None for fold in folds.all()] == [False, False, True]
            assert abs(top(heading) - place) < 1
            write_page([tiny_run], live)  # whose header is less high
        pass_time(page)
        page.reload()  # by its reader, who wants it as it was made
        assert table.orders() == [None] * 7


def test_a_page_that_goes_on_does_not_disturb_its_reader(browser: Browser, live: Path) -> None:
    with reading(browser, live, clock=True) as page:
        heading = page.get_by_role("heading", level=1)
        heading.click(click_count=3)
        assert page.evaluate("getSelection().toString().trim()") == heading.inner_text()
        pass_time(page)
        heading.click()
        assert page.evaluate("getSelection().isCollapsed")
        pass_time_and_load(page, seconds=1)


def test_a_finished_page_is_not_loaded_anew(browser: Browser, report: Path) -> None:
    with reading(browser, report, clock=True) as page:
        pass_time(page)
