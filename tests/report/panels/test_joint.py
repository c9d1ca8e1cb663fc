"""The joint table: every number, what it counts, what was published, and flags."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from bascule.record.plan import PublishedValues
from pages import page_of, pages_of
from records import PAIR, Spec


def test_the_table_has_every_number(tmp_path: Path) -> None:
    page = page_of(tmp_path, *PAIR)
    headings = page.text("th", scope="col")
    assert headings[1:4] == [
        "Accuracy ↑, higher is better%, n = 200",
        "Robust accuracy ↑, higher is better%, n = 200",
        "ASR ↓, lower is better%, n = 180",
    ]
    assert headings[7] == "Seeds"
    cells = page.text("td", **{"class": "number"})
    assert [cell[:4] for cell in cells[:7]] == ["90.0", "0.00", "10.0", cells[3][:4], "0.00", "90.0", "2"]
    assert cells[0] == "90.085.1\N{EN DASH}93.4"  # Wilson's interval of 180 out of 200
    assert cells[7:10] == ["80.073.9\N{EN DASH}85.0", "35.028.7\N{EN DASH}41.8", "60.052.7\N{EN DASH}66.9"]
    assert len(page.text("caption")) == 2
    assert page.text("th", scope="row")[:2] == ["None", "Adv. training"]


def test_a_count_that_differs_between_rows_is_in_the_cells(tmp_path: Path) -> None:
    page = page_of(tmp_path, Spec(), Spec("Worse", accuracy=0.65), metrics=["asr-paper"])
    assert page.text("th", scope="col")[1] == "ASR (paper) ↓, lower is better%"
    found = [re.search(r"n = (\d+)$", text) for text in page.text("td", **{"class": "number"})[0:4:2]]
    assert [match.group(1) for match in found if match] == ["180", "190"]  # 10 clean images are taken for the target


def test_the_table_says_what_it_is_sorted_by(tmp_path: Path) -> None:
    rows = [
        Spec("B", asr=0.123, vary={"poison.rate": 0.05, "model": {"name": "net", "width": 4}}),
        Spec("A", asr=None, vary={"poison.rate": 0.005}),
    ]
    page = page_of(tmp_path, *rows, metrics=["accuracy", "asr"])
    assert [has["data-better"] for has in page.all("th", scope="col")[:6]] == [
        "lowest", "lowest", "lowest", "highest", "lowest", "highest",
    ]  # fmt: skip
    values = [has["data-value"] for _, has in page.elements if "data-value" in has]
    assert values[:6] == ["B", "0.05", "net (width 4)", "0.9", values[4], "2"]
    assert float(values[4]) == pytest.approx(22 / 180)
    assert values[6:] == ["A", "0.005", "", "0.9", "", "2"]
    assert len(page.all("table", **{"class": "joint"})) == 1


def test_flags_stand_under_their_row(tmp_path: Path) -> None:
    page = page_of(tmp_path, Spec(twin=0.3), Spec("Adv. training", robust=0.5, accuracy=0.8, seeds=1))
    flags = page.text("tr", **{"class": "flags"})
    assert "the trigger alone moves 30 % of a clean model's images" in flags[0]
    assert "one seed" in flags[1]
    assert page.all("ul", **{"aria-label": "Flags of Adv. training"})


def test_published_values_stand_in_the_cells(tmp_path: Path) -> None:
    known = PublishedValues(metrics={"asr": 0.135}, printed={"asr": 0.172}, note="Table 1a <b>")
    page = page_of(tmp_path, replace(PAIR[0], published=known), PAIR[1])
    assert any("published 13.5printed 17.2" in text for text in page.text("td", **{"class": "number"}))
    assert "Published: Table 1a <b>" in page.text("p", **{"class": "note"})


def test_published_values_stand_beside_their_own_run_only(tmp_path: Path) -> None:
    known = PublishedValues(metrics={"asr": 0.135})
    page = pages_of(tmp_path, {"a": PAIR, "b": [replace(PAIR[0], published=known), PAIR[1]]})
    cells = page.text("td", **{"class": "number"})
    assert [place for place, text in enumerate(cells) if "published 13.5" in text] == [2 * 7 + 2]


def test_a_metric_that_a_run_does_not_ask_for_is_a_gap(tmp_path: Path) -> None:
    page = pages_of(tmp_path, {"a": PAIR, "b": PAIR}, a={"metrics": ["accuracy", "robust-accuracy"]})
    cells = page.text("td", **{"class": "number"})
    assert cells[2:6] == [""] * 4
    assert cells[7 + 7 + 2].startswith("10.0")
    assert "An empty place: the run of this row does not ask for the metric." in page.section("joint")
    assert "ASR cannot be compared: a does not measure it." in page.section("verdict")
    assert "Not in the picture: None · a (no ASR), Adv. training · a (no ASR)." in page.section("tradeoff")
    assert "MetricsAccuracy, Robust accuracyAccuracy, Robust accuracy, ASR" in page.section("differing")
    assert "Attack success rate" in page.section("reading")
    whole = pages_of(tmp_path / "whole", {"a": PAIR, "b": PAIR})
    assert "An empty place" not in whole.section("joint")
