"""What is not the same in several runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pages import page_of, pages_of
from records import PAIR

LATER = {"commit": "def456", "versions": {"bascule": "0.2.0", "torch": "2.6.0"}}
LONGER = {"train": {"name": "sgd", "epochs": 9}}


def test_runs_stand_side_by_side_and_say_what_differs(tmp_path: Path) -> None:
    old = [replace(spec, settings={"train": {"name": "sgd", "epochs": 3}}) for spec in PAIR]
    new = [replace(spec, settings=LONGER, info=LATER, robust=0.5) for spec in PAIR]
    page = pages_of(tmp_path, {"old": old, "new": new}, new={"overrides": ["train.epochs=9"]})
    assert page.text("h1") == ["old and new, side by side"]
    assert page.text("p", **{"class": "run"}) == ["old A tiny study", "new A tiny study"]
    assert page.text("p", **{"class": "facts"})[1::2] == ["Finished: 8 models trained and evaluated."] * 2
    assert page.text("p", **{"class": "lead"}) == ["Compared with None · old, the first row:"]
    verdict = page.section("verdict")
    assert "Adv. training · new is safer against adversarial examples, but easier to backdoor" in verdict
    assert verdict.count("Between these two differ: train.epochs.") == 2  # not of the two rows of one run
    assert "not compared" not in verdict
    assert len(page.text("title")) == 1 + 4
    assert "None · new: robust accuracy 50 %" in page.text("title")[3]
    headings = page.text("th", scope="col")
    assert headings[:2] == ["Row", "Run"]
    assert page.text("td", **{"class": "run"}) == ["old", "old", "new", "new"]
    differing = page.section("differing")
    for text in (
        "train.epochs39", "Commitabc123def456", "Version of Bascule0.1.00.2.0", "Settings changednonetrain.epochs=9",
        "The same in all runs: title, done, data, test images, rows, what varies, seeds, metrics, version of torch",
    ):  # fmt: skip
        assert text in differing
    assert "attack" not in differing
    section = page.section("provenance")
    assert section.index("old") < section.index("abc123") < section.index("def456")
    assert section.count("All models (8)") == 2


def test_one_run_alone_says_nothing_of_runs(tmp_path: Path) -> None:
    page = page_of(tmp_path, *PAIR)
    assert page.all("section", id="differing") == page.all("p", **{"class": "run"}) == []
    assert "Run" not in page.text("th", scope="col")
