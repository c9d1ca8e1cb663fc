"""Triggers that are searched for on a proxy, inside a study."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bascule.auditing.open import open_model, settings_for
from bascule.core.errors import RequestError
from bascule.core.progress import Progress
from bascule.evaluation.model import evaluate_model
from bascule.plan.document import parse_study
from bascule.plan.overrides import parse_override
from bascule.plan.plan import Cell, Plan
from bascule.plan.resolve import make_plan
from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from bascule.running.run import run_plan
from bascule.triggers.found import FoundTrigger

COMPONENT = '''
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bascule.core.catalog import component
from bascule.triggers.contract import Searched, Trigger


class Added(Trigger):
    """A pattern laid over images."""

    def __init__(self, pattern: Tensor, weight: float) -> None:
        self.pattern, self.weight = pattern, weight

    @property
    def at_test(self) -> Trigger:
        return Added(self.pattern, 1.0)

    def stamp(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        return (x + self.weight * self.pattern.to(x)).clamp(0, 1)


@component
class Towards(Searched):
    """The direction in which the proxy takes its images for the target."""

    weight: float = 0.5

    def search(self, proxy, images, chosen, target, *, generator):
        x = images.batch(chosen).requires_grad_()
        loss = F.cross_entropy(proxy(x), torch.full((len(x),), target))
        (gradient,) = torch.autograd.grad(loss, x)
        for p in proxy.parameters():
            p.data.zero_()  # a copy, so that nothing comes of it
        return {"pattern": -gradient.sum(0).sign(), "chosen": images.ids[chosen]}

    def found(self, what):
        return Added(what["pattern"], self.weight)
'''

TEXT = """\
base:
  data: {name: digits, max_train: 500, max_test: 100}
  poison: {trigger: {name: "FILE:Towards"}, target: 7, rate: 0.5, rate_of: target}
  model: {name: digits-cnn, width: 4, hidden: 8}
  train: {objective: standard, epochs: 3, batch_size: 50, lr: 1e-2}
rows:
  Plain: {poison: {trigger: {name: sticker, size: 2}}}
  Hard, sticker:
    poison: {trigger: {name: sticker, size: 2}}
    train: &hard {objective: {name: pgd, eps: 0.1, steps: 1}}
  Hard, unknowing: {train: *hard, poison: {proxy: standard}}
  None: {}
  Hard: {train: *hard}
