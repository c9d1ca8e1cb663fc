"""Whether conditions hold for the rows of a table, or for one model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from bascule.core.catalog import load, meant_by, names
from bascule.core.documented import documented
from bascule.core.errors import RequestError, unknown
from bascule.core.grid import Grid, TableCell
from bascule.core.shown import Lines, Part, Shown
from bascule.core.text import count, quote
from bascule.metrics.contract import Measure
from bascule.metrics.needs import in_words, keys_of
from bascule.metrics.wording import interval_text, value_text
from bascule.record.evaluation import Evaluation, metrics_named
from bascule.record.rows import RowResult, read_rows
from bascule.record.run import open_run
from bascule.report.check.condition import Condition, parse_condition
from bascule.report.words import flag_lines

_UNFINISHED = "unfinished"
"""How the flag of a row begins of which something is still to be done."""
_MOST_PLACES = 9
_NAMED = 5
"""Most rows that a line names."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One condition on one row."""

    row: str
    """Name of the row and what varies; of a single model, what it was named by."""
    condition: Condition
    measure: Measure
    problem: str
    """Why there is no number that could be compared; empty where there is one."""

    @property
    def number(self) -> float | None:
        """What is compared with the bound."""
        value: float | None = getattr(self.measure, self.condition.part)
        return value

    @property
    def holds(self) -> bool:
        """Whether the condition holds; what cannot be told does not."""
        return not self.problem and self.number is not None and self.condition.holds(self.number)

    @property
    def found(self) -> str:
        """The number with its interval, for people, or why there is none."""
        if self.problem or self.number is None:
            return self.problem
        measure, interval = self.measure, interval_text(self.measure)
        unit = "%" if measure.unit == "fraction" else measure.unit
        parts = [
            f"{self.condition.metric} {value_text(measure)} {unit}",
            f"95 % interval {interval} {unit}" if interval else "no interval",
            f"n {measure.n:,}",
        ]
        return f"{_exactly(self.number, self.condition.bound, measure.unit)} {unit} ({', '.join(parts)})"

    def __str__(self) -> str:
        return f"{'pass' if self.holds else 'FAIL'}  {self.row}: {self.condition.text}: {self.found}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        condition = self.condition
        about = {"metric": condition.metric, "part": condition.part, "sign": condition.sign, "bound": condition.bound}
        said = {"row": self.row, "condition": condition.text, "holds": self.holds, "problem": self.problem}
        return {**said, **about, **self.measure.as_dict()}


def _exactly(number: float, bound: float, unit: str) -> str:
    """A number for people, with as many decimals as tell it from the bound."""
    scale = 100 if unit == "fraction" else 1
    for places in range(1, _MOST_PLACES):
        text = f"{scale * number:.{places}f}"
        if number == bound or text != f"{scale * bound:.{places}f}":
            break
    return text


@documented
@dataclass(frozen=True, kw_only=True, repr=False)
class Checked(Shown):
    """All conditions on all rows; true when all hold. As text it says so line by line."""

    of: str
    """What was checked."""
    results: tuple[Result, ...]
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Reasons not to trust the numbers, by row: they are told, and decide nothing."""
    measured: Mapping[str, Measure] = field(default_factory=dict)
    """Of one model: everything that was measured of it."""
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By the text of a condition, the rows that did not measure its metric, where no row was named."""

    @property
    def holds(self) -> bool:
        """Whether all hold."""
        return all(result.holds for result in self.results)

    def __bool__(self) -> bool:
        return self.holds

    def __str__(self) -> str:
        return "\n".join([*map(str, self.results), *self._below()])

    def shown(self) -> Sequence[Part]:
        said = [
            [*map(TableCell, ("pass" if one.holds else "FAIL", one.row, one.condition.text, one.found))]
            for one in self.results
        ]
        return [Grid(["", "Row", "Condition", "Found"], [], said), Lines(list(self._below()))]

    def _below(self) -> Iterator[str]:
        yield from (f"! {line}" for line in flag_lines(self.flags.items()))
        for condition, rows in self.left_out.items():
            few = ", ".join(rows[:_NAMED]) + (f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else "")
            yield f"{condition}: left out {count(len(rows), 'row')} that did not measure it: {few}"
        passed = sum(result.holds for result in self.results)
        counts = {"failed": len(self.results) - passed, "passed": passed}
        yield ", ".join(f"{number:,} {word}" for word, number in counts.items() if number) + "."

    def as_dict(self) -> dict[str, Any]:
        """Plain values: `holds`, `results` with the numbers as in `bascule table --format json`, and `flags`; of one
        model also `metrics`, all that was measured; `left_out` where rows are."""
        metrics = {name: measure.as_dict() for name, measure in self.measured.items()}
        return {
            "checked": self.of,
            "holds": self.holds,
            "results": [result.as_dict() for result in self.results],
            "flags": {row: list(flags) for row, flags in self.flags.items()},
            **({"metrics": metrics} if metrics else {}),
            **({"left_out": {text: list(rows) for text, rows in self.left_out.items()}} if self.left_out else {}),
        }


