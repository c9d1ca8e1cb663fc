"""What was seen along training, and when backdoors take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bascule.record.run import RunRecord
from bascule.report.export import export
from bascule.report.panels import along
from bascule.report.words import SPACE
from pages import read_page
from records import POISON, Spec, record_of


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
    numbers = page.section("along").replace(SPACE, " ").split()
    assert " ".join(numbers).endswith("None90 %25 %70 %3100 %, 0.12—")  # ASR of one half and more after epoch 3


@pytest.mark.parametrize(
    ("asr", "taken"), [([0.9, 0.1, 0.5, 0.7], 3), ([0.9, 0.1, 0.2, 0.4], None), ([0.6, 0.6, 0.6, 0.6], 1), ([], None)]
)
def test_a_backdoor_is_taken_up_when_it_stays(asr: list[float], taken: int | None) -> None:
    assert along.taken({"asr": dict(enumerate(asr, start=1))}) == taken


@pytest.mark.parametrize(
    ("asrs", "when", "caption"),
    [
        ([[0.1, 0.9, 0.8], [0.1, 0.6, 0.7]], "2", "2 seeds: takes from epoch 2"),
        ([[0.1, 0.9, 0.8], [0.1, 0.2, 0.7]], "2 to 3", "2 seeds: takes from epoch 2 to 3"),
        ([[0.1, 0.9, 0.8], [0.1, 0.6, 0.1]], "2, 1 of 2 seeds", "2 seeds: takes from epoch 2, 1 of 2 seeds"),
        ([[0.1, 0.9, 0.2], [0.1, 0.6, 0.1]], "not", "2 seeds: does not take"),
        ([[]], "—", "1 seed"),
    ],
)
def test_when_a_backdoor_takes_is_told_over_the_seeds(asrs: list[list[float]], when: str, caption: str) -> None:
    row: Any = None
    seeds = [{"accuracy": {1: 0.5}, **({"asr": dict(enumerate(asr, start=1))} if asr else {})} for asr in asrs]
    seen = along.Seen(row, seeds)
    assert (seen.when, seen.caption) == (when, caption)


def test_the_fit_of_poisoned_and_clean_images_is_drawn(tmp_path: Path) -> None:
    """Standard beside hardened: rows with the same poison share a line of pictures, others have their own."""
    other = POISON | {"rate": 0.01}
    run = record_of(tmp_path / "run", [Spec(seeds=1), Spec("Adv.", seeds=1), Spec("Rare", seeds=1, poison=other)])
    for row, asr in enumerate((0.9, 0.1, 0.1)):
        fit = {"poisoned_accuracy": 0.5 + asr / 2, "target_accuracy": 0.6}
        looks = [{"epoch": epoch, "loss": 1.0, "accuracy": 0.5, "asr": asr, **fit} for epoch in (1, 2)]
        run.cell(f"row{row}seed0").write_curve(looks)
    page = read_page([run], tmp_path / "r.html")
    labels = [svg["aria-label"] for svg in page.all("svg", **{"class": "chart"})]
    assert (
        "Adv. on training images of its target class, median of 1 seed: fit of poisoned images from 55 % after epoch 1 "
        "to 55 % after epoch 2; of clean ones from 60 % after epoch 1 to 60 % after epoch 2."
    ) in labels
    panel = page.source.partition('<section id="along"')[2].partition("</section>")[0]
    assert [group.count("<figure>") for group in panel.split('<div class="curves">')[1:]] == [2, 1]
    said = page.section("along")
    assert "None 1 seed: takes from epoch 1" in said
    assert "Adv. 1 seed: does not take" in said


def test_a_single_look_is_no_course(tmp_path: Path) -> None:
    run = record_of(tmp_path / "run", [Spec(seeds=1)])
    run.cell("row0seed0").write_curve([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "accuracy": 1, "asr": 0.5}])
    export([run], tmp_path / "out", forms=["svg"])
    said = "- `probe-0`: None along training, median of 1 seed: accuracy 100 % after epoch 2; ASR 50 % after epoch 2.\n"
    assert said in (tmp_path / "out" / "figures.md").read_text()


def test_what_was_seen_is_exported(tmp_path: Path) -> None:
    names = {path.name for path in export([looked_at(tmp_path / "run")], tmp_path / "out", forms=["svg"])}
    assert "probe-0.svg" in names
    assert "probe-1.svg" not in names


@pytest.mark.parametrize("looks", [[], [{"accuracy": 0.5}]], ids=["none", "without attack and poison"])
def test_looks_may_lack_anything(tmp_path: Path, looks: list[dict[str, float]]) -> None:
    run = record_of(tmp_path / "run", [Spec(seeds=1)])
    run.cell("row0seed0").write_curve([{"epoch": 1, "loss": 2.0, **(looks[0] if looks else {})}])
    page = read_page([run], tmp_path / "r.html")
    assert ("What the model does on a few fixed images" in page.source) == bool(looks)
