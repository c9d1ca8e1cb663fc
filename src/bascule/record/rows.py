"""From the record to the rows of a table: metrics with their intervals, and flags on what may not be trusted."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

import numpy as np

from bascule.core.catalog import ForeignCodeError, build, recorded_code
from bascule.core.errors import RequestError
from bascule.metrics.contract import Measure, Metric, Outcomes
from bascule.metrics.interval import summarise
from bascule.metrics.robust_accuracy import RobustAccuracy
from bascule.record.answers import Answers
from bascule.record.counted import counted_part
from bascule.record.flags import flags_of_metrics, flags_of_row
from bascule.record.outcomes import outcomes_of
from bascule.record.plan import (
    PublishedValues,
    RecordedPlan,
    RecordedQuestion,
    RecordedRow,
    RecordedSeed,
    came_as_it_is,
    words_of,
)
from bascule.record.run import RunRecord


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """One row of the table."""

    study: str
    row: str
    data: str
    vary: Mapping[str, Any]
    seeds: int
    """Seeds that are in the numbers."""
    metrics: dict[str, Measure]
    kinds: Mapping[str, Metric] = field(repr=False)
    """What the metrics are, by the same names."""
    flags: tuple[str, ...]
    settings: Mapping[str, Any]
    published: PublishedValues | None = None
    """What the publication reports."""
    planned: tuple[RecordedSeed, ...]
    """Per seed of the plan: the cell, its twin and what they are asked."""
    outcomes: Mapping[int, Outcomes] = field(default_factory=dict, repr=False, compare=False)
    """Per seed, what the metrics are computed from; for differences between rows and parts of the test set."""
    classes: tuple[str, ...] = ()
    """Names of the classes, by label; empty before a model is trained."""
    curve: tuple[tuple[float, Measure], ...] = ()
    """The security curve where one was asked for: radius and robust accuracy, by rising radius."""
    run: str = ""
    """Which run it comes from, where rows of several stand together."""
    answered: frozenset[str] | None = field(default=None, compare=False)
    """Keys of the questions whose answers are in the numbers; None where that is not known, which stands for all."""
    made_from: tuple[str, ...] = ()
    """Per seed, the cell that was repaired, or filtered and trained again; empty where nothing was."""

    @property
    def name(self) -> str:
        """Row name, and the run where there are several."""
        return " · ".join(filter(None, (self.row, self.run)))

    @property
    def attack_precision(self) -> str:
        """Of the attacks' searches."""
        return str(self.settings.get("attack_precision", "float32")) if self.settings.get("attack") else "float32"

    @property
    def label(self) -> str:
        """`name` and what varies."""
        return " · ".join((self.name, *(f"{path} {value}" for path, value in self.vary.items())))

    @property
    def called(self) -> tuple[str, ...]:
        """What people may call this very row: `label`, also without the run, and with the values alone, files by their
        names: `None · a.pth` where `model.weights` varies."""
        values = [PurePath(value).name if isinstance(value, str) else str(value) for value in self.vary.values()]
        settings = [f"{path} {value}" for path, value in self.vary.items()]
        names = ((name, parts) for name in (self.name, self.row) for parts in (settings, values))
        return tuple(dict.fromkeys(" · ".join((name, *parts)) for name, parts in names))

    def missing(self, kind: str) -> tuple[RecordedQuestion, ...]:
        """What of this kind the plan asks, and is not in the numbers yet, though others are; empty before any is."""
        answered, missing = self._asked_of(kind)
        return missing if answered else ()

    def counted(self, kind: str) -> tuple[RecordedQuestion, ...]:
        """What of this kind the numbers are made from."""
        return self._asked_of(kind)[0]

    def in_words(self, questions: Sequence[RecordedQuestion]) -> list[str]:
        """What some of the questions that it is asked are called below a table, each name once."""
        return list(dict.fromkeys(words_of(questions, self.planned[0].cell.questions if self.planned else ())))

    def _asked_of(self, kind: str) -> tuple[tuple[RecordedQuestion, ...], tuple[RecordedQuestion, ...]]:
        asked = self.planned[0].cell.of(kind) if self.planned else ()
        there = [self.answered is None or question.key in self.answered for question in asked]
        return tuple(itertools.compress(asked, there)), tuple(itertools.compress(asked, map(operator.not_, there)))

    def class_name(self, label: int) -> str:
        """Name of a class; its label where names are not known."""
        return self.classes[label] if 0 <= label < len(self.classes) else str(label)

    def as_dict(self) -> dict[str, Any]:
        """The table format of `bascule table --format json`; `run`, `published` and `attack_precision` only where there
        is something to say."""
        published = {} if self.published is None else {"published": dict(self.published.metrics)}
        return {
            **({"run": self.run} if self.run else {}),
            "study": self.study,
            "row": self.row,
            "data": self.data,
            "vary": dict(self.vary),
            "seeds": self.seeds,
            "metrics": {name: measure.as_dict() for name, measure in self.metrics.items()},
            "flags": list(self.flags),
            **({"curve": [{"eps": eps, **measure.as_dict()} for eps, measure in self.curve]} if self.curve else {}),
            **published,
            **({"attack_precision": self.attack_precision} if self.attack_precision != "float32" else {}),
        }


