"""The picture of the trade-off, and who is beaten at both ends."""

from __future__ import annotations

import re
from pathlib import Path

from pages import page_of
from records import PAIR, Spec


def test_the_picture_says_who_is_beaten(tmp_path: Path) -> None:
    specs = [Spec(), Spec("Adv. training", robust=0.4, asr=0.6), Spec("Lost", robust=0.0, asr=0.9)]
    section = page_of(tmp_path, *specs).section("tradeoff")
    assert "Not beaten at both ends (robust accuracy and ASR): None, Adv. training." in section
    assert "Perhaps beaten, but not clearly: Lost (by None)." not in section
    assert "Clearly beaten at both ends: Lost (by Adv. training)." in section
    assert "beaten" not in page_of(tmp_path / "pair", *specs[:2]).section("tradeoff")


def test_of_many_rows_only_those_that_are_not_beaten_are_named_unfolded(tmp_path: Path) -> None:
    specs = [Spec(), *(Spec(f"Lost {number}", robust=0.0, asr=0.9) for number in range(12))]
    section = page_of(tmp_path / "many", *specs).section("tradeoff")
    free, folded = section.split("The others, and which rows beat them ")
    assert "Not beaten at both ends (robust accuracy and ASR): None." in free
    assert "Lost" not in free.partition("Not beaten")[2]
    assert "Lost 0 (by None), Lost 1 (by None)" in folded
    assert "The others" not in page_of(tmp_path / "fewer", *specs[:-1]).section("tradeoff")


def test_the_picture_has_marks_bars_and_words(tmp_path: Path) -> None:
    page = page_of(tmp_path, *PAIR)
    picture = page.all("svg", **{"class": "chart"})[0]
    assert picture["role"] == "group"  # so that the marks inside can be reached
    assert [mark["id"] for mark in page.all("g", role="img", tabindex="0")] == ["tradeoff-mark-0", "tradeoff-mark-1"]
    assert [entry["data-mark"] for entry in page.all("li") if "data-mark" in entry] == [
        "tradeoff-mark-0",
        "tradeoff-mark-1",
    ]
    (drawn,) = re.findall(r"<svg class=.chart. role=.group.*?</svg>", page.source, flags=re.DOTALL)
    assert drawn.count("<text") == len(re.findall(r"<text[^>]*aria-hidden", drawn)) > 10
    assert picture["aria-label"] == (
        "Robust accuracy (across) and 1 \N{MINUS SIGN} ASR (upwards) of each row. "
        "None: 0 % and 90 %; Adv. training: 35 % and 40 %."
    )
    assert page.text("title") == [
        "A tiny study · Bascule",
        "None: robust accuracy 0 % (0 to 2 %), ASR 10 % (6 to 15 %), accuracy 90 % (85 to 93 %)",
        "Adv. training: robust accuracy 35 % (29 to 42 %), ASR 60 % (53 to 67 %), accuracy 80 % (74 to 85 %)",
    ]
    drawn = page.text("svg", **{"class": "chart"})[0]
    for text in ("Robust accuracy, % → better", "1 \N{MINUS SIGN} ASR, % → better", "None", "Adv. training", "100"):
        assert text in drawn


def test_the_picture_does_without_rows_that_lack_a_number(tmp_path: Path) -> None:
    page = page_of(tmp_path, *PAIR, Spec("Clean", poison=None), Spec("Later", accuracy=None))
    section = page.section("tradeoff")
    assert "Not in the picture: Clean (no ASR), Later (no robust accuracy and ASR)." in section
    assert len(page.text("title")) == 3


def test_there_is_none_where_all_is_done_and_no_row_has_both_ends(tmp_path: Path) -> None:
    page = page_of(tmp_path, Spec("Clean", poison=None), Spec("Hardened", poison=None))
    assert not [has for has in page.all("section") if has.get("id") == "tradeoff"]
    assert "The trade-off" not in page.text("h2")
