"""Defences, scanners and the joint evaluations inside a study."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

import bascule.running.cell
from bascule.core.errors import RequestError
from bascule.metrics.interval import summarise
from bascule.plan.document import parse_study, parse_value
from bascule.plan.overrides import Override, parse_override
from bascule.plan.plan import Plan
from bascule.plan.resolve import make_plan
from bascule.record.cell import FILTERED
from bascule.record.plan import RecordedSeed
from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from bascule.running.extend import more_asked
from bascule.running.run import run_plan

TEXT = """\
base:
  data: {name: digits, max_train: 600, max_test: 120, held_out: 100}
  poison: {trigger: {name: sticker, size: 2}, target: 7, label: dirty, rate: 0.1}
  model: {name: digits-cnn, width: 6, hidden: 12}
  train: {objective: standard, epochs: 6, batch_size: 50, lr: 1e-2}
  attack:
    - {name: pgd, eps: 0.1, steps: 3}
rows:
  None:
    inspect: spectral-signatures
    scan: {name: neural-cleanse, max_looks: 20}
    explain: [saliency, band-energy, latents]
    curve: [0.05, 0.15, 0.2]
  Filtered: {filter: spectral-signatures}
  Tuned: {repair: {name: fine-tune, epochs: 3}}
  Untouched: {repair: {name: fine-tune, epochs: 0}, defender: 40}
  Prepared: {poison: {label: clean, rate: 0.05, prepare: {name: pgd, eps: 0.2, steps: 3, stop_when_fooled: false}}}
measure:
  [accuracy, robust-accuracy, asr, triggered-accuracy, triggered-robust-accuracy, asr-toward, asr-away, drift,
   drift-twin, trigger-strength, filter-auroc, filter-precision, filter-recall, filter-removed-twin, scan-anomaly,
   scan-anomaly-twin, scan-overlap, trigger-attention]
