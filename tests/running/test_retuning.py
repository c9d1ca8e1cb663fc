"""Retuning, from the study to the table: a repaired backdoor wakes, its twin learns none of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from bascule.core.errors import RequestError
from bascule.record.rows import RowResult, read_rows
from bascule.record.run import RunRecord

STUDY = """
base:
  data: {name: digits, held_out: 200}
  poison: {trigger: {name: sticker, size: 2}, label: dirty, target: 7, rate: 0.1}
  model: digits-cnn
  train: {objective: standard, epochs: 12, batch_size: 64, lr: 3e-3, schedule: one-cycle}
  retune: {images: 200, poisoned: 3, batch_size: 32, epochs: 5}
rows:
  Awake: {}
  Repaired: {repair: unlearn}
  Clean label: {poison: {label: clean}}
measure: [accuracy, asr, asr-twin, asr-retuned, asr-retuned-clean, asr-retuned-twin, accuracy-retuned]
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, plan_of, run_here) -> RunRecord:
    run = RunRecord(tmp_path_factory.mktemp("retuned"))
    assert run_here(plan_of(text=STUDY), run).failures == ()
    return run


def value(row: RowResult, name: str) -> float:
    found = row.metrics[name].value
    assert found is not None
    return found


def test_a_repaired_model_wakes_and_its_twin_does_not(run: RunRecord) -> None:
    awake, repaired, _ = read_rows(run)
    assert value(awake, "asr") > 0.9
    assert value(repaired, "asr") < 0.3
    assert value(repaired, "asr_retuned") > value(repaired, "asr") + 0.2
    assert value(repaired, "asr_retuned_twin") < 0.2
    assert value(repaired, "asr_retuned_clean") < value(repaired, "asr_retuned")
    for row in (awake, repaired):
        assert value(row, "accuracy_retuned") > value(row, "accuracy") - 0.05
    assert any(flag.startswith("backdoor sleeps: ASR is ") for flag in repaired.flags)
    assert not any(flag.startswith("backdoor sleeps") for flag in awake.flags)


def test_the_label_is_that_of_the_poison(run: RunRecord, plan_of) -> None:
    labels = [
        next(one.component.label for one in row.cells[0].questions if one.kind == "retuned-triggered")
        for row in plan_of(text=STUDY).rows
    ]
    assert labels == ["dirty", "dirty", "clean"]


def test_models_are_the_same_with_and_without_it(plan_of) -> None:
    with_it, without = (
        [cell.fingerprint for cell in plan_of(*changes, text=STUDY).cells()] for changes in ((), ("retune=null",))
    )
    assert with_it == without


def test_what_is_missing_is_asked_again_and_answered_alike(run: RunRecord, plan_of, run_here, tmp_path: Path) -> None:
    copied = RunRecord(shutil.copytree(run.path, tmp_path / "again"))
    cell = plan_of(text=STUDY).rows[1].cells[0]
    before = run.cell(cell.fingerprint).answers()
    copied.cell(cell.fingerprint).outcomes_file.unlink()
    assert run_here(plan_of(text=STUDY), copied).failures == ()
    after = copied.cell(cell.fingerprint).answers()
    assert before.predictions.keys() == after.predictions.keys()
    for key, values in before.predictions.items():
        assert values.tolist() == after.predictions[key].tolist(), key


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("retune.images=201",), r"retune.images.*201 images asked for, 200 are held out"),
        (
            ("data.held_out=0", "retune.images=2000", "rows.Repaired.repair=null"),
            "2,000 images asked for, the training set has",
        ),
        (
            (
                "data.held_out=0",
                "data.max_train=40",
                "retune={images: 40, poisoned: 40}",
                "rows.Repaired.repair=null",
            ),
            r"retune.poisoned.*40 asked for; there are \d+ clean images that (dirty|clean)-label poison may stamp",
        ),
        (
            ("attack={name: spatial, pixels: 100}",),
            r"attack.*pixels: shifts by up to 100 pixels push images of 8 x 8 out",
        ),
        (("retune.poisoned=300",), "300 of 200 images cannot be"),
        (("retune.steps=3",), "steps"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(plan_of, overrides: tuple[str, ...], expected: str) -> None:
    with pytest.raises(RequestError, match=expected):
        plan_of(*overrides, text=STUDY)


def test_poison_of_others_needs_clean_images_and_a_trigger_that_stamps_them(
    plan_of, run_here, digits, tmp_path: Path
) -> None:
    def plan(poison: str, retune: str = "{images: 20, poisoned: 2}"):
        lines = STUDY.splitlines()
        changes = {
            "  poison:": f"  poison: {poison}",
            "  retune:": f"  retune: {retune}",
            "  Repaired:": "",
            "  Clean label:": "",
        }
        text = "\n".join(next((new for old, new in changes.items() if line.startswith(old)), line) for line in lines)
        return plan_of(text=text)

    with pytest.raises(RequestError, match="retune: the data are poisoned already"):
        plan("{name: given, trigger: {name: sticker, size: 2}, target: 7}")
    file = tmp_path / "theirs.npz"
    train, test = digits.train, digits.test
    np.savez(
        file, train_index=train.ids[:9].numpy(), train_images=train.pixels[:9].numpy(), train_labels=np.full(9, 7),
        test_index=test.ids.numpy(), test_images=test.pixels.numpy(),
    )  # fmt: skip
    theirs = f"{{name: given, path: '{file}', target: 7}}"
    with pytest.raises(RequestError, match=r"retune\.poisoned: the trigger is known on stamped test images alone"):
        plan(theirs)
    assert plan(theirs, "{images: 20, poisoned: 0}").rows[0].cells[0].questions[-1].kind == "retuned"
    stamped = plan(theirs.replace("}", ", trigger: {name: sticker, size: 2}}"))
    (question, _) = (one for one in stamped.rows[0].cells[0].questions if one.kind == "retuned-triggered")
    assert question.component.label == "dirty"
