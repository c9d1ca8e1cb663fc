"""From the record to the rows of a table: metrics with their intervals, and flags on what may not be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bascule.core.catalog import build
from bascule.measure import Judgement, Labels, Measure, Metric, Outcomes, Verdict
from bascule.measure.interval import summarise
from bascule.record.cell import FILTERED, Finding, OutcomeTable
from bascule.record.flags import flags_of
from bascule.record.run import RunRecord


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """One row of the table."""

    study: str
    row: str
    data: str
    vary: dict[str, Any]
    seeds: int
    """Seeds that are in the numbers."""
    metrics: dict[str, Measure]
    kinds: Mapping[str, Metric] = field(repr=False)
    """What the metrics are, by the same names."""
    flags: tuple[str, ...]
    settings: dict[str, Any]
    published: dict[str, Any] | None = None
    """What the publication reports: `metrics`, `printed` (where known to be wrong), `note`."""
    entries: tuple[dict[str, Any], ...]
    """Per seed: the cell, its twin and their columns, as in the plan."""
    outcomes: Mapping[int, Outcomes] = field(default_factory=dict, repr=False, compare=False)
    """Per seed, what the metrics are computed from; for differences between rows and parts of the test set."""
    classes: tuple[str, ...] = ()
    """Names of the classes, by label; empty before a model is trained."""
    curve: tuple[tuple[float, Measure], ...] = ()
    """The security curve where one was asked for: radius and robust accuracy, by rising radius."""
    run: str = ""
    """Which run it comes from, where rows of several stand together."""
    made_from: tuple[str, ...] = ()
    """Per seed, the cell that was repaired, or filtered and trained again; empty where nothing was."""

    @property
    def name(self) -> str:
        """Row name, and the run where there are several."""
        return " · ".join(filter(None, (self.row, self.run)))

    @property
    def label(self) -> str:
        """`name` and what varies."""
        return " · ".join((self.name, *(f"{path} {value}" for path, value in self.vary.items())))

    def as_dict(self) -> dict[str, Any]:
        """The table format of `bascule table --format json`; `run` and `published` only where there is something."""
        published = {} if self.published is None else {"published": self.published["metrics"]}
        return {
            **({"run": self.run} if self.run else {}),
            "study": self.study,
            "row": self.row,
            "data": self.data,
            "vary": self.vary,
            "seeds": self.seeds,
            "metrics": {name: measure.as_dict() for name, measure in self.metrics.items()},
            "flags": list(self.flags),
            **({"curve": [{"eps": eps, **measure.as_dict()} for eps, measure in self.curve]} if self.curve else {}),
            **published,
        }


def metrics_of(plan: dict[str, Any]) -> dict[str, Metric]:
    """The metrics a plan asks for, by the name they have in tables."""
    return {name.replace("-", "_"): build("measure", name) for name in plan["metrics"]}


def by_class(row: RowResult) -> dict[int, tuple[int, dict[str, Measure]]]:
    """For each true label, the number of its test images and the row's metrics on them alone."""
    if not row.outcomes:
        return {}
    labels = np.unique(np.concatenate([outcomes.label for outcomes in row.outcomes.values()]))
    found = {}
    for label in map(int, labels):
        parts = [outcomes.at(outcomes.label == label) for outcomes in row.outcomes.values()]
        measures = {name: summarise(metric, parts) for name, metric in row.kinds.items()}
        found[label] = (min(len(part.label) for part in parts), measures)
    return found


def read_rows(run: RunRecord) -> list[RowResult]:
    """Every row of a run, also of one that is not finished."""
    plan = run.plan()
    metrics = metrics_of(plan)
    return [_row(run, plan, entry, metrics) for entry in plan["rows"]]


def _row(run: RunRecord, plan: dict[str, Any], entry: dict[str, Any], metrics: dict[str, Metric]) -> RowResult:
    found = {
        cell["seed"]: outcomes
        for cell in entry["cells"]
        if (outcomes := outcomes_of(run, cell, entry["target"])) is not None
    }
    measures = {name: summarise(metric, list(found.values())) for name, metric in metrics.items()}
    return RowResult(
        study=plan["study"],
        row=entry["row"],
        data=entry["data"],
        vary=entry["vary"],
        seeds=len(found),
        metrics=measures,
        kinds=metrics,
        flags=tuple(flags_of(run, entry, found, measures)),
        settings=entry["settings"],
        published=entry.get("published"),
        entries=tuple(entry["cells"]),
        outcomes=found,
        curve=tuple(_curve(run, entry)),
        classes=_classes(run, entry),
        made_from=tuple(base for cell in entry["cells"] if (base := run.cell(cell["cell"]).info().get("base"))),
    )


def _classes(run: RunRecord, entry: dict[str, Any]) -> tuple[str, ...]:
    infos = (run.cell(cell["cell"]).info() for cell in entry["cells"])
    return next((tuple(info["data"]["classes"]) for info in infos if "data" in info), ())