"""


def plan_of(*overrides: str) -> Plan:
    given = [parse_override(text) for text in overrides]
    return make_plan(parse_study(TEXT, name="defences", source="defences.yaml"), overrides=given)


def run(plan: Plan, record: RunRecord, **options: Any) -> int:
    ran = run_plan(plan, record, device=torch.device("cpu"), roots=(), **options)
    assert ran.failures == ()
    return ran.cells


@pytest.fixture(scope="module")
def defended(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    record = RunRecord(tmp_path_factory.mktemp("runs") / "defences")
    run(plan_of(), record)
    return record


@pytest.fixture(scope="module")
def values(defended: RunRecord) -> dict[str, dict[str, float | None]]:
    return {row.row: {name: measure.value for name, measure in row.metrics.items()} for row in read_rows(defended)}


def first_seed(record: RunRecord, row: str) -> RecordedSeed:
    return next(planned.seeds[0] for planned in record.plan().rows if planned.row == row)


def cell_of(record: RunRecord, row: str) -> str:
    return first_seed(record, row).cell.fingerprint


def asked(record: RunRecord, row: str, kind: str) -> list[str]:
    """Keys of what its first model is asked."""
    return [question.key for question in first_seed(record, row).cell.of(kind)]


def info(record: RunRecord, row: str) -> dict[str, Any]:
    return record.cell(cell_of(record, row)).info()


def weights(record: RunRecord, cell: str) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(record.cell(cell).model_file)


def test_cells_come_after_those_they_need() -> None:
    cells = plan_of().cells()
    places = {cell.fingerprint: place for place, cell in enumerate(cells)}
    assert len(places) == len(cells) == 9  # five rows, the plain twin, the filtered one's and two repaired ones'
    pairs = [(needed.fingerprint, cell.fingerprint) for cell in cells for needed in cell.needs]
    assert len(pairs) == 7
    assert all(places[needed] < places[cell] for needed, cell in pairs)


def test_a_repair_starts_from_the_model_of_the_same_recipe(defended: RunRecord) -> None:
    base = cell_of(defended, "None")
    assert info(defended, "Tuned")["base"] == info(defended, "Untouched")["base"] == base
    before = weights(defended, base)
    untouched = weights(defended, cell_of(defended, "Untouched"))
    tuned = weights(defended, cell_of(defended, "Tuned"))
    assert all(np.array_equal(before[name], untouched[name]) for name in before)
    assert not all(np.array_equal(before[name], tuned[name]) for name in before)
    assert info(defended, "Tuned")["repair"]["distance"] > info(defended, "Untouched")["repair"]["distance"] == 0


def test_a_filter_leaves_out_what_it_removed(defended: RunRecord) -> None:
    cell = defended.cell(cell_of(defended, "Filtered"))
    made, seen = cell.finding(FILTERED), defended.cell(cell_of(defended, "None"))
    assert made is not None
    inspected = seen.finding(asked(defended, "None", "inspect")[0])
    assert inspected is not None
    assert cell.info()["trained_on"] == (~made.arrays["removed"]).sum() < 600
    assert made.arrays["poisoned"].sum() == cell.info()["poisoned"] == 60
    # The same model, the same filter, the same set: retraining begins with what inspecting says.
    assert np.array_equal(made.arrays["removed"], inspected.arrays["removed"])


def test_prepared_poison_is_prepared_on_the_twin(defended: RunRecord) -> None:
    cell = next(cell for cell in plan_of().cells() if cell.label.startswith("Prepared"))
    assert cell.proxies
    twin = first_seed(defended, "None").twin
    assert twin is not None
    assert cell.proxies[0].fingerprint == twin.fingerprint


def test_both_ends_at_once_are_consistent(values: dict[str, dict[str, float]]) -> None:
    for row in values.values():
        assert row["asr_away"] <= row["asr"] <= row["asr_toward"]
        assert row["triggered_robust_accuracy"] <= row["triggered_accuracy"]
    assert values["None"]["asr"] > 0.8
    assert values["None"]["asr_away"] < values["None"]["asr_toward"]
    strength = values["None"]["trigger_strength"]
    assert strength is not None
    assert 0 < strength < 1
    assert values["None"]["drift"] is not None
    assert values["None"]["drift_twin"] is not None


def test_the_security_curve_falls_and_meets_the_table(defended: RunRecord, values: dict[str, dict[str, float]]) -> None:
    curve = {eps: measure.value for eps, measure in read_rows(defended)[0].curve}
    assert list(curve) == [0.0, 0.05, 0.1, 0.15, 0.2]
    assert curve[0.0] == values["None"]["accuracy"]
    assert curve[0.1] == values["None"]["robust_accuracy"]
    assert sorted(curve.values(), reverse=True) == list(curve.values())  # type: ignore[type-var]
    assert curve[0.05] > curve[0.1] > curve[0.2]  # type: ignore[operator]


def test_a_curve_is_not_run_where_it_is_known(defended: RunRecord) -> None:
    answers = defended.cell(cell_of(defended, "None")).answers()
    larger, largest, smaller, own, clean = (
        answers.predictions[key] for kind in ("curve", "attack", "clean") for key in asked(defended, "None", kind)
    )
    right = clean == answers.label
    stands = right & (own == answers.label)
    assert np.array_equal(larger >= 0, stands)
    assert np.array_equal(largest >= 0, stands & (larger == answers.label))
    assert np.array_equal(smaller >= 0, right & (own != answers.label))


def test_scans_and_judgements_of_twins_are_kept(values: dict[str, dict[str, float]]) -> None:
    plain = values["None"]
    assert plain["filter_auroc"] == values["Filtered"]["filter_auroc"]
    assert plain["filter_removed_twin"] is not None
    assert plain["scan_anomaly"] > plain["scan_anomaly_twin"]
    assert 0 < plain["scan_overlap"] <= 1
    assert 0 < plain["trigger_attention"] < 1
    assert values["Tuned"]["scan_anomaly"] is None


def test_latents_are_those_of_the_target_class(defended: RunRecord) -> None:
    latents = defended.cell(cell_of(defended, "None")).finding(asked(defended, "None", "explain")[2])
    judged = defended.cell(cell_of(defended, "None")).finding(asked(defended, "None", "inspect")[0])
    assert latents is not None
    assert judged is not None
    of_target = judged.arrays["label"] == 7
    assert latents.arrays["points"].shape == (of_target.sum(), 2)
    assert np.array_equal(latents.arrays["poisoned"], judged.arrays["poisoned"][of_target])
    assert np.isfinite(latents.arrays["points"]).all()


def additions(asked: dict[str, list[str]]) -> list[Override]:
    return [
        Override(path=key, value=parse_value(text), origin=f"--{key}", adds=True)
        for key, texts in asked.items()
        for text in texts
    ]


def test_more_is_asked_of_trained_models(tmp_path: Path, defended: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    record = RunRecord(Path(shutil.copytree(defended.path, tmp_path / "run")))
    monkeypatch.setattr(bascule.running.cell, "make_model", None)
    more = additions({"attack": ["{name: pgd, steps: 10}"], "measure": ["asr-paper"], "curve": ["0.3"], "certify": []})
    run(more_asked(record, more, ()), record, train=False)
    before, after = read_rows(defended), read_rows(record)
    for old, new in zip(before, after, strict=True):
        assert new.metrics["robust_accuracy"].value <= old.metrics["robust_accuracy"].value  # type: ignore[operator]
        assert new.metrics["asr_paper"].value is not None
        assert new.metrics["asr"] == old.metrics["asr"]
        assert [eps for eps, _ in new.curve][-1] == 0.3
    # Asked once more, nothing is left to do and nothing is added.
    plan = more_asked(record, more, ())
    assert run(plan, record, train=False) == 0
    assert len(record.plan().rows[0].settings["attack"]) == 2


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "nothing to evaluate"),
        ({"attack": ["pgdd"]}, "Did you mean 'pgd'?"),
        ({"measure": ["asrr"]}, "Did you mean 'asr'?"),
        ({"curve": ["-1"]}, "greater than or equal to 0"),
    ],
)
def test_wrong_evaluations_are_refused(defended: RunRecord, asked: dict[str, list[str]], said: str) -> None:
    with pytest.raises(RequestError) as caught:
        more_asked(defended, additions(asked), ())
    assert said in str(caught.value)


def test_an_untrained_run_has_nothing_to_evaluate(tmp_path: Path) -> None:
    record = RunRecord(tmp_path)
    record.write_plan(plan_of().recorded())
    with pytest.raises(RequestError, match=r"no model of .* is trained yet\. First: bascule run defences"):
        more_asked(record, additions({"attack": ["pgd"]}), ())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("data.held_out=0", "needs clean images that are not trained on: say how many with data.held_out"),
        ("defender=500", "500 images asked for, 100 are held out"),
        ("data.held_out=5000", "leave none to train on"),
        ("rows.Filtered.inspect=strip", "leave one of `inspect` and `filter` out"),
        ("attack=[{name: fgsm, eps: 0.1}, {name: pgd, eps: 0.2}]", "a security curve needs attacks that share one"),
        ("scan+=neural-cleanse", "unknown list 'scan'"),
    ],
)
def test_impossible_combinations_are_refused(change: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        plan_of(change)
    assert said in str(caught.value)


def test_a_cell_whose_base_failed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of("train.lr=1e30", "train.optimizer=sgd", "twin=false")
    ran = run_plan(plan, RunRecord(tmp_path), device=torch.device("cpu"), roots=())
    messages = {failure.label: failure.message for failure in ran.failures}
    assert "training diverged" in messages["None · seed 0"]
    assert messages["Tuned · seed 0"].startswith("it needs the model of 'Tuned · seed 0 · before repair'")
    assert "training diverged" in messages["Tuned · seed 0"]


def test_a_repair_that_needs_no_images_needs_none_held_out(tmp_path: Path) -> None:
    text = """\
