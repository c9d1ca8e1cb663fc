"""Which rows of one run or several may be compared, and what the page says of the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pages import page_of, pages_of
from records import ATTACK, PAIR, Spec

MNIST = {"data": {"name": "mnist", "max_train": None}}
WIDER = {"attack": [{**ATTACK, "eps": 0.1}]}
ROUND = {"attack": [{**ATTACK, "norm": "l2"}]}
STRONGER = {"attack": [{**ATTACK, "restarts": 5}]}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"settings": MNIST, "test": "2"}, "other data (digits; mnist)"),
        ({"first": 50}, "other test images"),
        ({"settings": WIDER, "test": "2"}, "attacks with other norm or eps (linf eps 0.3; linf eps 0.1)"),
        ({"settings": ROUND}, "attacks with other norm or eps (linf eps 0.3; l2 eps 0.3)"),
        ({"settings": STRONGER}, "other attacks (restarts 1; restarts 5)"),
        ({"settings": MNIST | WIDER, "test": "2", "first": 50},
         "other data (digits; mnist) and attacks with other norm or eps (linf eps 0.3; linf eps 0.1)"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_not(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    page = pages_of(tmp_path, {"a": PAIR, "b": [replace(spec, **change) for spec in PAIR]})
    assert page.text("p", **{"class": "lead"}) == [
        "Compared with None · a, the first row of its kind:",
        "Compared with None · b, the first row of its kind:",
    ]
    assert page.text("p", **{"class": "apart"}) == [f"Rows of a are not compared with those of b: they have {why}."]
    assert len(page.text("p", **{"class": "sentence"})) == 2
    assert f"Rows of a are not compared with those of b: they have {why}." in page.section("joint")
    assert "Not all of these rows may be compared with each other" in page.section("tradeoff")
    assert page.section("tradeoff").count("Not beaten at both ends") == 2


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"data": {"name": "digits", "max_train": 100}}, "test": "2"},
        {"settings": {"attack": [{**ATTACK, "came_later": 0}]}},
        {"settings": {"attack": []}, "robust": None},
        {"accuracy": None},
    ],
)
def test_what_does_not_matter_is_not_in_the_way(tmp_path: Path, change: dict[str, Any]) -> None:
    page = pages_of(tmp_path, {"a": PAIR, "b": [replace(spec, **change) for spec in PAIR]})
    assert page.text("p", **{"class": "apart"}) == []
    assert page.text("p", **{"class": "lead"}) == ["Compared with None · a, the first row:"]


def test_the_very_same_files_may_lie_elsewhere(tmp_path: Path) -> None:
    """The keys of evaluations hold the digest of the data, and not their path."""
    here, there = (
        [replace(spec, settings={"data": {"name": "mnist", "path": path}}) for spec in PAIR] for path in "ab"
    )
    assert pages_of(tmp_path / "1", {"a": here, "b": there}).text("p", **{"class": "apart"}) == []
    other = [replace(spec, test="2") for spec in there]
    assert pages_of(tmp_path / "2", {"a": here, "b": other}).text("p", **{"class": "apart"}) == [
        "Rows of a are not compared with those of b: they have other data (path a; path b)."
    ]


def test_rows_of_one_run_are_held_to_the_same(tmp_path: Path) -> None:
    page = page_of(tmp_path, *PAIR, Spec("Small ball", settings=WIDER))
    assert page.text("p", **{"class": "apart"}) == [
        "None and Adv. training and Small ball are not compared: they have attacks with other norm or eps "
        "(linf eps 0.3; linf eps 0.1)."
    ]
    assert page.text("p", **{"class": "sentence"})[1].startswith("Small ball reaches 90 %")


def test_other_values_of_what_varies_are_not_compared(tmp_path: Path) -> None:
    varied = [replace(spec, vary={"poison.rate": rate}) for spec in PAIR for rate in (0.01, 0.05)]
    page = pages_of(tmp_path, {"a": PAIR, "b": varied})
    assert page.text("p", **{"class": "apart"}) == [
        "Rows of a are not compared with those of b: they have other values of what varies."
    ]
    assert len(page.text("p", **{"class": "lead"})) == 3
