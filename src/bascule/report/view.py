"""What all panels look at: the records of one run or of several, each read once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bascule.metrics.contract import Metric
from bascule.record.cell import CellRecord
from bascule.record.plan import RecordedCell, RecordedPlan
from bascule.record.rows import RowResult, metrics_of
from bascule.record.run import RunRecord
from bascule.report.drawing.marks import Mark, mark
from bascule.report.runs import rows_by_run
from bascule.report.words import setting


@dataclass(frozen=True)
class CellView:
    """One model of a row, trained or not."""

    record: CellRecord
    seed: int
    twin: bool
    planned: RecordedCell
    """What the plan asks of it."""

    @property
    def fingerprint(self) -> str:
        """Name of the cell's folder."""
        return self.record.path.name

    def keys(self, kind: str) -> tuple[str, ...]:
        """Keys of the questions of one kind, in order."""
        return tuple(question.key for question in self.planned.of(kind))

    @cached_property
    def info(self) -> dict[str, Any]:
        """`cell.json`; empty before the training has ended."""
        return self.record.info()

    @cached_property
    def evaluations(self) -> dict[str, Mapping[str, Any]]:
        """What is kept beside each finished evaluation of the plan."""
        notes, asked = self.record.evaluations(), self.planned.keys
        return {key: notes[key] for key in notes if key in asked}

    @property
    def failure(self) -> str | None:
        """Why the last try failed."""
        return self.record.failure()

    @property
    def done(self) -> bool:
        """Whether everything the plan asks of it is recorded."""
        return self.record.trained and self.evaluations.keys() == self.planned.keys


@dataclass(frozen=True)
class RowView:
    """One row of the table, with the models behind it."""

    result: RowResult
    mark: Mark
    cells: tuple[CellView, ...]
    twins: tuple[CellView, ...]

    @property
    def name(self) -> str:
        """Row name, its run where there are several, and what varies, for people."""
        return " · ".join(filter(None, (self.result.name, self.vary)))

    @property
    def vary(self) -> str:
        """What varies, for people; empty when nothing does."""
        return ", ".join(f"{path} {setting(value)}" for path, value in self.result.vary.items())

    @property
    def where(self) -> str:
        """Its data and what varies: what rows that share axes have in common."""
        return " · ".join(filter(None, (self.result.data, self.vary)))

    def class_name(self, label: int) -> str:
        """`7`, or `7 (truck)` where the classes have names."""
        name = self.result.class_name(label)
        return name if name == str(label) else f"{label} ({name})"

    @property
    def poison(self) -> dict[str, Any] | None:
        """Settings of the poison, defaults filled in; of several those of the one that the row measures, with the
        number of all as `of`."""
        poison: dict[str, Any] | None = self.result.settings.get("poison")
        if poison is None or poison.get("name") != "several":
            return poison
        return {**poison["parts"][poison["measured"]], "of": len(poison["parts"])}


@dataclass(frozen=True)
class RunView:
    """One run and its rows."""

    record: RunRecord
    name: str
    """What it is called beside the others; empty for one alone."""
    plan: RecordedPlan
    metrics: dict[str, Metric]
    rows: tuple[RowView, ...]

    def cells(self) -> Iterator[tuple[RowView, CellView]]:
        """All models, seed by seed within a row, each before its twin; one that rows share comes once per row."""
        for row in self.rows:
            twins = {twin.seed: twin for twin in row.twins}
            for cell in row.cells:
                yield row, cell
                if cell.seed in twins:
                    yield row, twins[cell.seed]

    @cached_property
    def models(self) -> list[CellView]:
        """Each model once."""
        return list({cell.fingerprint: cell for _, cell in self.cells()}.values())


@dataclass(frozen=True)
class View:
    """The records of one run or of several."""

    runs: tuple[RunView, ...]

    @cached_property
    def rows(self) -> tuple[RowView, ...]:
        """The rows of all runs, in order."""
        return tuple(row for run in self.runs for row in run.rows)

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Every metric that a run asks for."""
        return {name: metric for run in self.runs for name, metric in run.metrics.items()}


def view_of(records: Sequence[RunRecord]) -> View:
    """Read the records of runs, finished or not.

    Raises:
        RequestError: A plan is missing or damaged.
    """
    runs: list[RunView] = []
    for record, (name, results) in zip(records, rows_by_run(records), strict=True):
        first = sum(len(run.rows) for run in runs)
        rows = tuple(_row(record, number, result) for number, result in enumerate(results, start=first))
        plan = record.plan()
        runs.append(RunView(record, name, plan, metrics_of(plan), rows))
    return View(tuple(runs))


def _row(run: RunRecord, number: int, result: RowResult) -> RowView:
    cells, twins = [], []
    for seed in result.planned:
        cells.append(CellView(run.cell(seed.cell.fingerprint), seed.seed, False, seed.cell))
        if seed.twin is not None:
            twins.append(CellView(run.cell(seed.twin.fingerprint), seed.seed, True, seed.twin))
    return RowView(result, mark(number), tuple(cells), tuple(twins))
