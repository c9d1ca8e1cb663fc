"""Recipes against attackers: who holds, who falls, what it costs, and the worst case of each."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bascule.core.errors import RequestError
from bascule.record.rows import read_rows
from bascule.report.compare.attackers import Contest, contests_of, sentences
from bascule.report.tables.attackers import render_attackers
from pages import check_whole, page_of
from records import POISON, Spec, record_of

MANY = np.repeat(np.arange(10), 200)
"""2,000 test images, of which 1,800 count in ASR."""
HARD = {"train": {"objective": {"name": "pgd", "eps": 0.3}}}
FILTERED = {**HARD, "filter": {"name": "strip"}}
ASR = {
    "None": {"Sticker": 0.9, "Wave": 0.5},
    "Adv.": {"Sticker": 0.95, "Wave": 0.6},
    "Filter, adv.": {"Sticker": 0.0, "Wave": 0.02},
}
ROBUST = {"None": 0.0, "Adv.": 0.8, "Filter, adv.": 0.79}
SETTINGS = {"None": {"train": {"objective": {"name": "standard"}}}, "Adv.": HARD, "Filter, adv.": FILTERED}


def specs(*, seeds: int = 3) -> list[Spec]:
    return [
        Spec(
            recipe, asr=asr, robust=ROBUST[recipe], seeds=seeds, vary={"poison": attacker}, labels=MANY,
            settings=SETTINGS[recipe], poison=POISON,
        )
        for recipe, attackers in ASR.items()
        for attacker, asr in attackers.items()
    ]  # fmt: skip


def contest(path: Path, rows: Sequence[Spec] | None = None, against: str | None = None) -> Contest:
    (only,) = contests_of(read_rows(record_of(path, specs() if rows is None else rows)), against)
    return only


def test_each_recipe_meets_each_attacker(tmp_path: Path) -> None:
    one = contest(tmp_path)
    assert one.attackers == ("Sticker", "Wave")
    assert [standing.recipe for standing in one.standings] == list(ASR)
    assert one.reference == "Adv."  # the first that is hardened, without filter or repair
    ends = {standing.recipe: {name: bout.end for name, bout in standing.bouts.items()} for standing in one.standings}
    assert ends["None"] == ends["Adv."] == {"Sticker": "fell", "Wave": "fell"}
    assert ends["Filter, adv."] == {"Sticker": "held", "Wave": "open"}  # 2 points in value, whose interval goes beyond


def test_what_a_recipe_costs_is_against_the_same_attacker(tmp_path: Path) -> None:
    one = contest(tmp_path)
    filtered = one.standings[2]
    assert filtered.costliest is not None
    assert filtered.costliest[1].value == pytest.approx(-0.01)
    assert filtered.keeps_robustness
    assert not one.standings[0].keeps_robustness
    assert one.standings[1].costliest is None  # the reference itself
    assert contest(tmp_path / "again", against="None").standings[2].costliest[1].value == pytest.approx(0.79)  # type: ignore[index]


def test_the_worst_case_is_taken_seed_by_seed(tmp_path: Path) -> None:
    filtered = contest(tmp_path).standings[2]
    assert filtered.worst[0] == "Wave"
    assert filtered.by_seed() == {seed: (pytest.approx(0.02), pytest.approx(0.79)) for seed in range(3)}


def test_sentences_say_who_holds_and_who_is_beaten(tmp_path: Path) -> None:
    _, none, _, filtered, free, beaten = sentences(contest(tmp_path))
    assert none.startswith("None: holds against 0 of 2 attackers. Falls to Sticker; Wave. Worst: Sticker, ASR 90.0")
    assert filtered.startswith(
        "Filter, adv.: holds against 1 of 2 attackers, perhaps against 1 more. Worst: Wave, ASR 2.0"
    )
    assert "Robust accuracy is within 2 points of that of Adv.: at worst -1.0" in filtered
    assert "Robust accuracy is farther than 2 points from that of Adv.: at worst -80.0" in none
    assert "not beaten at both ends is Adv. (ASR 95 %, robust accuracy 80 %) and Filter, adv." in free
    assert beaten == "None (ASR 90 %, robust accuracy 0 %) is clearly beaten at both ends by Filter, adv."


def test_at_one_seed_nothing_is_clear(tmp_path: Path) -> None:
    one = contest(tmp_path, specs(seeds=1))
    assert {bout.end for standing in one.standings for bout in standing.bouts.values()} == {"open"}
    assert "Perhaps falls to Sticker; Wave." in sentences(one)[1]
    assert any("one seed says nothing of training anew" in sentence for sentence in sentences(one))


def test_an_attacker_that_was_not_met_is_a_gap(tmp_path: Path) -> None:
    rows = [spec for spec in specs() if (spec.name, spec.vary["poison"]) != ("None", "Wave")]
    one = contest(tmp_path, rows)
    assert list(one.standings[0].bouts) == ["Sticker"]
    text = render_attackers(read_rows(record_of(tmp_path / "run", rows)), "text")
    assert "None: holds against 0 of 1 attacker." in text
    assert "None (ASR" not in text  # the worst of one attacker is no worst case


def test_the_table_in_every_format(tmp_path: Path) -> None:
    rows = read_rows(record_of(tmp_path, specs()))
    text = render_attackers(rows, "text")
    assert "+2.0?" in text
    assert "ASR less that of the twin, points" in render_attackers(rows, "markdown")
    (entry,) = json.loads(render_attackers(rows, "json"))
    assert entry["recipes"]["Filter, adv."]["Sticker"]["end"] == "held"
    lines = list(csv.DictReader(io.StringIO(render_attackers(rows, "csv"))))
    assert len(lines) == 6
    assert float(lines[0]["asr_less_twin_value"]) == pytest.approx(0.9)


def test_without_named_attackers_there_is_none(tmp_path: Path) -> None:
    plain = record_of(tmp_path, [Spec("None", vary={"poison.rate": 0.1}), Spec("None", vary={"poison.rate": 0.2})])
    with pytest.raises(RequestError, match="no attackers: they are values with names"):
        render_attackers(read_rows(plain), "text")
    with pytest.raises(RequestError, match="unknown row 'Nine'"):
        render_attackers(read_rows(record_of(tmp_path / "run", specs())), "text", "Nine")


def test_the_page_shows_them(tmp_path: Path) -> None:
    page = page_of(tmp_path, *specs())
    check_whole(page)
    section = page.section("attackers")
    assert "None: holds against 0 of 2 attackers" in section
    assert len(page.all("td", **{"class": "number fell"})) == 4
    assert len(page.all("td", **{"class": "number held"})) == 1