def check(
    what: str | PathLike[str] | Evaluation,
    conditions: Sequence[str],
    *,
    row: str | Sequence[str] = (),
    runs: str | PathLike[str],
) -> Checked:
    """See `bascule.check`."""
    asked = parse_conditions(conditions)
    if isinstance(what, Evaluation):
        if row:
            raise RequestError("one model has no rows", place=("row",))
        return check_evaluation(what, asked, of="model")
    if not isinstance(what, (str, PathLike)):
        problem = f"a run folder, the name of a study that was run, or what `evaluate` found; got {quote(what)}"
        raise RequestError(problem, place=("what",))
    return check_rows(read_rows(open_run(fspath(what), Path(runs))), asked, of=fspath(what), row=row)


def parse_conditions(texts: Sequence[str]) -> list[Condition]:
    """`parse_condition` each.

    Raises:
        RequestError: There is none, or one says none.
    """
    if not texts:
        raise RequestError("give at least one condition, for example 'asr.high < 5 %'")
    return [parse_condition(text) for text in texts]


def metrics_wanted(conditions: Sequence[Condition]) -> tuple[str, ...]:
    """The names of the metrics that conditions on one model are about, for `measure`: before it is measured.

    Raises:
        RequestError: No such metric, one that needs more than a model, or a bound that its unit does not have.
    """
    wanted = tuple(condition.catalogue_name for condition in conditions)
    metrics = metrics_named(wanted)
    for condition in conditions:
        condition.check_unit(metrics[condition.metric].unit)
    return wanted


def check_rows(
    rows: Sequence[RowResult], conditions: Sequence[Condition], *, of: str, row: str | Sequence[str] = ()
) -> Checked:
    """All conditions on every row, or on those that are named.

    A condition on a row that is not finished, on an interval that is not there and, of a row that is named, on a number
    that was not measured does not hold, and says so. Where no row is named, finished rows that did not measure a metric
    are left out, and rows with the same number of the same models are one result.

    Args:
        rows: Of one run.
        conditions: What shall hold.
        of: What the run is called.
        row: Names of rows, also with what varies, as a table's flags have them; by default all.

    Raises:
        RequestError: No such row, no such metric, one that no row measured, or a bound that its unit does not have.
    """
    wanted = [row] if isinstance(row, str) else row
    if not isinstance(wanted, (list, tuple)) or not all(isinstance(name, str) for name in wanted):
        raise RequestError(f"expected a name, or a list of names, got {quote(row)}", place=("row",))
    for name in wanted:
        if not any(name == one.row or name in one.called for one in rows):
            known = dict.fromkeys(name for one in rows for name in (one.row, one.label))
            raise RequestError(unknown("row", name, known), place=("row",))
    chosen = [one for one in rows if not wanted or {one.row, *one.called} & set(wanted)]
    for condition in conditions:
        if any(condition.metric not in one.metrics for one in chosen):
            raise RequestError(f"{condition.text!r}: {_not_in_the_run(condition, chosen)}")
    if wanted:
        results = [_of_row(one, condition) for one in chosen for condition in conditions]
        return Checked(of=of, results=tuple(results), flags={one.label: one.flags for one in chosen if one.flags})
    left_out = {one.text: missing for one in conditions if (missing := _not_measured(one, chosen))}
    judged = [(row, [one for one in conditions if row.label not in left_out.get(one.text, ())]) for row in chosen]
    return Checked(
        of=of,
        results=_without_repeats(judged),
        flags={row.label: row.flags for row, asked in judged if asked and row.flags},
        left_out=left_out,
    )