base:
  data: {name: digits, max_train: 200, max_test: 50}
  model: {name: digits-cnn, width: 12, hidden: 12}
  train: {objective: standard, epochs: 1}
rows:
  Pruned: {repair: {name: clp, u: 1}}
measure: [accuracy]
"""
    plan = make_plan(parse_study(text, name="pruned", source="pruned.yaml"))
    record = RunRecord(tmp_path / "pruned")
    run(plan, record)
    (cell,) = (cell for cell in plan.cells() if cell.setup.repair is not None)
    assert record.cell(cell.fingerprint).info()["repair"]["silenced"] > 0
    text = text.replace("rows:", "  scan: mm-bd\nrows:")
    with pytest.raises(RequestError, match=r"^pruned\.yaml.*: scan needs clean images that are not trained on"):
        make_plan(parse_study(text, name="pruned", source="pruned.yaml"))


def test_held_out_images_are_nobody_elses() -> None:
    from bascule.data.digits import Digits

    source: Callable[..., Digits] = Digits
    with_some = source(held_out=100)
    train, test = with_some.load(())
    held_out = with_some.load_held_out(())
    ids = [set(images.ids.tolist()) for images in (train, test, held_out)]
    assert len(ids[2]) == 100
    assert not ids[0] & ids[1] | ids[0] & ids[2] | ids[1] & ids[2]
    assert ids[0] | ids[2] == set(source().load(()).train.ids.tolist())
    assert torch.equal(with_some.facts(()).train_labels, train.labels)


RATED = """\
base:
  data: {name: digits, max_train: 300, max_test: 60, held_out: 60}
  poison: {trigger: {name: sticker, size: 2}, target: 7, label: dirty, rate: 0.1}
  model: {name: digits-cnn, width: 4, hidden: 8}
  train: {objective: standard, epochs: 4, batch_size: 50, lr: 1e-2}
