"""What every hook keeps: it hears a run of whichever course through without raising."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from bascule.core.errors import say_where
from bascule.hooks.contract import CellEnd, CellFacts, Hook, RunEnd, RunFacts
from bascule.testing.demands import demand

METHODS = tuple(name for name in vars(Hook) if not name.startswith("_"))
"""What a hook may override."""
SECONDS = 1.5
UNKNOWN = {"value": None, "low": None, "high": None, "n": None}
"""What a measure says that cannot be had."""
FAILURE = "the training diverged: the loss is nan at step 3"
Call = tuple[str, tuple[Any, ...]]
"""A method of a hook, and what it is given."""


def check_hook(make: Callable[[], Hook]) -> None:
    """The contract of a hook: it hears runs that go well, fail, are interrupted and continue, and never raises.

    What it writes it writes: set its server or folder to one for tests before.

    Args:
        make: The class of the hook, or a function without arguments that makes one; called for each run.

    Raises:
        AssertionError: It does not keep the contract; the text says what is wrong, and in which line.
    """
    what = "give the class of a hook, or a function that makes one"
    demand(callable(make) and not isinstance(make, Hook), f"{what}, not {make!r}")
    for course, calls in courses().items():
        try:
            hook = make()
        except Exception as error:
            raise AssertionError(f"it cannot be made without arguments: {say_where(error, called=make)}") from error
        demand(isinstance(hook, Hook), f"{what}; what was made is {type(hook).__name__}, no bascule.hooks.Hook")
        own = [name for name in METHODS if getattr(type(hook), name) is not vars(Hook)[name] or name in vars(hook)]
        demand(own, f"it overrides none of {', '.join(METHODS)}, and so hears nothing")
        for method, told in calls:
            try:
                getattr(hook, method)(*copy.deepcopy(told))
            except (Exception, SystemExit) as error:
                reason = say_where(error, called=getattr(type(hook), method))
                raise AssertionError(f"{method} fails in {course}: {reason}") from error


def courses() -> dict[str, list[Call]]:
    """The calls of each course that a run may take, by what happens in it."""
    good, twin, bad = cells()
    known = replace(good, trained=True)
    return {
        "a run with a cell that is done and one that fails": [
            begun(good, bad),
            *worked(good),
            *worked(bad, failure=FAILURE),
            table(),
            ended(2, {bad.label: FAILURE}),
        ],
        "a run of two cells at a time": [
            begun(good, twin),
            *(call for pair in zip(worked(good), worked(twin), strict=True) for call in pair),
            table(),
            ended(2, {}),
        ],
        "a run that continues, and asks a trained model more": [begun(known), *worked(known), table(), ended(1, {})],
        "a run whose record cannot be read": [begun(good), *worked(good, {}), ended(1, {})],
        "a run in which all was done before": [begun(done=(good, twin)), table(), ended(0, {})],
        "a run that is interrupted in a training": [begun(good), *worked(good)[:2], ended(1, {}, "interrupted")],
        "a run that is stopped before its first cell": [begun(good), ended(1, {}, "the data are damaged")],
    }


def cells() -> tuple[CellFacts, CellFacts, CellFacts]:
    """A model, its twin, and one that cannot be trained."""
    poison = {"trigger": {"name": "sticker", "size": 2}, "target": 7, "rate": 0.05, "source": None}
    settings = {
        "data": {"name": "digits", "max_train": None},
        "model": {"name": "digits-cnn", "width": 8},
        "poison": poison,
        "train": {"objective": {"name": "pgd", "eps": 0.1}, "epochs": 2, "milestones": []},
    }
    good = CellFacts(
        study="small",
        label="Adv. training / 5 % · poison.rate 0.05 · seed 0",
        row="Adv. training / 5 % · poison.rate 0.05",
        rows=("Adv. training / 5 % · poison.rate 0.05", "Again"),
        seed=0,
        twin=False,
        fingerprint="0123456789abcdef",
        settings=settings,
        trained=False,
    )
    twin = replace(
        good,
        label=f"{good.label} twin",
        twin=True,
        fingerprint="123456789abcdef0",
        settings={**settings, "poison": {**poison, "rate": 0.0}},
    )
    bad = replace(good, label="None · seed 0", row="None", rows=("None",), fingerprint="23456789abcdef01")
    return good, twin, bad


def begun(*pending: CellFacts, done: tuple[CellFacts, ...] = ()) -> Call:
    """The first call of a run."""
    facts = RunFacts(
        study="small",
        title="Small",
        folder="/nowhere/runs/small",
        command="bascule run small.yaml",
        metrics=("accuracy", "asr", "scan-anomaly"),
        cells=pending,
        done=tuple(cell.fingerprint for cell in done),
    )
    return "run_begun", (facts,)


def worked(
    cell: CellFacts, measures: dict[str, dict[str, Any]] | None = None, *, failure: str | None = None
) -> list[Call]:
    """The calls of one cell, by default with the measures of `measured` unless it fails."""
    epochs = [] if cell.trained else [1] if failure else [1, 2]
    measures = {} if failure else dict(measured()) if measures is None else measures
    end = CellEnd(seconds=SECONDS, failure=failure, measures=measures)
    return [
        ("cell_begun", (cell,)),
        *(("epoch", (cell, epoch, point(epoch))) for epoch in epochs),
        ("cell_ended", (cell, end)),
    ]


def point(epoch: int) -> dict[str, float]:
    """A point of the curve of a training that is looked at every second epoch."""
    probe = {"accuracy": 0.9, "asr": 0.1} if epoch % 2 == 0 else {}
    return {"epoch": epoch, "step": 10 * epoch, "loss": 1 / epoch, "lr": 0.01, "seconds": SECONDS * epoch, **probe}


def measured() -> Iterator[tuple[str, dict[str, Any]]]:
    """Measures by name: one that is whole, one without an interval, and one that cannot be had."""
    yield "accuracy", {"value": 0.9, "low": 0.8, "high": 0.95, "n": 60, "unit": "fraction", "better": "higher"}
    yield "scan_anomaly", {"value": 2.5, "low": None, "high": None, "n": 10, "unit": "index", "better": "lower"}
    yield "asr", {**UNKNOWN, "unit": "fraction", "better": "lower"}


def table() -> Call:
    """The rows of the table: one with all that a row may hold, and one without numbers."""
    whole, bare = dict(measured()), {name: {**one, **UNKNOWN} for name, one in measured()}
    row = {"study": "small", "data": "digits", "vary": {"poison.rate": 0.05}, "seeds": 1}
    rows = [
        {
            **row,
            "row": "Adv. training / 5 %",
            "metrics": whole,
            "flags": ["few seeds"],
            "curve": [{"eps": 0.1, **whole["accuracy"]}],
        },
        {**row, "row": "None", "vary": {}, "seeds": 0, "metrics": bare, "flags": []},
    ]
    return "table", (rows,)


def ended(cells: int, failures: dict[str, str], stopped: str | None = None) -> Call:
    """The last call of a run."""
    return "run_ended", (RunEnd(cells=cells, failures=failures, stopped=stopped),)
