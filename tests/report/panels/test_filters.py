"""Whether filters find the poison."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from bascule.metrics.contract import Judgement
from bascule.record.cell import FILTERED
from bascule.report.panels.filters import curve
from findings import INSPECT, finding, judged, row_with, run_of
from pages import said, sections


def test_filters_have_their_numbers_and_chance(page: dict[str, str]) -> None:
    # Poisoned images rank first and fourth of eight; one of the two removed is poisoned, one of six clean ones removed.
    text = said(page["filters"])
    row = text.partition("None | strip")[2]
    assert re.match(r" \| only asked \| 83\.3 \| [\d.-]+ \| 75\.0 \| 50\.0 \|[^|]*\| 50\.0 \|[^|]*\| 16\.7 \|", row)
    assert re.search(r"\| 25\.0 \|[^|]*\| 25\.0 \|", row)  # removed from the twin, and the poisoned share
    assert "average precision 75 %, chance 25.0 %" in page["filters"]
    assert "strip: overlays 16" in text


def test_a_filter_at_chance_is_named(tmp_path: Path) -> None:
    order = list(range(40))
    rows = [
        row_with("Good", {"inspect:1": finding(judged(order[::-1], poisoned=15), INSPECT)}),
        row_with("Bad", {"inspect:1": finding(judged(order, poisoned=15), INSPECT)}),
        row_with("None", {FILTERED: finding(judged([7] * 40, poisoned=15), {})}, filter_={"name": "gram", "orders": 8}),
    ]
    text = said(sections(run_of(tmp_path / "run", *rows), tmp_path)["filters"])
    assert "At chance, as far as the interval of the AUROC can tell: gram on None." in text
    assert "less suspicious ones: strip on Bad." in text
    assert "Better than chance: strip on Good." in text
    assert "gram | retrained without" in text


def test_precision_and_recall_at_every_cut() -> None:
    one = Judgement(
        score=np.array([3, 2, 2, np.nan], dtype=np.float32), removed=np.zeros(4, dtype=bool),
        poisoned=np.array([False, True, True, True]),
    )  # fmt: skip
    recall, precision = curve(one)
    np.testing.assert_allclose(recall, [0, 2 / 3, 1])
    np.testing.assert_allclose(precision, [0, 2 / 3, 3 / 4])


def test_many_filters_are_counted_instead_of_named(tmp_path: Path) -> None:
    good, blind = judged(range(72, 0, -1), poisoned=30), judged([1] * 72, poisoned=30)
    rows = [
        row_with(f"{'Good' if place < 6 else 'Blind'} {'abcdefghi'[place]}",
            {"inspect:1": finding(good if place < 6 else blind, INSPECT)})
        for place in range(9)
    ]  # fmt: skip
    section = sections(run_of(tmp_path / "run", *rows), tmp_path)["filters"]
    assert "strip, on 9 rows: at chance on 3 and better than chance on 6." in said(section)
    assert "strip on" not in said(section)
    few = sections(run_of(tmp_path / "few", *rows[:2]), tmp_path)["filters"]
    assert "Better than chance: strip on Good a and strip on Good b." in said(few)