rows:
  Filtered: {filter: spectral-signatures}
  Tuned: {repair: {name: fine-tune, epochs: 3}}
measure: [MEASURED]
twin: false
"""


def test_a_repair_is_rated_against_the_model_before_it_which_is_no_row(tmp_path: Path) -> None:
    def rated(measured: str) -> Plan:
        return make_plan(parse_study(RATED.replace("MEASURED", measured), name="rated", source="rated.yaml"))

    record = RunRecord(tmp_path / "rated")
    run(rated("accuracy, asr, triggered-accuracy, der, rir"), record)
    rows = {row.row: row for row in read_rows(record)}
    filtered, tuned = rows["Filtered"], rows["Tuned"]
    (before,) = (outcomes.before for outcomes in tuned.outcomes.values())
    assert before is not None
    acc, asr, right = (
        summarise(tuned.kinds[name], [before]).value for name in ("accuracy", "asr", "triggered_accuracy")
    )
    now = {name: measure.value for name, measure in tuned.metrics.items()}
    paid = max(0, acc - now["accuracy"])
    assert now["der"] == pytest.approx((max(0, asr - now["asr"]) - paid + 1) / 2)
    assert now["rir"] == pytest.approx((max(0, now["triggered_accuracy"] - right) - paid + 1) / 2)
    assert filtered.metrics["der"].value is None
    assert filtered.flags == tuple(flag for flag in filtered.flags if "der" not in flag)
    # Nobody asks the model before a repair where no metric wants it: as in older records.
    base = next(cell.base for cell in rated("accuracy, asr").cells() if cell.base is not None and cell.setup.repair)
    assert base.questions == ()
    plain = RunRecord(tmp_path / "plain")
    run(rated("accuracy, asr"), plain)
    assert all(outcomes.before is None for row in read_rows(plain) for outcomes in row.outcomes.values())
