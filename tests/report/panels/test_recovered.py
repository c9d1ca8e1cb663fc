"""Verdicts of scanners and the triggers they recover."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from findings import SCAN, finding, full, row_with, run_of, scan
from pages import pictures, said, sections
from records import Findings


def test_verdicts_over_seeds(tmp_path: Path) -> None:
    def seen(suspects: list[int], anomaly: Sequence[float] = (0, 0, 0, 3)) -> Findings:
        return {"scan:1": finding(scan(anomaly), SCAN, suspects=suspects)}

    nan = (np.nan,) * 4
    rows = [
        row_with("Mixed", seen([3]), seen([1, 3]), seen([]), twins=[seen([]), seen([2]), seen([])]),
        row_with("Sure", seen([3]), seen([3, 1]), twins=[seen([]), seen([])]),
        row_with("Given", seen([3], nan)),
    ]
    text = said(sections(run_of(tmp_path / "run", *rows), tmp_path)["recovered"])
    assert (
        "Right class in 1 of 3 seeds; wrong class in 1 of 3 seeds; nothing found in 1 of 3 seeds. "
        "Named first: 1. False alarm on the twin in 1 of 3 seeds."
    ) in text
    assert "Right class in all 2 seeds. No false alarm on the twin (2 seeds)." in text
    assert "The target was given, not searched for in the only seed." in text


def test_recovered_triggers_stand_on_grey_beside_the_true_one(page: dict[str, str]) -> None:
    text = said(page["recovered"])
    assert "| 4.5 | 1 | 37.5 |" in text
    assert "overlap with the target's 38 %, cosine 1.00" in text
    assert "class 3, the target | anomaly 4.5, moves 75 % of images" in text
    assert "most in class 3, 4.5; most in the twin 1; suspicious above 2." in page["recovered"]
    found = pictures(page["recovered"])
    assert [name.partition(" under")[0] for name in found] == [
        *(f"Trigger recovered for class {label}" for label in (3, 2, 0)),
        "The true trigger of None: what it makes of a grey image",
    ]  # fmt: skip
    recovered, *_, true = found.values()
    assert recovered[..., 0].tolist() == [[128, 128], [128, 200]]
    assert true[..., 0].tolist() == [[128, 128], [128, 255]]


def test_bars_are_explained_where_there_are_some(tmp_path: Path) -> None:
    for name, anomaly in (("searched", (0, 0, 0, 3)), ("given", (np.nan,) * 4)):
        row = row_with("None", {"scan:1": finding(scan(anomaly), SCAN, suspects=[3])})
        text = said(sections(run_of(tmp_path / name, row), tmp_path)["recovered"])
        assert ("Bars: filled for the model" in text) == (name == "searched")
        assert "Triggers are drawn as what they make of a grey image" in text


def test_rows_that_share_only_some_models_say_which(tmp_path: Path) -> None:
    rows = [row_with("None", full(), cells=cells, vary={"x": value}) for cells, value in (("a", 1), ("a", 2), ("b", 3))]
    text = said(sections(run_of(tmp_path / "run", *rows), tmp_path)["recovered"])
    assert "None · x 1 or 2 | neural-cleanse" in text
    assert "None · x 3 | neural-cleanse" in text
