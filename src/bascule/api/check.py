"""Conditions on what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

from bascule.api.verb import path
from bascule.record.evaluation import Evaluation
from bascule.report.check import checked
from bascule.report.check.checked import Checked


def check(
    what: str | PathLike[str] | Evaluation,
    *conditions: str,
    row: str | Sequence[str] = (),
    runs: str | PathLike[str] = "runs",
) -> Checked:
    """Whether conditions on the numbers of a run hold: `assert bascule.check("digits", "asr.high < 5 %")`.

    A condition compares a metric by its name in tables, or an end of its 95 % interval, with a number: `asr < 0.05`,
    `asr.high < 5 %`, `robust_accuracy.low >= 0.4`. What cannot be told does not hold: a row that is not finished, a
    metric that was not measured, an interval that is not there.

    Args:
        what: A run folder, the name of a study that was run, or what `run` and `load` give; or what `evaluate` found of
            one model.
        conditions: At least one.
        row: Names of rows; by default the conditions must hold on all.
        runs: Folder that holds the runs.

    Returns:
        What is true when all conditions hold, and as text says what was found, with the interval, line by line.

    Raises:
        RequestError: There is no such run, row or metric, or a condition cannot be read.
    """
    return checked.check(what, conditions, row=row, runs=path(runs, "runs"))
