"""Hooks are told what happens in a run, whoever does its cells, and change nothing of it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bascule.core.errors import Interrupted, RequestError
from bascule.hooks import CellEnd, CellFacts, Hook, RunEnd, RunFacts
from bascule.record.rows import read_rows
from bascule.record.run import RunRecord
from bascule.running.run import Ran, run_plan
from bascule.testing.hooks import courses
from running.test_processes import kept

SMALL = """\
title: Small
base:
  data: {name: digits, max_train: 200, max_test: 40}
  model: {name: digits-cnn, width: 4, hidden: 16}
  train: {objective: standard, epochs: 2, batch_size: 50, lr: 1e-2}
rows:
  None: {}
seeds: 1
measure: [accuracy]
"""


class Notes(Hook):
    """Writes down all that it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def run_begun(self, run: RunFacts) -> None:
        self.calls.append(("run_begun", run))

    def cell_begun(self, cell: CellFacts) -> None:
        self.calls.append(("cell_begun", cell))

    def epoch(self, cell: CellFacts, epoch: int, values: Mapping[str, float]) -> None:
        self.calls.append(("epoch", (cell, epoch, values)))

    def cell_ended(self, cell: CellFacts, end: CellEnd) -> None:
        self.calls.append(("cell_ended", (cell, end)))

    def table(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.calls.append(("table", rows))

    def run_ended(self, end: RunEnd) -> None:
        self.calls.append(("run_ended", end))

    def of(self, name: str) -> list[Any]:
        """What came with the calls of one method."""
        return [told for called, told in self.calls if called == name]

    def names(self) -> list[str]:
        """The calls in order."""
        return [name for name, _ in self.calls]


class Meddler(Hook):
    """Draws from every global generator, sets what torch goes by and changes what it is given."""

    def _meddle(self, *told: Any) -> None:
        torch.manual_seed(7)
        torch.rand(3)
        random.seed(7)
        np.random.seed(7)  # noqa: NPY002
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        for one in told:
            for part in (one, *vars(one).values()) if hasattr(one, "__dict__") else (one,):
                if isinstance(part, (dict, list)):
                    part.clear()

    run_begun = cell_begun = epoch = cell_ended = table = run_ended = _meddle  # type: ignore[assignment]


def run_with(plan: Any, run: RunRecord, *hooks: Hook, **options: Any) -> Ran:
    return run_plan(plan, run, device=torch.device("cpu"), roots=(), hooks=hooks, **options)


@pytest.fixture(scope="module")
def side_by_side(plan_of: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[RunRecord, Notes]:
    """The tiny study in two processes, with a meddler beside who writes down."""
    run, notes = RunRecord(tmp_path_factory.mktemp("runs") / "tiny"), Notes()
    assert run_with(plan_of(), run, Meddler(), notes, jobs=2) == Ran(8, ())
    return run, notes


@pytest.mark.parametrize("jobs", [None, 2], ids=["here", "processes"])
def test_hooks_change_no_byte(
    jobs: int | None,
    plan_of: Callable[..., Any],
    finished: RunRecord,
    side_by_side: tuple[RunRecord, Notes],
    tmp_path: Path,
) -> None:
    run = side_by_side[0]
    if jobs is None:
        run = RunRecord(tmp_path / "tiny")
        before = torch.get_rng_state(), random.getstate()
        run_with(plan_of(), run, Meddler())
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]
        assert torch.is_grad_enabled()
        assert (torch.get_default_dtype(), torch.get_default_device().type) == (torch.float32, "cpu")
    assert kept(run) == kept(finished)
    assert [row.as_dict() for row in read_rows(run)] == [row.as_dict() for row in read_rows(finished)]


def test_a_run_in_processes_is_told_in_order_and_whole(
    plan_of: Callable[..., Any], side_by_side: tuple[RunRecord, Notes]
) -> None:
    (run, notes), plan = side_by_side, plan_of()
    (begun,) = notes.of("run_begun")
    assert (begun.study, begun.title, begun.folder) == ("tiny", "Tiny", str(run.path))
    assert begun.done == ()
    assert [cell.fingerprint for cell in begun.cells] == [cell.fingerprint for cell in plan.cells()]
    for cell in begun.cells:
        own = [(name, told) for name, told in notes.calls if isinstance(told, tuple) and told[0] == cell]
        assert [name for name, _ in own] == ["epoch", "epoch", "cell_ended"]
        assert notes.calls.index(("cell_begun", cell)) < notes.calls.index(own[0])
        assert [dict(told[2]) for _, told in own[:2]] == run.cell(cell.fingerprint).curve()
        assert [told[1] for _, told in own[:2]] == [1, 2]
        assert not cell.trained
    assert notes.names()[-2:] == ["table", "run_ended"]
    (rows,) = notes.of("table")
    assert rows == [row.as_dict() for row in read_rows(run)]
    assert notes.of("run_ended") == [RunEnd(cells=8, failures={}, stopped=None)]


def test_what_is_told_is_json_in_the_words_of_the_record(side_by_side: tuple[RunRecord, Notes]) -> None:
    run, notes = side_by_side
    for told in notes.of("run_begun") + notes.of("cell_begun") + notes.of("run_ended"):
        assert json.loads(json.dumps(asdict(told)))
    cell, end = next(told for told in notes.of("cell_ended") if told[0].row == "None" and not told[0].twin)
    info = run.cell(cell.fingerprint).info()
    assert (cell.study, cell.label, cell.rows) == ("tiny", "None · seed 0", ("None",))
    assert (cell.seed, cell.fingerprint, cell.settings) == (info["seed"], info["fingerprint"], info["settings"])
    assert json.loads(json.dumps(asdict(end)))
    assert end.failure is None
    assert end.seconds > 0
    assert end.measures["accuracy"].keys() == {"value", "low", "high", "n", "unit", "better"}
    accuracy = end.measures["accuracy"]
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert accuracy["n"] == 60
    row = next(row for row in read_rows(run) if row.row == "None")
    each = [
        end.measures["accuracy"]["value"]
        for one, end in notes.of("cell_ended")
        if (one.row, one.twin) == ("None", False)
    ]
    assert np.mean(each) == pytest.approx(row.metrics["accuracy"].value)
    twin, of_twin = next(told for told in notes.of("cell_ended") if told[0].twin)
    assert twin.label.endswith("twin")
    assert of_twin.measures["accuracy"]["value"] is not None


def test_who_was_told_is_in_the_record(side_by_side: tuple[RunRecord, Notes], finished: RunRecord) -> None:
    infos = [json.loads(path.read_text()) for path in side_by_side[0].path.glob("cells/*/cell.json")]
    names = [f"{cls.__module__}:{cls.__name__}" for cls in (Meddler, Notes)]
    assert [info["hooks"] for info in infos] == 8 * [names]
    assert not any("hooks" in json.loads(path.read_text()) for path in finished.path.glob("cells/*/cell.json"))


def test_what_was_done_before_is_not_told_as_begun_again(
    plan_of: Callable[..., Any], side_by_side: tuple[RunRecord, Notes], tmp_path: Path
) -> None:
    run, notes = side_by_side[0], Notes()
    run_with(plan_of(), run, notes)
    assert notes.names() == ["run_begun", "table", "run_ended"]
    (begun,) = notes.of("run_begun")
    assert begun.cells == ()
    assert list(begun.done) == [cell.fingerprint for cell in plan_of().cells()]


def test_one_that_raises_is_switched_off_and_the_run_goes_on(plan_of: Callable[..., Any], tmp_path: Path) -> None:
    class Fails(Notes):
        def epoch(self, cell: CellFacts, epoch: int, values: Mapping[str, float]) -> None:
            super().epoch(cell, epoch, values)
            raise SystemExit(3) if epoch > 1 else ValueError("no such server")

    said: list[str] = []
    bad, good = Fails(), Notes()
    ran = run_with(plan_of(text=SMALL), RunRecord(tmp_path), bad, good, warn=said.append)
    assert ran == Ran(1, ())
    assert bad.names() == ["run_begun", "cell_begun", "epoch"]
    assert good.names() == ["run_begun", "cell_begun", "epoch", "epoch", "cell_ended", "table", "run_ended"]
    (warning,) = said
    line = Fails.epoch.__code__.co_firstlineno + 2
    assert warning == (
        f"the hook {Fails.__module__}:{Fails.__qualname__} failed at epoch and is switched off for this run: "
        f"ValueError: no such server ({__file__}, line {line})"
    )


def test_what_check_hook_tells_has_the_form_of_a_run(side_by_side: tuple[RunRecord, Notes]) -> None:
    """The same classes, keys and kinds of values."""
    notes = side_by_side[1]
    for calls in courses().values():
        for name, told in calls:
            pairs: list[tuple[Any, Any]] = [(told[0], notes.of(name)[0])]
            if name in ("epoch", "cell_ended"):
                pairs = list(zip(told, notes.of(name)[0], strict=True))
            for ours, real in pairs:
                assert type(ours) is type(real)
    tables = [
        (told[0][0], notes.of("table")[0][0]) for calls in courses().values() for name, told in calls if name == "table"
    ]
    for ours, real in tables:
        assert ours.keys() - {"curve"} == real.keys()
        assert ours["metrics"]["accuracy"].keys() == real["metrics"]["accuracy"].keys()
    told_epoch = next(
        told for name, told in courses()["a run with a cell that is done and one that fails"] if name == "epoch"
    )
    assert told_epoch[2].keys() == notes.of("epoch")[0][2].keys()


def test_a_failure_and_another_try(plan_of: Callable[..., Any], tmp_path: Path) -> None:
    plan, notes = plan_of("train.lr=1e30", text=SMALL), Notes()
    run_with(plan, RunRecord(tmp_path), notes)
    ((cell, end),) = notes.of("cell_ended")
    assert "diverged" in end.failure
    assert end.measures == {}
    assert notes.of("run_ended") == [RunEnd(cells=1, failures={cell.label: end.failure}, stopped=None)]
    assert len(notes.of("table")[0]) == 1


def test_an_interrupted_training_tells_its_epochs_again(
    plan_of: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after its first epoch, at a checkpoint; the next try tells of both."""
    import bascule.training.loop as loop

    monkeypatch.setattr(loop.train, "__kwdefaults__", {**loop.train.__kwdefaults__, "checkpoint_seconds": 0.0})

    class Stops(Notes):
        def epoch(self, cell: CellFacts, epoch: int, values: Mapping[str, float]) -> None:
            super().epoch(cell, epoch, values)
            if epoch == 2:
                raise KeyboardInterrupt

    first, then, plan = Stops(), Notes(), plan_of("train.epochs=3", text=SMALL)
    with pytest.raises(Interrupted):
        run_with(plan, RunRecord(tmp_path), first)
    assert first.names() == ["run_begun", "cell_begun", "epoch", "epoch", "run_ended"]
    assert first.of("run_ended") == [RunEnd(cells=1, failures={}, stopped="interrupted")]
    run_with(plan, RunRecord(tmp_path), then)
    assert then.names() == ["run_begun", "cell_begun", *3 * ["epoch"], "cell_ended", "table", "run_ended"]
    assert [epoch for _, epoch, _ in then.of("epoch")] == [1, 2, 3]
    assert then.of("epoch")[0][2] == first.of("epoch")[0][2]  # what was measured then


def test_what_is_no_hook_is_refused(plan_of: Callable[..., Any], tmp_path: Path) -> None:
    for bad, said in ((Notes, "the class Notes: make one of it"), (3, "got 3")):
        with pytest.raises(RequestError, match=said):
            run_plan(plan_of(), RunRecord(tmp_path), device=torch.device("cpu"), roots=(), hooks=[bad])  # type: ignore[list-item]
    assert not (tmp_path / "study.json").exists()