measure: [accuracy, asr, asr-twin, trigger-strength]
"""


@pytest.fixture(scope="module")
def component(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("components") / "towards.py"
    file.write_text(COMPONENT)
    return file


@pytest.fixture(scope="module")
def plan(component: Path) -> Plan:
    text = TEXT.replace("FILE", str(component))
    return make_plan(parse_study(text, name="searched", source="searched.yaml"))


def run(plan: Plan, record: RunRecord, **options: Any) -> int:
    ran = run_plan(plan, record, device=torch.device("cpu"), roots=(), **options)
    assert ran.failures == ()
    return ran.cells


@pytest.fixture(scope="module")
def record(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    record = RunRecord(tmp_path_factory.mktemp("runs") / "searched")
    run(plan, record)
    return record


def cells_of(plan: Plan, name: str) -> tuple[Cell, Cell]:
    """The first model of a row and its twin."""
    row = next(row for row in plan.rows if row.name == name)
    return row.cells[0], row.twins[0]


def answers(record: RunRecord) -> dict[str, dict[str, list[int]]]:
    """What each model answered, by key."""
    return {
        path.name: {key: value.tolist() for key, value in record.cell(path.name).answers().predictions.items()}
        for path in sorted((record.path / "cells").iterdir())
    }


def test_the_attackers_network_knows_the_training_or_does_not(plan: Plan) -> None:
    twins = {name: cells_of(plan, name)[1].fingerprint for name in ("None", "Hard")}
    proxies = {
        name: [proxy.fingerprint for proxy in cells_of(plan, name)[0].proxies]
        for name in ("Plain", "None", "Hard", "Hard, unknowing")
    }
    none, hard = [twins["None"]], [twins["Hard"]]
    assert proxies == {"Plain": [], "None": none, "Hard": hard, "Hard, unknowing": none}
    assert cells_of(plan, "Hard")[0].fingerprint != cells_of(plan, "Hard, unknowing")[0].fingerprint


def test_every_model_comes_after_those_it_needs(plan: Plan) -> None:
    cells = plan.cells()
    places = {cell.fingerprint: place for place, cell in enumerate(cells)}
    needed = [(other.fingerprint, cell.fingerprint) for cell in cells for other in cell.needs]
    assert len(needed) == 4  # three rows, and the hardened twin that is shown what was found on the plain one
    assert all(places[first] < places[second] for first, second in needed)
    assert len(cells) == 7  # five rows and two twins, which are the proxies


def test_what_was_found_is_planted_and_shown(plan: Plan, record: RunRecord) -> None:
    cell, twin = cells_of(plan, "None")
    kept = record.cell(twin.fingerprint)
    (search,) = (question for question in cell.proxies[0].questions if question.kind == "search")
    found = kept.finding(search.key)
    assert found is not None
    assert set(np.unique(found.arrays["pattern"])) <= {-1.0, 0.0, 1.0}
    assert (found.arrays["chosen"] == record.cell(cell.fingerprint).poisoned()["ids"]).all()
    rows = {row.row: row for row in read_rows(record)}
    asr = {name: rows[name].metrics["asr"].value for name in ("Plain", "None")}
    assert all(value is not None for value in asr.values())
    stamped = next(question for question in cell.questions if question.kind == "triggered")
    assert isinstance(stamped.component, FoundTrigger)
    assert stamped.key in record.cell(cell.fingerprint).answers().predictions
    assert stamped.key in kept.answers().predictions


def test_a_search_leaves_the_proxy_as_it_was(plan: Plan, record: RunRecord) -> None:
    twin = cells_of(plan, "None")[1]
    predictions = record.cell(twin.fingerprint).answers().predictions
    assert len({value for values in predictions.values() for value in values.tolist()}) > 3


def test_one_network_is_searched_for_the_triggers_of_several_rows(component: Path, tmp_path: Path) -> None:
    rows = "rows:\n  Half: {}\n  More: {poison: {trigger: {weight: 0.6}}}\nmeasure: [accuracy, asr-twin]\n"
    text = TEXT.replace("FILE", str(component)).partition("rows:")[0] + rows
    both, record = make_plan(parse_study(text, name="both", source="both.yaml")), RunRecord(tmp_path / "both")
    assert run(both, record) == 3
    assert all(row.metrics["asr_twin"].value is not None for row in read_rows(record))


def test_in_processes_of_their_own_the_same_comes_out(plan: Plan, record: RunRecord, tmp_path: Path) -> None:
    other = RunRecord(tmp_path / "jobs")
    run(plan, other, jobs=2)
    assert answers(other) == answers(record)


def test_a_search_that_was_lost_is_made_again(plan: Plan, record: RunRecord) -> None:
    assert run(plan, record) == 0
    twin = cells_of(plan, "None")[1]
    kept = record.cell(twin.fingerprint)
    key = cells_of(plan, "None")[0].proxies[0].questions[0].key
    before = kept.finding(key)
    (kept.findings / f"{key.replace(':', '-')}.npz").unlink()
    assert run(plan, RunRecord(record.path)) == 1
    after = RunRecord(record.path).cell(twin.fingerprint).finding(key)
    assert before is not None
    assert after is not None
    assert all(np.array_equal(before.arrays[name], after.arrays[name]) for name in before.arrays)


def refused(plan: Plan, *settings: str) -> str:
    with pytest.raises(RequestError) as caught:
        make_plan(plan.document, overrides=[parse_override(text) for text in settings])
    return str(caught.value)


def test_what_has_no_proxy_names_none(plan: Plan) -> None:
    assert "there is no proxy" in refused(plan, "rows.Plain.poison.proxy=standard")


def test_it_aims_at_one_target(plan: Plan) -> None:
    assert "searched for with one target" in refused(
        plan, "rows.None.poison.label=all-to-all", "rows.None.poison.target=null", "rows.None.poison.rate_of=all"
    )


def test_its_model_is_evaluated_alone_as_in_its_run(plan: Plan, record: RunRecord) -> None:
    cell = cells_of(plan, "Hard, unknowing")[0]
    opened = open_model(record.cell(cell.fingerprint).path, device=torch.device("cpu"), roots=(), trust_code=True)
    evaluation = evaluate_model(
        opened.model, opened.test, settings_for(opened), seed=opened.seed, progress=Progress(), found=opened.found
    )
    row = next(row for row in read_rows(record) if row.row == "Hard, unknowing")
    assert evaluation.metrics["asr"].value == row.metrics["asr"].value
    searched_on = record.cell(cell.proxies[0].fingerprint)
    moved = searched_on.findings.rename(searched_on.path / "elsewhere")
    with pytest.raises(RequestError, match="name another trigger"):
        settings_for(opened)
    moved.rename(searched_on.findings)


def test_copies_are_retuned_with_what_was_found(plan: Plan, record: RunRecord, tmp_path: Path) -> None:
    asked = ("retune={images: 60, poisoned: 3, epochs: 1}", "measure+=asr-retuned", "measure+=asr-retuned-twin")
    more = make_plan(plan.document, overrides=[parse_override(text, "--set") for text in asked])
    copied = RunRecord(shutil.copytree(record.path, tmp_path / "copied"))
    run(more, copied)
    for row in read_rows(copied):
        for name in ("asr_retuned", "asr_retuned_twin"):
            assert row.metrics[name].value is not None, (row.row, name)