def outcomes_of(run: RunRecord, entry: dict[str, Any], target: int | None) -> Outcomes | None:
    """Per-sample outcomes of one seed with its twin's; None before the clean evaluation is done."""
    columns = entry["columns"]
    own = run.cell(entry["cell"]).outcomes_of(columns)
    if own is None:
        return None
    twin = run.cell(entry["twin"]).outcomes_of(entry["twin_columns"]) if entry["twin"] else None
    ours, theirs = _Kinds(own, columns), _Kinds(twin, entry["twin_columns"])
    return Outcomes(
        label=own.label,
        id=own.id,
        clean=ours.one("clean"),
        triggered=ours.one("triggered"),
        twin_clean=theirs.one("clean"),
        twin_triggered=theirs.one("triggered"),
        adversarial=ours.all("attack"),
        attacks=len(columns.get("attack", [])),
        triggered_adversarial=ours.all("attack-triggered"),
        toward=ours.one("toward"),
        away=ours.one("away"),
        twin_adversarial=theirs.all("attack"),
        strengths={entry["values"][key]: own.columns[key] for key in columns.get("strength", []) if key in own.columns},
        certified=_certified(own, {key: entry["balls"][key]["eps"] for key in columns.get("certify", [])}),
        target=target,
        judgement=_judgement(run, entry["cell"], columns),
        twin_judgement=_judgement(run, entry["twin"], entry["twin_columns"]),
        verdict=_verdict(run, entry["cell"], columns),
        twin_verdict=_verdict(run, entry["twin"], entry["twin_columns"]),
        attention=_attention(run, entry["cell"], columns),
    )


def _curve(run: RunRecord, entry: dict[str, Any]) -> Iterator[tuple[float, Measure]]:
    """Robust accuracy by radius: an image falls where an attack in a ball of that radius or a smaller one fooled it."""
    robust = build("measure", "robust-accuracy")
    first = entry["cells"][0]
    points = {key: first["values"][key] for key in first["columns"].get("curve", [])}
    if not points:
        return
    own = {key: first["balls"][key]["eps"] for key in first["columns"]["attack"]}
    radii = own | points
    tables = [run.cell(cell["cell"]).outcomes_of(cell["columns"]) for cell in entry["cells"]]
    done = [table for table in tables if table is not None and all(key in table.columns for key in radii)]
    clean = first["columns"]["clean"][0]
    for eps in sorted({0.0, *radii.values()}):
        known = [key for key, radius in radii.items() if radius <= eps]
        per_seed = [
            Outcomes(
                label=table.label,
                clean=table.columns[clean],
                adversarial=[table.columns[key] for key in known] or [table.columns[clean]],
                attacks=1,
            )
            for table in done
        ]
        yield eps, summarise(robust, per_seed)


def _found(run: RunRecord, cell: str | None, columns: dict[str, list[str]], kind: str) -> list[Finding]:
    """The cell's findings of one kind that are recorded, in order."""
    record = run.cell(cell) if cell else None
    found = [record.finding(key) for key in columns.get(kind, [])] if record else []
    return [finding for finding in found if finding is not None]


def _judgement(run: RunRecord, cell: str | None, columns: dict[str, list[str]]) -> Judgement | None:
    """What the row's filter said: of the training set it was retrained on, or only inspected."""
    made = _found(run, cell, {"filter": [FILTERED]}, "filter")
    for finding in made + _found(run, cell, columns, "inspect"):
        parts = finding.arrays
        return Judgement(score=parts["score"], removed=parts["removed"], poisoned=parts["poisoned"])
    return None


def _verdict(run: RunRecord, cell: str | None, columns: dict[str, list[str]]) -> Verdict | None:
    for finding in _found(run, cell, columns, "scan"):
        anomaly = np.asarray(finding.arrays["anomaly"], dtype=np.float64)
        return Verdict(anomaly=anomaly, suspects=tuple(finding.info["suspects"]), overlap=finding.info.get("overlap"))
    return None


def _attention(run: RunRecord, cell: str | None, columns: dict[str, list[str]]) -> NDArray[np.float64] | None:
    for finding in _found(run, cell, columns, "explain"):
        if "attention" in finding.arrays:
            return np.asarray(finding.arrays["attention"], dtype=np.float64)
    return None


class _Kinds:
    """Recorded predictions by kind of evaluation."""

    def __init__(self, table: OutcomeTable | None, columns: dict[str, list[str]]) -> None:
        self._known, self._columns = {} if table is None else table.columns, columns

    def all(self, kind: str) -> list[Labels]:
        """Those that are recorded, in order."""
        return [self._known[key] for key in self._columns.get(kind, []) if key in self._known]

    def one(self, kind: str) -> Labels | None:
        """The first, if it is recorded."""
        return self._known.get(next(iter(self._columns.get(kind, [])), ""))


def _certified(table: OutcomeTable, keys: dict[str, float]) -> NDArray[np.bool_] | None:
    """Whether any of the certifiers, each with the radius asked of it, proves an image; None while one is missing."""
    if not keys or not all(key in table.radii for key in keys):
        return None
    return np.logical_or.reduce([table.radii[key] >= eps for key, eps in keys.items()])
