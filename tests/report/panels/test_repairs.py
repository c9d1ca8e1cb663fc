"""The same models before and after."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pages import check_whole, page_of
from records import PAIR, REPAIRED, Spec


def test_what_repairs_did_to_both_ends(tmp_path: Path) -> None:
    page = page_of(tmp_path, *REPAIRED, metrics=["accuracy", "robust-accuracy", "asr", "accuracy-twin"])
    check_whole(page)
    section = page.section("repairs")
    assert (
        "Hard: ASR falls clearly after good, with no clear change of robust accuracy; after dear, at the price"
        in section
    )
    assert "Robust accuracy falls clearly, and ASR does not, after vain." in section
    assert "Other: Nothing clearly lowers ASR." in section
    assert "ASR rises clearly after Tuned." in section
    assert re.search(r"Hardbefore90\.08\d\.\d–9\d\.\d80\.07\d\.\d–8\d\.\d90\.0", section)
    assert re.search(r" good90\.0\+0 \(\S+ to \S+\)80\.0\+0 \(\S+ to \S+\)10\.0-80\.0 \(-8", section)
    assert re.search(r" vain80\.0-10\.0 \(\S+ to \S+\)10\.0-70\.0 \(\S+ to \S+\)90\.0\+0 ", section)
    assert section.index(" vain8") < section.index("Other: ") < section.index("Tuned90.0")


@pytest.mark.parametrize("metrics", [["accuracy"], ["asr", "robust-accuracy"], ["asr"]], ids=", ".join)
def test_before_and_after_with_few_metrics_or_none_measured(tmp_path: Path, metrics: list[str]) -> None:
    rows = (*REPAIRED, Spec("Hard, later", accuracy=None, made_from=0), Spec("Hard, half", robust=None, made_from=0))
    page = page_of(tmp_path, *rows, metrics=metrics)
    check_whole(page)
    assert re.search(r" half(\d|—)", page.section("repairs"))
    assert ("where robust accuracy is not measured" in page.section("repairs")) == ("asr" in metrics)


def test_rows_that_vary_in_their_repair_go_by_it(tmp_path: Path) -> None:
    rows = (Spec("Hard", asr=0.9, vary={"repair": None}), Spec("Hard", asr=0.1, vary={"repair": "clp"}, made_from=0))
    section = page_of(tmp_path, *rows).section("repairs")
    assert "Hard · repair None: ASR falls clearly after repair clp, with" in section
    assert " repair clp90.0" in section


def test_nothing_repaired_nothing_said(tmp_path: Path) -> None:
    assert page_of(tmp_path, *PAIR).all("section", id="repairs") == []
    alone = page_of(tmp_path, Spec(), Spec("From elsewhere", made_from=7))
    assert alone.all("section", id="repairs") == []
