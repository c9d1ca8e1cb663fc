"""The page in a real browser, where there is one: no network, sorting, names of marks, narrow screens, print."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bascule.report.page import Live, write_page
from bascule.study.record import RunRecord

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


@pytest.fixture(scope="module")
def page(tiny_run: RunRecord, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_page([tiny_run], tmp_path_factory.mktemp("page") / "r.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def several(tiny_run: RunRecord, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("several")
    other = RunRecord(Path(shutil.copytree(tiny_run.path, folder / "another-run-of-the-same-study")))
    return write_page([tiny_run, other], folder / "r.html").read_text(encoding="utf-8")


def browse(folder: Path, page: str, *options: str) -> str:
    """The document as the browser has it at last; it must have complained about nothing and asked nobody."""
    found, complaints, seen = visit(folder, page, *options)
    assert complaints == []
    assert seen == []
    return found


def visit(folder: Path, page: str, *options: str) -> tuple[str, list[str], list[str]]:
    """The document, what the browser complained about, and the addresses that the page asked for, reached or not."""
    file, log = folder / "page.html", folder / "net.json"
    file.write_text(page, encoding="utf-8")
    assert CHROMIUM is not None
    words = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}",
        "--enable-logging=stderr", f"--log-net-log={log}", "--host-resolver-rules=MAP * ~NOTFOUND", *options,
        file.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line], requests(log)


def requests(log: Path) -> list[str]:
    """The addresses in Chromium's own log of the network that a page asked for; it asks for its own ends too."""
    found = json.loads(log.read_text(encoding="utf-8"))
    kind = found["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    starts = [event["params"] for event in found["events"] if event["type"] == kind and "params" in event]
    return [start["url"] for start in starts if "url" in start and start["initiator"] != "not an origin"]


def asked(folder: Path, page: str, script: str, *options: str) -> Any:
    """What a script that is added to the page answers; it may run only because the page's own rule is widened."""
    page, widened = re.subn(r"script-src '[^']*'", "script-src 'unsafe-inline'", page, count=1)
    assert widened
    answer = f"<script>document.body.dataset.answer = JSON.stringify((() => {{ {script} }})())</script></body>"
    found = browse(folder, page.replace("</body>", answer), "--dump-dom", *options)
    match = re.search(r'<body data-answer="([^"]*)"', found)
    assert match, "the script failed"
    return json.loads(html.unescape(match.group(1)))


def test_the_page_loads_without_a_complaint_and_its_script_may_run(page: str, tmp_path: Path) -> None:
    found = browse(tmp_path, page, "--dump-dom")
    assert found.count('<span class="sort" tabindex="0" role="button">') == 7


def test_another_script_may_not_run(page: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="Executing inline script violates"):
        browse(tmp_path, page.replace("</body>", "<script>document.title = 1</script></body>"), "--dump-dom")


POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
FOREIGN = '<img src="http://example.org/dot.png" alt="">'


def test_nothing_is_asked_of_the_network_even_where_it_would_be_allowed(several: str, tmp_path: Path) -> None:
    free, taken = POLICY.subn("", several)
    assert taken == 1
    assert "example.org" not in browse(tmp_path, free, "--dump-dom")


def test_a_picture_from_elsewhere_would_be_seen(page: str, tmp_path: Path) -> None:
    foreign = page.replace("<main", FOREIGN + "<main")
    _, _, seen = visit(tmp_path, POLICY.sub("", foreign), "--dump-dom")
    assert seen == ["http://example.org/dot.png"]
    _, complaints, seen = visit(tmp_path, foreign, "--dump-dom")
    assert seen == []  # the page's own rule forbids it
    assert "example.org" in complaints[0]


SORT = """
const table = document.querySelector("table.joint");
const buttons = [...table.querySelectorAll(".sort[role=button]")];
const button = (name) => buttons.find((found) => found.textContent.includes(name));
const column = (place) => [...table.tBodies].map((body) => body.rows[0].cells[place].dataset.value);
const sorts = () => [...table.tHead.rows[0].cells].map((cell) => cell.getAttribute("aria-sort"));
const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key }));
const said = () => document.querySelector("[role=status]").textContent;
"""


def test_the_table_can_be_sorted(page: str, tmp_path: Path) -> None:
    script = (
        SORT
        + """
    const seen = [];
    const look = () => seen.push([column(1), column(2), sorts(), said()]);
    look();
    button("Accuracy").focus(); button("Accuracy").click(); look();
    press("Enter"); look();
    button("train.lr").focus(); press("Enter"); look();
    press(" "); press("x"); press(" "); look();
    return seen;
    """
    )
    start, best, worst, rates, end = asked(tmp_path, page, script)
    assert start[0] == ["0.01", "0.001"] * 2
    numbers = [float(value) for value in start[1]]
    assert [float(value) for value in best[1]] == sorted(numbers, reverse=True)
    assert best[2][2] == "descending"
    assert best[3] == "Sorted by Accuracy, descending."
    assert [float(value) for value in worst[1]] == sorted(numbers)
    assert rates[0] == ["0.001", "0.001", "0.01", "0.01"]
    assert rates[2] == [None, "ascending", *[None] * 5]
    assert (end[0], end[1]) == (start[0], start[1])
    assert end[2] == [None] * 7
    assert end[3] == "In the order of the study."


def test_unknown_numbers_are_last_in_both_orders(page: str, tmp_path: Path) -> None:
    script = (
        SORT
        + """
    table.tBodies[0].rows[0].cells[2].dataset.value = "";
    button("Accuracy").click();
    const best = column(2).at(-1);
    button("Accuracy").click();
    return [best, column(2).at(-1)];
    """
    )
    assert asked(tmp_path, page, script) == ["", ""]


def test_flags_move_with_their_row(page: str, tmp_path: Path) -> None:
    script = (
        SORT
        + """
    const rows = () => [...table.tBodies].map((body) => body.textContent.replace(/\\s+/g, " "));
    const before = rows();
    button("Row").click(); button("Row").click();
    return [before, rows()];
    """
    )
    before, after = asked(tmp_path, page, script)
    assert before != after
    assert sorted(before) == sorted(after)


def test_marks_are_named_by_pointer_and_keyboard(page: str, tmp_path: Path) -> None:
    script = """
    const points = [...document.querySelectorAll(".point")];
    const tip = document.querySelector(".tip");
    const lit = () => [...document.querySelectorAll(".legend .on")].map((entry) => entry.dataset.mark);
    const seen = [[tip.hidden, points.map((point) => point.getAttribute("aria-label")), document.title]];
    points[0].dispatchEvent(new PointerEvent("pointerenter"));
    seen.push([tip.hidden, tip.textContent, lit()]);
    points[0].dispatchEvent(new PointerEvent("pointerleave"));
    seen.push([tip.hidden, lit()]);
    points[2].focus();
    seen.push([tip.hidden, tip.textContent, lit()]);
    const box = tip.getBoundingClientRect();
    seen.push(box.left >= 0 && box.right <= innerWidth && box.height > 20);
    document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
    seen.push([tip.hidden, document.activeElement === points[2], document.querySelectorAll(".point title").length]);
    return seen;
    """
    start, pointed, left, focused, inside, escaped = asked(tmp_path, page, script)
    names = start[1]
    assert start[0] is True
    assert len(names) == 4
    assert names[0].startswith("None · train.lr 0.01: robust accuracy ")
    assert pointed == [False, names[0], ["tradeoff-mark-0"]]
    assert left == [True, []]
    assert focused == [False, names[2], ["tradeoff-mark-2"]]
    assert inside
    assert escaped == [True, True, 0]


@pytest.mark.parametrize(("runs", "width"), [("page", 390), ("page", 800), ("page", 1400), ("several", 390)])
def test_nothing_is_wider_than_the_screen(
    runs: str, tmp_path: Path, width: int, request: pytest.FixtureRequest
) -> None:
    page = request.getfixturevalue(runs)
    # In a frame, since a window has a smallest width.
    script = """
    const root = document.documentElement;
    return [root.clientWidth, root.scrollWidth, getComputedStyle(document.querySelector(".joint tbody th")).position];
    """
    inner = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", page, count=1)
    report = f"<script>parent.postMessage((() => {{ {script} }})(), '*')</script></body>"
    inner = html.escape(inner.replace("</body>", report))
    outer = (
        "<!DOCTYPE html><body><script>onmessage = (m) => { document.body.dataset.answer = JSON.stringify(m.data); }"
        f'</script><iframe style="border: 0; width: {width}px; height: 800px" srcdoc="{inner}"></iframe></body>'
    )
    found = browse(tmp_path, outer, "--dump-dom", "--window-size=1600,900")
    match = re.search(r'<body data-answer="([^"]*)"', found)
    assert match
    client, scroll, position = json.loads(html.unescape(match.group(1)))
    assert client == scroll == width
    assert position == ("sticky" if width == 390 else "static")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(page: str, tmp_path: Path, scheme: str) -> None:
    script = """
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
    const texts = [...document.querySelectorAll("h1, h2, h3, p, dt, dd, th, td, a, figcaption, summary, code, .under")];
    const page = light(colour(getComputedStyle(document.body).backgroundColor));
    const least = Math.min(...texts.map((text) => contrast(light(colour(getComputedStyle(text).color)), behind(text))));
    return [page, least];
    """
    number = {"dark": 0, "light": 1}[scheme]
    lightness, least = asked(tmp_path, page, script, f"--blink-settings=preferredColorScheme={number}")
    assert (lightness > 0.5) == (scheme == "light")
    assert least >= 4.5  # WCAG 2, level AA


def test_the_page_prints(page: str, tmp_path: Path) -> None:
    browse(tmp_path, page, "--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'page.pdf'}")
    data = (tmp_path / "page.pdf").read_bytes()
    assert data.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type /Page\b", data)) <= 8


FIRST = """<script>
const times = Number(sessionStorage.getItem("times") ?? 0) + 1;
sessionStorage.setItem("times", times);
if (times === 3) document.body.dataset.every = 1000;
</script>"""
"""Runs before the page's own script, and puts the next load off."""
LEFT = """
const state = () => [
  times, scrollY, [...document.querySelectorAll("details")].map((fold) => fold.open),
  [...document.querySelectorAll("th[aria-sort]")].map((found) => [found.innerText, found.getAttribute("aria-sort")]),
];
if (times === 1) {
  document.querySelectorAll("details")[1].open = true;
  const button = [...document.querySelectorAll(".sort")].find((found) => found.textContent.includes("Accuracy"));
  button.click();
  button.click();
  scrollTo({ top: 500, behavior: "instant" });
}
document.body.dataset.answer = JSON.stringify(state());
"""


def kept(page: str, folder: Path, *options: str) -> Any:
    """What a page looks like after some seconds, when it was sorted, unfolded and moved at its first load."""
    page, widened = re.subn(r"script-src '[^']*'", "script-src 'unsafe-inline'", page, count=1)
    assert widened
    script = f"<script>addEventListener('load', () => {{ {LEFT} }})</script></body>"
    page = page.replace("</body>", script).replace("<script>", f"{FIRST}<script>", 1)
    found = browse(folder, page, "--dump-dom", "--virtual-time-budget=3500", "--window-size=1000,700", *options)
    match = re.search(r'<body[^>]* data-answer="([^"]*)"', found)
    assert match
    return json.loads(html.unescape(match.group(1)))


def test_a_page_that_goes_on_is_loaded_anew_and_looks_as_it_was_left(tiny_run: RunRecord, tmp_path: Path) -> None:
    live = Live(datetime(2024, 5, 6, tzinfo=UTC), every=1)
    page = write_page([tiny_run], tmp_path / "r.html", live=live).read_text(encoding="utf-8")
    times, top, folds, sorting = kept(page, tmp_path)
    assert times == 3
    assert top == 500
    assert folds == [False, True]
    assert [order for _, order in sorting] == ["ascending"]
    assert sorting[0][0].startswith("Accuracy")


def test_a_finished_page_is_not_loaded_anew(page: str, tmp_path: Path) -> None:
    assert kept(page, tmp_path)[0] == 1
