"""Poison with other aims than one target, from the study to the table: it takes, and is counted as it was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from bascule.record.rows import RowResult, read_rows
from bascule.record.run import RunRecord
from bascule.report.page.page import write_page

STUDY = """
base:
  data: digits
  poison: {trigger: {name: sticker, size: 2}, label: dirty, target: 7, rate: 0.05}
  model: digits-cnn
  train: {objective: standard, epochs: 12, batch_size: 64, lr: 3e-3, schedule: one-cycle}
  attack: {name: fgsm, eps: 0.05}
rows:
  Next class: {poison: {label: all-to-all, target: null, rate: 0.4}}
  Threes: {poison: {sources: [3], cover: 0.2}, inspect: frequency}
  Blend:
    poison:
      trigger: {name: adaptive-blend, mark: {name: watermark, mode: blend, strength: 0.3}}
      rate: 0.1
      cover: 0.05
  Patch: {poison: {trigger: {name: adaptive-patch, patches: PATCHES}, rate: 0.1, cover: 0.05}}
  Any place: {poison: {trigger: {name: sticker, size: 2, position: random}, rate: 0.1}}
measure: [accuracy, asr, asr-others, asr-twin, asr-paper, asr-toward, asr-away, filter-base-rate]
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, plan_of, run_here) -> RunRecord:
    run = RunRecord(tmp_path_factory.mktemp("modes"))
    corners = ("bottom-right", "bottom-left", "top-right", "top-left")
    patches = [f"{{name: sticker, size: 2, position: {corner}}}" for corner in corners]
    text = STUDY.replace("PATCHES", f"[{', '.join(patches)}]")
    assert run_here(plan_of(text=text), run).failures == ()
    return run


def value(row: RowResult, name: str) -> float:
    found = row.metrics[name].value
    assert found is not None
    return found


def test_every_class_is_taken_for_the_next(run: RunRecord) -> None:
    row = read_rows(run)[0]
    assert value(row, "asr") > 0.6
    assert value(row, "asr_twin") < 0.1
    assert value(row, "accuracy") > 0.8
    assert row.metrics["asr"].n == 360  # all test images
    assert value(row, "asr_away") <= value(row, "asr") <= value(row, "asr_toward")
    assert row.metrics["asr_others"].value is None
    assert any(flag.startswith("metric does not apply: asr_others") for flag in row.flags)


def test_the_sources_move_and_the_others_stay(run: RunRecord) -> None:
    row = read_rows(run)[1]
    assert value(row, "asr") > 0.6
    assert value(row, "asr_others") < 0.2
    outcomes = row.outcomes[0]
    threes, sevens = (int((outcomes.label == label).sum()) for label in (3, 7))
    assert row.metrics["asr"].n == threes
    assert row.metrics["asr_others"].n == 360 - threes - sevens
    assert not any(flag.startswith("metric does not apply") for flag in row.flags)
    assert value(row, "asr_away") <= value(row, "asr") <= value(row, "asr_toward")


@pytest.mark.parametrize(("place", "least"), [(2, 0.7), (3, 0.7), (4, 0.25)], ids=["blend", "patch", "any place"])
def test_marks_that_training_images_show_in_part_or_anywhere_take(run: RunRecord, place: int, least: float) -> None:
    row = read_rows(run)[place]
    assert value(row, "asr") > least
    assert value(row, "asr_twin") < 0.1
    assert value(row, "accuracy") > 0.8


def test_covers_are_recorded_and_are_no_poison(run: RunRecord) -> None:
    cell = run.cell(run.plan().rows[1].seeds[0].cell.fingerprint)
    info, kept = cell.info(), cell.poisoned()
    assert (info["poisoned"], info["covers"]) == (72, 287)  # 5 and 20 % of 1437
    assert (len(kept["ids"]), len(kept["covers"])) == (72, 287)
    assert not set(kept["ids"]) & set(kept["covers"])
    assert value(read_rows(run)[1], "filter_base_rate") == pytest.approx(72 / 1437)
    noted = [note for key, note in cell.evaluations().items() if key.startswith("inspect:")]
    assert [note["covers"] for note in noted] == [287]
    assert 0 <= noted[0]["removed_covers"] <= 287


def test_the_page_says_who_is_poisoned(run: RunRecord, tmp_path: Path) -> None:
    page = write_page([run], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "of all classes, each relabelled as the next class (all-to-all)" in page
    assert "all of class 3 and relabelled as class 7 (source-specific)" in page
    assert "287 further images with the trigger kept their label" in page
