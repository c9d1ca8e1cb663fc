"""Objectives that follow single images, and losses of single images, in a run: kept, continued, joined afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bascule.core.errors import RequestError
from bascule.plan.document import parse_study
from bascule.plan.plan import Plan
from bascule.plan.resolve import make_plan
from bascule.record.cell import ISOLATED
from bascule.record.mending import mend_cell
from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from interruptible import run_killed
from pages import read_page

TEXT = """
title: Courses
base:
  data: {name: digits, max_train: 300, max_test: 60}
  poison: {trigger: {name: sticker, size: 2}, target: 7, label: dirty, rate: 0.1}
  model: {name: digits-cnn, width: 4, hidden: 16}
  train: {objective: standard, epochs: 5, batch_size: 50, lr: 1e-2}
  probe: {images: 20, every: 2, per_sample: true}
rows:
  None: {}
  ABL: {train: {objective: {name: abl, isolate: 0.1, inner: {name: fast, eps: 0.05}}}}
seeds: 1
measure: [accuracy, asr, filter-recall, filter-precision]
"""
EPOCHS = (2, 4, 5)


def plan(text: str = TEXT) -> Plan:
    return make_plan(parse_study(text, name="courses", source="courses.yaml"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, run_here: Callable) -> RunRecord:
    run = RunRecord(tmp_path_factory.mktemp("runs") / "courses")
    assert run_here(plan(), run).failures == ()
    return run


def test_killed_and_continued_it_ends_in_the_same_bytes(made: RunRecord, tmp_path: Path, run_here: Callable) -> None:
    cut = RunRecord(tmp_path / "cut")
    run_killed(run_here, plan(), cut, 8, 17, 45, 60, 77, 90)
    for cell in plan().cells():
        one, other = made.cell(cell.fingerprint), cut.cell(cell.fingerprint)
        assert one.model_file.read_bytes() == other.model_file.read_bytes()
        first, second = one.losses(), other.losses()
        assert tuple(first) == tuple(second) == EPOCHS
        assert all(np.array_equal(a, b) for epoch in EPOCHS for a, b in zip(first[epoch], second[epoch], strict=True))
        isolated = [record.finding(ISOLATED) for record in (one, other)]
        assert (isolated[0] is None) == (isolated[1] is None) == ("abl" not in str(cell.settings()))
        if isolated[0] is not None:
            assert isolated[1] is not None
            assert all(np.array_equal(value, isolated[1].arrays[key]) for key, value in isolated[0].arrays.items())


def test_losses_are_those_of_the_model_and_hold_no_truth(made: RunRecord) -> None:
    """The kept losses are of all images that are trained on, by id, and nothing else is kept with them."""
    for row in made.plan().rows:
        record = made.cell(row.seeds[0].cell.fingerprint)
        poisoned, losses = record.poisoned()["ids"], record.losses()
        for epoch, (ids, values) in losses.items():
            with np.load(record.losses_folder / f"{epoch}.npz") as stored:
                assert sorted(stored.files) == ["id", "loss"]
            assert values.dtype == np.float16
            assert len(set(ids.tolist())) == len(ids) == len(values) == 300
            assert np.isin(poisoned, ids).all()
            assert np.isfinite(values).all()
    twin = made.cell(made.plan().rows[0].seeds[0].twin.fingerprint)  # type: ignore[union-attr]
    assert tuple(twin.losses()) == EPOCHS


def test_what_was_isolated_is_measured_like_a_filter(made: RunRecord) -> None:
    rows = {row.row: row for row in read_rows(made)}
    cell = next(row for row in made.plan().rows if row.row == "ABL").seeds[0].cell
    record = made.cell(cell.fingerprint)
    finding = record.finding(ISOLATED)
    assert finding is not None
    removed, poisoned = finding.arrays["removed"], finding.arrays["poisoned"]
    assert removed.sum() == record.info()["isolated"] == finding.info["removed"] == 30
    assert poisoned.sum() == 30
    assert rows["ABL"].metrics["filter_recall"].value == pytest.approx((removed & poisoned).sum() / 30)
    assert rows["ABL"].metrics["filter_precision"].value == pytest.approx((removed & poisoned).sum() / 30)
    assert rows["None"].metrics["filter_recall"].value is None


def test_the_page_draws_both_and_names_what_was_isolated(made: RunRecord, tmp_path: Path) -> None:
    page = read_page([made], tmp_path / "page.html")
    labels = [svg["aria-label"] for svg in page.all("svg", **{"class": "chart"})]
    told = [label for label in labels if "median cross-entropy of training images: poisoned from" in label]
    assert len(told) == 2
    assert "isolated in training" in page.section("filters")


def test_losses_that_are_damaged_are_set_aside_and_the_rest_is_read(tmp_path: Path, made: RunRecord) -> None:
    import shutil

    run = RunRecord(Path(shutil.copytree(made.path, tmp_path / "run")))
    record = run.cell(plan().cells()[0].fingerprint)
    (record.losses_folder / "4.npz").write_bytes(b"broken")
    assert [error.path.name for error in mend_cell(record)] == ["4.npz"]
    assert tuple(record.losses()) == (2, 5)


def test_without_being_asked_for_nothing_is_kept_and_no_name_changes(finished: RunRecord) -> None:
    for row in finished.plan().rows:
        assert finished.cell(row.seeds[0].cell.fingerprint).losses() == {}
    asked, plain = plan(), plan(TEXT.replace(", per_sample: true", ""))
    assert [cell.fingerprint for cell in asked.cells()] == [cell.fingerprint for cell in plain.cells()]


def test_a_training_that_is_too_short_is_an_error(tmp_path: Path, run_here: Callable) -> None:
    with pytest.raises(RequestError, match="abl isolates after 1 and unlearns for 1 of 1 epochs"):
        run_here(plan(TEXT.replace("epochs: 5", "epochs: 1")), RunRecord(tmp_path / "run"))