def _of_row(row: RowResult, condition: Condition) -> Result:
    return _result(row.label, condition, row.metrics, _unfinished(row))


def _not_measured(condition: Condition, rows: Sequence[RowResult]) -> tuple[str, ...]:
    """The finished rows that have no such number.

    Raises:
        RequestError: None has it.
    """
    missing = tuple(row.label for row in rows if row.metrics[condition.metric].value is None and not _unfinished(row))
    if missing and len(missing) == len(rows):
        raise RequestError(f"{condition.text!r}: no row of this run measured {condition.metric}, or there is none")
    return missing


def _without_repeats(judged: Sequence[tuple[RowResult, Sequence[Condition]]]) -> tuple[Result, ...]:
    """The results, one for all rows that have the same number of the same models: it names them all."""
    found: dict[tuple[Any, ...], list[Result]] = {}
    for row, conditions in judged:
        models = tuple((seed.seed, seed.cell.fingerprint) for seed in row.planned)
        for condition in conditions:
            result = _of_row(row, condition)
            found.setdefault((models, condition.text, result.measure, result.problem), []).append(result)
    return tuple(replace(same[0], row=", ".join(one.row for one in same)) for same in found.values())


def check_evaluation(evaluation: Evaluation, conditions: Sequence[Condition], *, of: str) -> Checked:
    """All conditions on one model, whose intervals are over its test images alone.

    Raises:
        RequestError: No such metric, or a bound that its unit does not have.
    """
    for condition in conditions:
        if condition.metric not in evaluation.metrics:
            raise RequestError(f"{condition.text!r}: {_not_of_the_model(condition, evaluation.metrics)}")
    results = tuple(_result(of, condition, evaluation.metrics, "") for condition in conditions)
    flags = {of: evaluation.flags} if evaluation.flags else {}
    return Checked(of=of, results=results, flags=flags, measured=evaluation.metrics)


def _not_in_the_run(condition: Condition, rows: Sequence[RowResult]) -> str:
    """Why there is no such number in a run: no such metric, or its study does not ask for it."""
    name = condition.catalogue_name
    left_out = f"metric left out: {name}"
    for flag in itertools.chain.from_iterable(row.flags for row in rows):
        if flag.startswith(left_out):
            return flag
    if not _is_metric(name):
        return unknown("metric", condition.metric, rows[0].metrics, hint=meant_by("measure", name))
    keys = [] if ":" in name else [key for key in keys_of(load("measure", name).needs) if key not in _given(rows)]
    also = f", which also needs {in_words(keys)} there" if keys else ""
    return (
        f"{condition.metric} is not measured in this run. Add {name} to `measure:` of its study{also}, and run it "
        f"again: what is trained stays. What needs no other setting, `bascule evaluate RUN` measures at once"
    )


def _given(rows: Sequence[RowResult]) -> frozenset[str]:
    """What some row of the study has, as `measure.needs` calls it."""
    keys = {key for row in rows for key, value in row.settings.items() if value}
    keys |= {"inspect"} if "filter" in keys else set()
    return frozenset(keys | ({"twin"} if any(seed.twin for row in rows for seed in row.planned) else set()))


def _not_of_the_model(condition: Condition, metrics: Mapping[str, Measure]) -> str:
    """As `_not_in_the_run`, of one model."""
    name = condition.catalogue_name
    if not _is_metric(name):
        return unknown("metric", condition.metric, metrics, hint=meant_by("measure", name))
    return f"{condition.metric} was not measured of this model: evaluate it with `measure` {name}"


def _is_metric(name: str) -> bool:
    """Whether there is such a metric, here or in code of somebody's own."""
    return ":" in name or name in names("measure")


def _unfinished(row: RowResult) -> str:
    """What is still to be done of a row; its numbers may be others then."""
    return next((flag for flag in row.flags if flag.startswith(_UNFINISHED)), "")


def _result(row: str, condition: Condition, metrics: Mapping[str, Measure], unfinished: str) -> Result:
    measure = metrics[condition.metric]
    condition.check_unit(measure.unit)
    problem = unfinished
    if not problem and measure.value is None:
        problem = f"no {condition.metric}: it was not measured, or there is none"
    if not problem and getattr(measure, condition.part) is None:
        problem = f"no interval of {condition.metric}: it takes several seeds, and seeds that differ"
    return Result(row=row, condition=condition, measure=measure, problem=problem)
