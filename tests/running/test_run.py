"""Running: nothing twice, the same result whatever interrupts it, a failed cell leaves the others be."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import bascule.evaluation.subject
import bascule.record.sums
import bascule.running.make
from bascule.core.errors import RequestError
from bascule.core.files import write_atomically
from bascule.core.text import count
from bascule.metrics.contract import MISSING
from bascule.plan.plan import Plan
from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from bascule.running.run import Ran, pick_device, run_plan
from interruptible import Killed, run_killed


def table(run: RunRecord) -> list[dict]:
    return [row.as_dict() for row in read_rows(run)]


def test_the_row_format_is_the_documented_one(finished: RunRecord) -> None:
    row = table(finished)[1]
    assert list(row) == ["study", "row", "data", "vary", "seeds", "metrics", "flags"]
    assert (row["study"], row["row"], row["data"], row["vary"], row["seeds"]) == (
        "tiny",
        "Adv. training",
        "digits",
        {},
        2,
    )
    assert list(row["metrics"]) == ["accuracy", "robust_accuracy", "asr", "asr_paper", "asr_twin", "triggered_accuracy"]
    accuracy = row["metrics"]["accuracy"]
    assert list(accuracy) == ["value", "low", "high", "n", "unit", "better"]
    assert accuracy["n"] == 60
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]


def test_the_table_counts_what_the_outcomes_say(finished: RunRecord) -> None:
    shares = []
    for seed in finished.plan().rows[0].seeds:
        answers = finished.cell(seed.cell.fingerprint).answers()
        triggered = answers.predictions[seed.cell.of("triggered")[0].key]
        counted = [p == 7 for p, label in zip(triggered, answers.label, strict=True) if label != 7]
        shares.append(sum(counted) / len(counted))
    assert table(finished)[0]["metrics"]["asr"]["value"] == pytest.approx(sum(shares) / 2)


def test_a_later_attack_meets_only_what_withstood(finished: RunRecord) -> None:
    cell = finished.plan().rows[0].seeds[0].cell
    answers = finished.cell(cell.fingerprint).answers()
    first, second = (answers.predictions[attack.key] for attack in cell.of("attack"))
    right = answers.predictions[cell.of("clean")[0].key] == answers.label
    assert ((first != MISSING) == right).all()
    assert ((second != MISSING) == (right & (first == answers.label))).all()


def test_a_finished_study_does_nothing(finished: RunRecord, plan_of, run_here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bascule.running.make, "train", None)

    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (finished.path / "cells").rglob("*") if path.is_file()}

    before = files()
    assert run_here(plan_of(), finished).cells == 0
    assert files() == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("attack=[{name: fgsm, eps: 0.1}, {name: pgd, eps: 0.2, steps: 3}]", "attack[1].eps: 0.1 then, 0.2 now"),
        ("measure=[accuracy, asr]", ""),
        ("data.max_test=40", "row 'None': data.max_test: 60 then, 40 now"),
        ("seeds=1", "1 seed then that is not asked for now"),
    ],
)
def test_more_evaluation_trains_nothing(
    tmp_path: Path, finished: RunRecord, plan_of, monkeypatch: pytest.MonkeyPatch, change: str, told: str
) -> None:
    import shutil

    said: list[str] = []

    def run_here(plan: Plan, run: RunRecord) -> Ran:
        return run_plan(plan, run, device=torch.device("cpu"), roots=(), warn=said.append)

    run = RunRecord(Path(shutil.copytree(finished.path, tmp_path / "run")))
    monkeypatch.setattr(bascule.running.make, "train", None)
    assert run_here(plan_of(change), run).failures == ()
    assert all(row["seeds"] == (1 if change == "seeds=1" else 2) for row in table(run))
    assert told in " ".join(said)
    assert bool(said) == bool(told)
    assert run_here(plan_of(), run).cells == 0  # and the first study's table is still there
    assert [row["metrics"] for row in table(run)] == [row["metrics"] for row in table(finished)]


def test_interrupted_at_every_write_ends_in_the_same_bytes(
    tmp_path: Path, plan_of, run_here, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(seeds=1)
    whole, cut = RunRecord(tmp_path / "whole"), RunRecord(tmp_path / "cut")
    run_here(plan, whole)
    writes = 0

    def write_until_killed(path: Path, write) -> None:
        """Kill before the third file of the first attempt, the fourth of the second, and so on in turn."""
        nonlocal writes
        writes += 1
        if writes > 2 + attempts % 13:
            raise Killed
        write_atomically(path, write)

    # Each file of a record is written through here, and its sum before it.
    monkeypatch.setattr(bascule.record.sums, "write_atomically", write_until_killed)
    attempts = 0
    while True:
        attempts, writes = attempts + 1, 0
        try:
            run_here(plan, cut)
        except Killed:
            continue
        break
    assert attempts > 10
    assert table(cut) == table(whole)
    for cell in plan.cells():
        one, other = whole.cell(cell.fingerprint), cut.cell(cell.fingerprint)
        assert one.model_file.read_bytes() == other.model_file.read_bytes()
        assert one.answers().predictions.keys() == other.answers().predictions.keys()
        for key, values in one.answers().predictions.items():
            assert np.array_equal(values, other.answers().predictions[key]), key


def test_killed_training_continues_from_its_checkpoint(tmp_path: Path, plan_of, run_here) -> None:
    plan = plan_of("twin=false", "train.epochs=4", seeds=1)
    whole, cut = RunRecord(tmp_path / "whole"), RunRecord(tmp_path / "cut")
    run_here(plan, whole)
    # Two rows of 4 x 6 steps, and the two steps that were killed before they counted: nothing else was done again.
    assert run_killed(run_here, plan, cut, 9, 30) == 2 * 24 + 2
    for cell in plan.cells():
        model = whole.cell(cell.fingerprint).model_file.read_bytes()
        assert cut.cell(cell.fingerprint).model_file.read_bytes() == model


def test_sigkill_at_random_moments(tmp_path: Path, finished: RunRecord) -> None:
    import yaml

    plan = finished.plan()
    study = tmp_path / "tiny.yaml"
    study.write_text(plan.text)
    assert yaml.safe_load(plan.text)["seeds"] == 2
    command = [sys.executable, "-c", "from bascule.cli import main; main()", "run", str(study), "--runs", str(tmp_path)]
    chance = random.Random(0)
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
        time.sleep(chance.uniform(1.5, 3.5))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    assert table(RunRecord(tmp_path / "tiny")) == table(finished)


def test_a_diverged_cell_is_named_with_its_step_and_the_others_are_finished(tmp_path: Path, plan_of, run_here) -> None:
    run = RunRecord(tmp_path)
    plan = plan_of("rows.None.train.lr=1e30", "rows.None.train.optimizer=sgd", seeds=1)
    ran = run_here(plan, run)
    assert [failure.label for failure in ran.failures] == ["None · seed 0", "None · seed 0 · twin"]
    assert "training diverged at step" in ran.failures[0].message
    failed, good = table(run)
    assert failed["seeds"] == 0
    assert failed["metrics"]["accuracy"]["value"] is None
    assert any("failed: seed 0: training diverged" in flag for flag in failed["flags"])
    assert good["seeds"] == 1
    assert run_here(plan, run).cells == 2  # failed cells are tried again, finished ones are not


def test_a_failure_that_has_passed_is_forgotten(
    tmp_path: Path, plan_of, run_here, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plan = RunRecord(tmp_path), plan_of("twin=false", seeds=1)
    with monkeypatch.context() as patched:
        patched.setattr(bascule.evaluation.subject, "run_attack", lambda *a, **k: 1 / 0)
        assert {failure.message for failure in run_here(plan, run).failures} == {"division by zero"}
    assert all(row["metrics"]["accuracy"]["value"] is not None for row in table(run))
    assert all(row["metrics"]["robust_accuracy"]["value"] is None for row in table(run))
    assert run_here(plan, run).failures == ()
    assert not any("failed" in flag or "unfinished" in flag for row in table(run) for flag in row["flags"])


def test_damaged_data_stop_the_run_with_the_file(tmp_path: Path, plan_of, run_here, monkeypatch) -> None:
    from bascule.data.digits import Digits

    def damaged(self, roots):
        raise RequestError("somewhere/images: damaged file")

    plan = plan_of(seeds=1)
    monkeypatch.setattr(Digits, "read", damaged)
    with pytest.raises(RequestError, match="damaged file"):
        run_here(plan, RunRecord(tmp_path))


def test_devices() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda")
    for wrong in ("gpu", "tpu:0", "cuda:99", "meta"):
        with pytest.raises(RequestError, match=r"^device: "):
            pick_device(wrong)


CERTIFIED = [
    "certify={name: interval, eps: 0.05}",
    "measure=[accuracy, robust-accuracy, certified-accuracy]",
    "twin=false",
]


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory, plan_of, run_here) -> RunRecord:
    """The tiny study with certified training, bounds, and an attack inside the certified ball."""
    run = RunRecord(tmp_path_factory.mktemp("certified"))
    change = [
        "rows.Adv. training.train={objective: {name: ibp, eps: 0.1}, epochs: 20}",
        "attack={name: pgd, eps: 0.05}",
    ]
    assert run_here(plan_of(*CERTIFIED, *change, seeds=1), run).failures == ()
    return run


def test_certified_accuracy_is_below_robust_accuracy_for_every_image(certified: RunRecord) -> None:
    row = table(certified)[1]
    values = {name: metric["value"] for name, metric in row["metrics"].items()}
    assert 0.2 < values["certified_accuracy"] <= values["robust_accuracy"] <= values["accuracy"]
    assert not any("bound" in flag for flag in row["flags"])


def test_a_wrong_bound_is_flagged(tmp_path: Path, certified: RunRecord) -> None:
    import shutil

    run = RunRecord(Path(shutil.copytree(certified.path, tmp_path / "run")))
    cell = run.plan().rows[0].seeds[0].cell
    record = run.cell(cell.fingerprint)
    answers = record.answers()
    proof, prediction = cell.of("certify")[0].key, answers.predictions[cell.of("attack")[0].key]
    fooled = (prediction != answers.label) & (prediction != MISSING)
    assert fooled.sum() > 0
    record.add_outcomes(answers.id, answers.label, np.where(fooled, 0.05, 0.0), key=proof, info={})
    images = count(int(fooled.sum()), "image")
    expected = f"certified and yet fooled: {images} inside the certified ball; a bound is wrong"
    assert expected in table(run)[0]["flags"]


def test_bounds_are_added_without_training(tmp_path: Path, finished: RunRecord, plan_of, run_here, monkeypatch) -> None:
    import shutil

    run = RunRecord(Path(shutil.copytree(finished.path, tmp_path / "run")))
    monkeypatch.setattr(bascule.running.make, "train", None)
    with pytest.warns(UserWarning, match="row 'None': something of the twin is not asked any more"):
        assert run_here(plan_of(*CERTIFIED), run).failures == ()
    assert all(row["metrics"]["certified_accuracy"]["value"] is not None for row in table(run))


def test_who_wants_to_know_is_told_when_the_record_has_changed(plan_of, tmp_path: Path) -> None:
    run, seen = RunRecord(tmp_path), []
    plan = plan_of("twin=false", "rows.None.train.lr=1e30", seeds=1)

    def look() -> None:
        cells = [run.cell(cell.fingerprint) for cell in plan.cells()]
        seen.append([(cell.trained, cell.failure() is not None) for cell in cells])

    assert len(run_plan(plan, run, device=torch.device("cpu"), roots=(), changed=look).failures) == 1
    failed, done, nothing = (False, True), (True, False), (False, False)
    assert seen == [[nothing, nothing], [failed, nothing], [failed, done]]
