"""The report says what the record holds, in words and numbers, and stays safe and whole whatever the record holds."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import matplotlib
import pytest

from bascule.core.errors import RequestError
from bascule.record.sums import sum_file
from bascule.report.drawing import svg
from bascule.report.page.page import Live, write_page
from pages import check_whole, page_of, pages_of, read_page
from records import PAIR, POISON, Spec, record_of


def test_importing_the_page_imports_no_torch() -> None:
    statement = "import sys, bascule.report.page.page; from bascule.report.panels import panels; panels()"
    check = "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"{statement}; {check}"], check=True)


def test_the_page_answers_first(tmp_path: Path) -> None:
    page = page_of(tmp_path, *PAIR)
    check_whole(page)
    assert page.text("h1") == ["A tiny study"]
    assert page.text("p", **{"class": "about"}) == ["What it is about."]
    assert page.text("p", **{"class": "facts"}) == [
        "digits · 2 rows · 2 seeds each",
        "Finished: 8 models trained and evaluated.",
    ]
    assert page.section("verdict") == (
        "In short Compared with None, the first row: Adv. training is safer against adversarial examples, but easier "
        "to backdoor. It raises robust accuracy from 0 % to 35 % (by 29 to 42 points) and ASR from 10 % to 60 % "
        "(by 43 to 57 points). That is the trade-off, for this trigger and training. "
        "Accuracy falls from 90 % to 80 % (by 7 to 15 points). "
        "Robust accuracy is the share of test images that a model still gets right under attack: higher is safer. "
        "ASR, the attack success rate, is the share of images with the trigger that are taken for the attacker's "
        "class: lower is safer. In brackets: the 95 % interval of the change, over 2 seeds and 200 test images."
    )
    assert page.text("h2") == [
        "In short", "The trade-off", "The joint table", "Triggers", "Training curves", "What was run", "How to read it",
    ]  # fmt: skip


def test_no_row_wins_what_is_not_separated(tmp_path: Path) -> None:
    page = page_of(tmp_path, Spec(robust=0.30, asr=0.51), Spec("Other", robust=0.31, asr=0.5))
    assert "Other does not clearly differ in robust accuracy" in page.section("verdict")
    for section in ("verdict", "tradeoff", "joint"):
        html = page.source.partition(f'<section id="{section}"')[2].partition("</section>")[0]
        assert not re.search(r"<(strong|b|em|mark)\b", html)
    for note in ("2 seeds and 200 images: robust accuracy of None and Other.", "180 images: ASR of None and Other."):
        assert note in page.section("joint")
    assert not re.search(r"\b(best|winner|wins)\b", page.text()[0], re.IGNORECASE)
    separated = page_of(tmp_path / "separated", *PAIR)
    assert "Not separated" not in separated.section("joint")


def test_pictures_follow_the_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, *PAIR)
    assert "currentColor" in page.source
    drawn = "".join(re.findall(r"<svg class=.chart.*?</svg>", page.source, flags=re.DOTALL))
    assert "var(--rule)" in drawn
    assert not re.search(rf"{svg.INK}|{svg.RULE}|#000000|font-family: 'DejaVu", drawn, re.IGNORECASE)
    for name, colour in (("ink", svg.INK), ("rule", svg.RULE)):  # files have the colours of the light page
        assert f"--{name}: {colour};" in page.source.partition("@media")[0]
    assert len(page.all("style")) == 1  # matplotlib's own sheet would hold for the whole page
    assert {mark["fill"] for mark in page.all("polygon")} == {"#0072B2", "#D55E00"}


def test_an_empty_run_has_a_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, *(replace(spec, accuracy=None) for spec in PAIR))
    check_whole(page)
    assert "Not finished: 0 of 8 models done. The same command again continues the run." in page.text()[0]
    assert "Adv. training cannot be compared. Robust accuracy and ASR: not measured in either row." in page.section(
        "verdict"
    )
    assert "No row has both a robust accuracy and an ASR yet." in page.section("tradeoff")
    assert page.text("td", **{"class": "number"})[:7] == ["—"] * 6 + ["0"]
    assert "to be planted in 5 % of the training set, all of class 7" in page.section("triggers")
    assert page.all("section", id="curves") == []
    assert "not trained yet" in page.section("provenance")


def test_an_unfinished_run_says_what_is_missing(tmp_path: Path) -> None:
    page = page_of(tmp_path, PAIR[0], replace(PAIR[1], robust=None), Spec("Later", accuracy=None))
    check_whole(page)
    assert "Not finished: 6 of 12 models done." in page.text()[0]
    verdict = page.section("verdict")
    assert "Adv. training is easier to backdoor. It raises ASR from 10 % to 60 % (by 43 to 57 points)." in verdict
    assert "Robust accuracy cannot be compared: not measured in this row." in verdict
    assert "trained; 2 of 3 evaluations done" in page.section("provenance")
    assert "No model is trained yet of: Later." in page.section("curves")


def test_a_failed_cell_is_shown_with_its_reason(tmp_path: Path) -> None:
    page = page_of(tmp_path, PAIR[0], replace(PAIR[1], accuracy=None, failure="the loss is <nan> at step 12"))
    check_whole(page)
    assert "Not finished: 4 of 8 models done, 2 failed." in page.text()[0]
    assert "failed: seed 0: the loss is <nan> at step 12" in page.text("tr", **{"class": "flags"})[-1]
    assert "failed: the loss is <nan> at step 12" in page.section("provenance")


def test_a_run_without_poison_has_no_triggers(tmp_path: Path) -> None:
    page = page_of(tmp_path, Spec(poison=None), Spec("Adv. training", poison=None, robust=0.4))
    check_whole(page)
    assert page.all("section", id="triggers") == []
    assert page.all("a", href="#triggers") == []
    assert (
        "Adv. training is safer against adversarial examples. It raises robust accuracy from 0 % to 40 % "
        "(by 33 to 47 points). ASR cannot be compared: no poison is planted in either row. "
        "Accuracy does not clearly differ (90 % in both, from 1.9 points lower to 1.9 higher)."
    ) in page.section("verdict")


UNKIND = (
    "<script>alert(1)</script>",
    "\"><img src='http://example.org/x' onerror=alert(1)>",
    "]]></svg></style><h1>",
    "&amp; $\\frac{1}{0}$ {{ 7*7 }} %s",
    "x" * 200,
    "対抗的訓練 · تدريب · обучение · 🦊",
    "\x07 \u202e",
)


@pytest.mark.parametrize("name", UNKIND)
def test_names_are_text_and_nothing_else(tmp_path: Path, name: str) -> None:
    trigger = {"name": name, "where": name}
    page = page_of(
        tmp_path,
        replace(PAIR[0], name=name, failure=name, vary={name: name}, poison={**POISON, "trigger": trigger}),
        replace(PAIR[1], info={"command": name, "commit": name, "started": name, "versions": {name: name}}),
        title=name, about=name, overrides=[name], text=name,
    )  # fmt: skip
    check_whole(page)
    shown = " ".join(name.split())
    assert page.text("h1") == [shown]
    assert page.text("pre") == [shown]
    assert shown in page.text("th", scope="row")[0]
    assert page.text("svg", **{"class": "mark"}) == [""] * len(page.all("svg", **{"class": "mark"}))
    assert any(shown in title for title in page.text("title")[1:])
    assert page.all("h1") == [{}]


def test_half_a_letter_does_not_stop_the_page(tmp_path: Path) -> None:
    run = record_of(tmp_path / "run", PAIR, title="MARK", study="MARK")
    text = run.plan_file.read_text(encoding="utf-8").replace("MARK", r"half \ud800")
    run.plan_file.write_text(text.replace("Adv. training", r"row \udfff"), encoding="utf-8")
    sum_file(run.plan_file).unlink()  # with it, what is written by hand is taken for damaged
    page = read_page([run], tmp_path / "r.html")
    assert page.text("h1") == ["half ?"]


def test_many_rows_have_a_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, *(Spec(f"Row {n}", robust=n / 40, asr=n / 30, seeds=1) for n in range(20)))
    check_whole(page)
    assert len(page.text("title")) == 21
    assert "and 8 more rows, all in the table below" in page.all("svg", **{"class": "chart"})[0]["aria-label"]


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    run = record_of(tmp_path / "run", PAIR)
    first = write_page([run], tmp_path / "a.html").read_bytes()
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": False}):
        assert write_page([run], tmp_path / "b.html").read_bytes() == first


def test_matplotlib_is_left_as_found(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    page_of(tmp_path, *PAIR)
    assert dict(matplotlib.rcParams) == before


def test_writing_replaces_the_page_in_one_step(tmp_path: Path) -> None:
    run = record_of(tmp_path / "run", PAIR)
    output = tmp_path / "deep" / "er" / "report.html"
    write_page([run], output)
    (tmp_path / "run" / "study.json").unlink()
    written = output.read_bytes()
    with pytest.raises(RequestError, match=r"cannot read .*study\.json"):
        write_page([run], output)
    assert output.read_bytes() == written
    assert [path.name for path in output.parent.iterdir()] == ["report.html"]


def test_a_run_that_is_not_finished_stands_beside_one_that_is(tmp_path: Path) -> None:
    empty = [replace(spec, accuracy=None) for spec in PAIR]
    page = pages_of(tmp_path, {"done": PAIR, "begun": [PAIR[0], empty[1]], "empty": empty})
    assert page.text("p", **{"class": "facts"})[1::2] == [
        "Finished: 8 models trained and evaluated.",
        "Not finished: 4 of 8 models done. The same command again continues the run.",
        "Not finished: 0 of 8 models done. The same command again continues the run.",
    ]
    assert "Adv. training · empty cannot be compared. Robust accuracy and ASR: not measured in this row." in (
        page.section("verdict")
    )
    assert "Done8 of 8 models4 of 8 models0 of 8 models" in page.section("differing")
    assert "Commitabc123abc123—" in page.section("differing")


def test_runs_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    page = pages_of(tmp_path, {"x/digits": PAIR, "y/digits": PAIR, "y/other": PAIR})
    assert page.text("h1") == ["x/digits, y/digits and other, side by side"]


@pytest.mark.parametrize("name", ["<script>alert(1)<", "$x_1$ & 对"])
def test_names_of_runs_are_text_and_nothing_else(tmp_path: Path, name: str) -> None:
    page = pages_of(tmp_path, {name: PAIR, "b": PAIR})
    assert page.text("td", **{"class": "run"})[0] == name
    assert page.text("h1") == [f"{name} and b, side by side"]


LIVE = Live(datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC), every=30)


def test_a_page_of_a_run_that_goes_on_says_so_and_looks_again(tmp_path: Path) -> None:
    run = record_of(tmp_path / "run", [PAIR[0], replace(PAIR[1], accuracy=None, failure="it broke")])
    page = read_page([run], tmp_path / "r.html", LIVE)
    check_whole(page)
    assert page.text("p", **{"class": "facts"})[1:] == [
        "Running: 4 of 8 models done, 2 failed.",
        "Written at 2024-05-06 07:08:09 UTC; this page looks for a newer one every 30 seconds.",
    ]
    assert page.all("progress") == [{"max": "8", "value": "4", "aria-label": "Models done"}]
    assert page.all("body") == [{"data-every": "30"}]
    assert page.all("meta", **{"http-equiv": "refresh"}) == [{"http-equiv": "refresh", "content": "30"}]
    last = read_page([run], tmp_path / "r.html")
    assert last.all("body") == [{}]
    assert last.all("progress") == last.all("noscript") == last.all("meta", **{"http-equiv": "refresh"}) == []
    assert "Running" not in last.text()[0]