def metrics_of(plan: RecordedPlan) -> dict[str, Metric]:
    """The metrics a plan asks for, by the name they have in tables; without those that are left out."""
    known = ((name, _metric(name)) for name in plan.metrics)
    return {name.replace("-", "_"): metric for name, metric in known if isinstance(metric, Metric)}


def metrics_left_out(plan: RecordedPlan) -> dict[str, str]:
    """Metrics that cannot be had here, with the reason: code of somebody's own, which reading does not run, or gone."""
    known = ((name, _metric(name)) for name in plan.metrics)
    return {name: metric for name, metric in known if isinstance(metric, str)}


def _metric(name: str) -> Metric | str:
    """The metric of this name, or why there is none."""
    try:
        with recorded_code():
            metric = build("measure", name)
    except ForeignCodeError:
        return "reading a run does not run code of somebody's own"
    except RequestError as error:
        return error.problem
    assert isinstance(metric, Metric)
    return metric


def by_class(row: RowResult) -> dict[int, tuple[int, dict[str, Measure]]]:
    """For each true label, the number of its test images and the row's metrics on them alone."""
    if not row.outcomes:
        return {}
    labels = np.unique(np.concatenate([outcomes.label for outcomes in row.outcomes.values()]))
    classes = {}
    for label in map(int, labels):
        parts = [outcomes.at(outcomes.label == label) for outcomes in row.outcomes.values()]
        measures = {name: summarise(metric, parts) for name, metric in row.kinds.items()}
        classes[label] = (min(len(part.label) for part in parts), measures)
    return classes


def read_rows(run: RunRecord) -> list[RowResult]:
    """Every row of a run, also of one that is not finished."""
    plan = run.plan()
    metrics, left_out = metrics_of(plan), tuple(flags_of_metrics(metrics_left_out(plan)))
    return [_row(run, plan, row, metrics, left_out) for row in plan.rows]


def _row(
    run: RunRecord, plan: RecordedPlan, row: RecordedRow, metrics: dict[str, Metric], left_out: tuple[str, ...]
) -> RowResult:
    part = counted_part(run, row)
    given = came_as_it_is(row.settings)
    by_seed = {
        seed.seed: replace(outcomes, given=given)
        for seed in part.row.seeds
        if (outcomes := outcomes_of_seed(run, seed, row, part.hidden)) is not None
    }
    measures = {name: summarise(metric, list(by_seed.values())) for name, metric in metrics.items()}
    flags = (*left_out, *flags_of_row(run, row, by_seed, measures, part))
    infos = [run.cell(seed.cell.fingerprint).info() for seed in row.seeds]
    return RowResult(
        study=plan.study,
        row=row.row,
        data=row.data,
        vary=row.vary,
        seeds=len(by_seed),
        metrics=measures,
        kinds=metrics,
        flags=flags,
        settings=row.settings,
        published=row.published,
        planned=row.seeds,
        outcomes=by_seed,
        curve=tuple(_curve(run, part.row)),
        classes=next((tuple(info["data"]["classes"]) for info in infos if "data" in info), ()),
        answered=frozenset().union(*(seed.cell.keys for seed in part.row.seeds)),
        made_from=tuple(info["base"] for info in infos if info.get("base")),
    )


