"""The verdict of an audit on the page, and what other panels then leave unsaid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bascule.record.audited import LEFT_OUT, MARKS, PROPOSED
from findings import HOSTILE, INSPECT, SCAN, finding, judged, row_with, scan
from pages import check_whole, page_of, plain, read_page, said
from records import Findings, Spec, record_of

AS_IT_IS = {"train": None, "repair": None, "attack": []}


def text_of(about: str = "model", left_out: str = "Something.") -> str:
    return f"{MARKS[about]}\n{PROPOSED}\n# - Because.\n{LEFT_OUT}\n# - {left_out}\nrows: {{}}\n"


def given(name: str, found: Findings, **more: Any) -> Spec:
    """A row of one model that came as it is; all such rows share it."""
    return row_with(name, found, poison=None, settings=AS_IT_IS, cells="model", **more)


def scanned(method: str, *suspects: int) -> dict[str, Any]:
    info = {**SCAN, "settings": {"name": method}}
    return {f"scan:{method}": finding(scan([0, 0, 0, 3]), info, suspects=list(suspects))}


def test_the_verdict_stands_first_in_place_of_in_short(tmp_path: Path) -> None:
    rows = [
        given("as it is", {"inspect:1": finding(judged(np.arange(8)), INSPECT)}),
        given("mm-bd", scanned("mm-bd", 3)),
        given("neural-cleanse", scanned("neural-cleanse", 3, 1)),
    ]
    page = page_of(tmp_path, *rows, text=text_of())
    check_whole(page)
    assert page.text("h2")[0] == "The audit"
    assert "In short" not in page.text("h2")
    text = plain(page.section("audited"))
    assert "Suspicion of a backdoor towards class 3: 2 of 2 scanners name it." in text
    assert "mm-bd names class 3. neural-cleanse names classes 3 and 1." in text
    assert "strip would remove 2 of 8 images (25.0 %), all of class 0: 25 % of that class." in text
    assert "Not looked at Something." in text
    assert "Why this was asked Because." in text


def test_nobody_knows_what_an_audit_shall_find(tmp_path: Path) -> None:
    rows = [
        given("scanned", scanned("mm-bd", 3)),
        given("judged", {"inspect:1": finding(judged(np.arange(8), poisoned=0), INSPECT)}),
    ]
    page = page_of(tmp_path, *rows, text=text_of())
    assert "Suspicion in the only seed. Named first: 3." in page.section("recovered")
    assert "False alarm in" not in page.section("recovered")
    assert "Nobody says which training images of judged are poisoned: not measured." in page.section("filters")


def test_a_set_that_is_judged_alone_is_not_taken_for_a_clean_one(tmp_path: Path) -> None:
    row = row_with("strip", {"inspect:1": finding(judged(np.arange(8), poisoned=0), INSPECT)}, poison=None)
    page = page_of(tmp_path, row, text=text_of("images"))
    assert "The training images, ranked by strip; nothing is said of any model." in plain(page.section("audited"))
    assert "Nobody says which training images of strip are poisoned" in page.section("filters")
    other = page_of(tmp_path / "other", row)
    assert "Nobody says" not in other.section("filters")
    assert "The audit" not in other.text("h2")


def test_two_audits_side_by_side_are_compared_as_well(tmp_path: Path) -> None:
    runs = [
        record_of(tmp_path / name, [given("as it is", scanned("mm-bd", *suspects))], text=text_of())
        for name, suspects in (("one", (3,)), ("other", ()))
    ]
    page = read_page(runs, tmp_path / "page.html")
    check_whole(page)
    assert page.text("h2")[:2] == ["The audit", "In short"]
    text = plain(page.section("audited"))
    assert "Undecided: mm-bd alone looked for a backdoor, and names class 3." in text
    assert "No backdoor was found by mm-bd." in text


def test_an_audit_that_has_not_answered_has_no_verdict_yet(tmp_path: Path) -> None:
    row = Spec("as it is", accuracy=None, poison=None, settings=AS_IT_IS, seeds=1)
    page = page_of(tmp_path, row, text=text_of())
    assert "The audit" not in page.text("h2")


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    row = given("as it is", scanned("mm-bd", 3), classes=["a", "b", "c", HOSTILE])
    page = page_of(tmp_path, row, text=text_of(left_out=HOSTILE))
    check_whole(page)
    assert "<script>alert" not in page.source
    assert "alert(1)" in said(page.section("audited"))
