"""A study on poison that others have planted: imported, retrained, filtered, inspected, measured, reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from attack_results import attack_on, write_in_file
from bascule.auditing.open import open_model, settings_for
from bascule.core.images import Splits
from bascule.plan.plan import Plan
from bascule.record.rows import RowResult, read_rows
from bascule.record.run import RunRecord
from bascule.report.page.page import write_page
from bascule.running.run import Ran

PlanMaker = Callable[..., Plan]
Runner = Callable[[Plan, RunRecord], Ran]

STUDY = """\
base:
  data: {{name: digits, held_out: 20}}
  poison: {poison}
  model: {{name: digits-cnn, width: 8, hidden: 32}}
  train: {{objective: standard, epochs: 6, batch_size: 32, lr: 5e-3}}
  attack: {{name: fgsm, eps: 0.1}}
rows:
{rows}
measure: {measure}
"""
MEASURED = "[accuracy, robust-accuracy, asr, asr-twin, asr-after-attack, trigger-strength, filter-auroc]"
OURS = "{trigger: {name: sticker, size: 2}, target: 7, label: dirty, rate: 0.1}"


def study(poison: str, measure: str = MEASURED, **rows: str) -> str:
    lines = "\n".join(f"  {name}: {text}" for name, text in rows.items())
    return STUDY.format(poison=poison, measure=measure, rows=lines)


@pytest.fixture(scope="module")
def finished(
    plan_of: PlanMaker, run_here: Runner, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Plan, RunRecord, dict[str, RowResult]]:
    """BackdoorBench's file made from what `Ours` plants, and a study of both."""
    folder = tmp_path_factory.mktemp("given")
    splits = plan_of(text=study(OURS, "[accuracy]", Ours="{}")).rows[0].setup.data.load(())
    file = write_in_file(attack_on(splits), folder)
    rows = {
        "None": "{inspect: spectral-signatures}",
        "Adv.": "{train: {objective: {name: pgd, eps: 0.1, steps: 2}}}",
        "Filtered": "{filter: spectral-signatures}",
    }
    plan = plan_of(text=study(f"{{name: given, path: '{file}'}}", **rows))
    ours = plan_of(text=study(OURS, Ours="{inspect: spectral-signatures}"))
    run = RunRecord(folder / "run")
    assert not run_here(plan, run).failures
    other = RunRecord(folder / "ours")
    assert not run_here(ours, other).failures
    found = {row.row: row for row in (*read_rows(run), *read_rows(other))}
    return plan, run, found


def test_it_is_what_our_own_poison_would_have_been(finished: tuple[Plan, RunRecord, dict[str, RowResult]]) -> None:
    _, _, rows = finished
    given, ours = rows["None"], rows["Ours"]
    for name in ("accuracy", "asr", "asr_twin", "asr_after_attack", "trigger_strength", "filter_auroc"):
        assert given.metrics[name] == ours.metrics[name], name
    assert given.metrics["asr"].value is not None
    assert given.metrics["asr"].value > 0.5
    (one,), (other,) = given.outcomes.values(), ours.outcomes.values()
    assert one.triggered is not None
    assert other.triggered is not None
    counted = one.label != 7
    assert np.array_equal(one.triggered[counted], other.triggered[counted])


def test_stamped_pictures_that_are_the_originals_are_flagged(
    plan_of: PlanMaker, run_here: Runner, digits: Splits, tmp_path: Path
) -> None:
    file = tmp_path / "copies.npz"
    np.savez(file, test_index=digits.test.ids.numpy(), test_images=digits.test.pixels.numpy())
    poison = f"{{name: given, target: 7, path: '{file}'}}"
    run = RunRecord(tmp_path / "run")
    assert not run_here(plan_of(text=study(poison, "[accuracy, asr]", Copies="{train: {epochs: 1}}")), run).failures
    (row,) = read_rows(run)
    heads = {flag.partition(":")[0] for flag in row.flags}
    assert {"nothing planted", "trigger changes nothing"} <= heads
    assert any(flag.startswith("trigger changes nothing: 100 % of the test images that count") for flag in row.flags)


def test_every_recipe_is_trained_on_it(finished: tuple[Plan, RunRecord, dict[str, RowResult]]) -> None:
    plan, run, rows = finished
    for row in rows.values():
        assert row.metrics["asr"].value is not None
        assert row.metrics["asr_twin"].value is not None, "the twin has the data's own pictures"
        assert not any(flag.startswith(("failed", "nothing planted", "trigger changes")) for flag in row.flags)
    (filtered,) = rows["Filtered"].outcomes.values()
    assert filtered.judgement is not None
    poisoned = run.cell(plan.rows[0].cells[0].fingerprint).poisoned()
    assert len(poisoned["ids"]) == filtered.judgement.poisoned.sum()


def test_the_report_shows_it(finished: tuple[Plan, RunRecord, dict[str, RowResult]], tmp_path: Path) -> None:
    _, run, _ = finished
    page = write_page([run], tmp_path / "report.html").read_text()
    assert "stamped test images of" in page
    assert "training images (10.0" in page
    assert "There is no picture of this trigger yet" not in page


def test_a_cell_of_it_is_looked_at_alone(finished: tuple[Plan, RunRecord, dict[str, RowResult]]) -> None:
    plan, run, _ = finished
    audited = open_model(run.cell(plan.rows[0].cells[0].fingerprint).path, device=torch.device("cpu"), roots=())
    settings = settings_for(audited)
    assert settings.target == 7
    assert settings.trigger == audited.poison.trigger_at_test


def test_their_model_and_their_poison_in_one_file(
    plan_of: PlanMaker, run_here: Runner, planted: Callable, digits: Splits, tmp_path: Path
) -> None:
    model = {name: value.clone() for name, value in planted(2, True).model.state_dict().items()}
    file = write_in_file(attack_on(digits), tmp_path, model=model)
    theirs = f"{{train: none, model: {{weights: '{file}'}}, data: {{held_out: 0}}}}"
    run = RunRecord(tmp_path / "run")
    plan = plan_of(text=study(f"{{name: given, path: '{file}'}}", "[accuracy, asr]", Theirs=theirs))
    assert not run_here(plan, run).failures
    (row,) = read_rows(run)
    assert row.metrics["asr"].value is not None
    assert row.metrics["asr"].value > 0.95


def test_filters_rank_where_nobody_knows_the_truth(plan_of: PlanMaker, run_here: Runner, tmp_path: Path) -> None:
    poison = "{name: given, target: 7, trigger: {name: sticker, size: 2}}"
    explain = "{inspect: spectral-signatures, explain: latents, probe: {}, train: {epochs: 1}}"
    plan = plan_of(text=study(poison, "[accuracy, asr, filter-auroc]", Unknown=explain))
    assert not plan.rows[0].twins, "there are no unpoisoned data to train a twin on"
    run = RunRecord(tmp_path / "run")
    assert not run_here(plan, run).failures
    (row,) = read_rows(run)
    assert row.metrics["filter_auroc"].value is None
    assert any(flag.startswith("truth unknown: nobody says which training images") for flag in row.flags)
    assert any(flag.startswith("nothing planted: there are no pictures of training images") for flag in row.flags)
    assert run.cell(plan.rows[0].cells[0].fingerprint).info()["poisoned"] is None
    page = write_page([run], tmp_path / "report.html").read_text()
    assert "Nobody says which training images of Unknown are poisoned: not measured." in page
    assert "which training images are poisoned is not known" in page