def measures_of_cell(run: RunRecord, fingerprint: str) -> dict[str, Measure]:
    """What one model's answers say, by the metrics of the run; empty for one that is in no row or has not answered.

    A twin is measured as the row's own model is, with the trigger that it never saw in training.
    """
    plan = run.asked() or run.plan()
    seeds = [(row, seed) for row in plan.rows for seed in row.seeds]
    twins = [(row, replace(seed, cell=seed.twin, twin=None)) for row, seed in seeds if seed.twin is not None]
    known = next(((row, seed) for row, seed in (*seeds, *twins) if seed.cell.fingerprint == fingerprint), None)
    outcomes = None if known is None else outcomes_of_seed(run, known[1], known[0])
    if known is None or outcomes is None:
        return {}
    outcomes = replace(outcomes, given=came_as_it_is(known[0].settings))
    return {name: summarise(metric, [outcomes]) for name, metric in metrics_of(plan).items()}


def outcomes_of_seed(
    run: RunRecord, seed: RecordedSeed, row: RecordedRow, hidden: Collection[str] = ()
) -> Outcomes | None:
    """Per-sample outcomes of one seed, its twin's and those before a repair; None before the clean evaluation is done.

    Args:
        run: The run.
        seed: What its models are asked.
        row: Whose, with what its poison aims at.
        hidden: Keys of findings that do not count.
    """
    answers = run.cell(seed.cell.fingerprint).answers_to(seed.cell)
    if answers is None:
        return None
    twin = None
    if seed.twin is not None:
        of_twin = run.cell(seed.twin.fingerprint).answers_to(seed.twin)
        twin = None if of_twin is None else outcomes_of(of_twin, seed.twin.questions, target=row.target, aims=row.aims)
    return outcomes_of(
        answers,
        seed.cell.questions,
        target=row.target,
        aims=row.aims,
        before=_before_repair(run, seed, row),
        twin=twin,
        hidden=hidden,
    )


def _before_repair(run: RunRecord, seed: RecordedSeed, row: RecordedRow) -> Outcomes | None:
    """What the model that was repaired answered to the same questions; None without a repair, or before it answered."""
    base = run.cell(seed.cell.fingerprint).base() if row.settings.get("repair") else None
    answers = None if base is None else base.answers_to(seed.cell)
    return None if answers is None else outcomes_of(answers, seed.cell.questions, target=row.target, aims=row.aims)


def _curve(run: RunRecord, row: RecordedRow) -> Iterator[tuple[float, Measure]]:
    """Robust accuracy by radius: an image falls where an attack in a ball of that radius or a smaller one fooled it."""
    if not row.seeds:
        return
    cell = row.seeds[0].cell
    radii = {point.key: point.value for point in cell.of("curve") if point.value is not None}
    if not radii:
        return
    reaches = {attack.key: attack.reach for attack in cell.of("attack") if attack.reach is not None}
    radii = {key: reach.eps for key, reach in reaches.items() if reach.eps is not None} | radii
    finished = [
        answers
        for seed in row.seeds
        if (answers := run.cell(seed.cell.fingerprint).answers_to(seed.cell)) is not None
        and radii.keys() <= answers.predictions.keys()
    ]
    clean = cell.of("clean")[0].key
    for eps in sorted({0.0, *radii.values()}):
        inside = [key for key, radius in radii.items() if radius <= eps]
        yield eps, summarise(RobustAccuracy(), [_at_radius(answers, clean, inside) for answers in finished])


def _at_radius(answers: Answers, clean: str, inside: Sequence[str]) -> Outcomes:
    """The outcomes under the attacks whose balls lie inside one radius, as if under one attack."""
    before = answers.predictions[clean]
    adversarial = [answers.predictions[key] for key in inside] or [before]
    return Outcomes(label=answers.label, clean=before, adversarial=adversarial, attacks=1)
