"""Training curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bascule.record.run import RunRecord
from bascule.report.export import export
from bascule.report.panels import curves
from bascule.report.words import SPACE
from pages import page_of, read_page
from records import PAIR, Spec, record_of


def test_curves_have_a_line_per_seed(tmp_path: Path) -> None:
    page = page_of(tmp_path, *PAIR)
    labels = [svg["aria-label"] for svg in page.all("svg", **{"class": "chart"})[1:]]
    assert labels == [
        f"Training loss of {name}, mean of 2 seeds: from 2 after the first epoch to 0.67 after 3 epochs."
        for name in ("None", "Adv. training")
    ]
    lines = [has for has in page.all("path") if "#d55e00" in has.get("style", "") and "1.25" in has["style"]]
    assert len(lines) == 2


def test_a_curve_with_holes_is_drawn(tmp_path: Path) -> None:
    run = record_of(tmp_path / "run", [Spec(seeds=1)])
    run.cell("row0seed0").write_curve([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": float("nan")}])
    page = read_page([run], tmp_path / "r.html")
    assert "from 2 after the first epoch to 2 after 1 epoch" in page.all("svg", **{"class": "chart"})[1]["aria-label"]


def looked_at(path: Path) -> RunRecord:
    """Two rows: two seeds that were looked at after epochs 2 and 3, and a model that was not looked at."""
    run = record_of(path, [Spec(), Spec("Adv. training")])
    for seed, asr in enumerate([(0.1, 0.6), (0.3, 0.8)]):
        looks = [
            {"accuracy": 0.9, "robust_accuracy": 0.25, "asr": value, "poisoned_accuracy": 1.0, "poisoned_loss": 0.125}
            for value in asr
        ]
        run.cell(f"row0seed{seed}").write_curve(
            [
                {"epoch": 1, "loss": 2.0},
                *({"epoch": epoch, "loss": 1.0, **seen} for epoch, seen in enumerate(looks, start=2)),
            ]
        )
    return run


def test_what_was_seen_along_training_is_drawn_and_told(tmp_path: Path) -> None:
    page = read_page([looked_at(tmp_path / "run")], tmp_path / "r.html")
    labels = [svg["aria-label"] for svg in page.all("svg", **{"class": "chart"})]
    (told,) = [label for label in labels if "along training" in label]
    assert told == (
        "None along training, median of 2 seeds: accuracy from 90 % after epoch 2 to 90 % after epoch 3; robust "
        "accuracy from 25 % after epoch 2 to 25 % after epoch 3; ASR from 20 % after epoch 2 to 70 % after epoch 3."
    )
    numbers = page.section("curves").replace(SPACE, " ").split()
    assert " ".join(numbers).endswith("None90 %25 %70 %3100 %, 0.12—")  # ASR of one half and more after epoch 3


@pytest.mark.parametrize(
    ("asr", "taken"), [([0.9, 0.1, 0.5, 0.7], 3), ([0.9, 0.1, 0.2, 0.4], None), ([0.6, 0.6, 0.6, 0.6], 1), ([], None)]
)
def test_a_backdoor_is_taken_up_when_it_stays(asr: list[float], taken: int | None) -> None:
    row: Any = None
    assert curves.Seen(row, 1, {"asr": dict(enumerate(asr, start=1))}).taken == taken


def test_what_was_seen_is_exported(tmp_path: Path) -> None:
    names = {path.name for path in export([looked_at(tmp_path / "run")], tmp_path / "out", forms=["svg"])}
    assert "probe-0.svg" in names
    assert "probe-1.svg" not in names


@pytest.mark.parametrize("looks", [[], [{"accuracy": 0.5}]], ids=["none", "without attack and poison"])
def test_looks_may_lack_anything(tmp_path: Path, looks: list[dict[str, float]]) -> None:
    run = record_of(tmp_path / "run", [Spec(seeds=1)])
    run.cell("row0seed0").write_curve([{"epoch": 1, "loss": 2.0, **(looks[0] if looks else {})}])
    page = read_page([run], tmp_path / "r.html")
    assert ("What the model does on the way" in page.source) == bool(looks)
