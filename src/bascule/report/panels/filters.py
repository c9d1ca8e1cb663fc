"""Whether filters find the poison in the training set: precision and recall, beside chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from bascule.core.grid import TableCell
from bascule.metrics.contract import Judgement, Measure
from bascule.metrics.wording import UNKNOWN, table_cell
from bascule.record.answers import Finding
from bascule.record.audited import notes_of
from bascule.record.cell import FILTERED, ISOLATED
from bascule.record.outcomes import judgement_of
from bascule.record.plan import came_as_it_is
from bascule.report.compare.same_models import merge
from bascule.report.drawing import svg
from bascule.report.evidence import Evidence, at, evidence, in_order, measure_of
from bascule.report.view import RowView, View
from bascule.report.words import SPACE, count, joined, percent, setting

TITLE = "Filters"
PLACE = 100

_WIDTH, _HEIGHT = 300, 220
_PLOTS = 24
"""Filters with a picture; more are in the table alone."""
_POINTS = 150
"""Most points of a drawn curve."""
_METRICS = ("filter-auroc", "filter-average-precision", "filter-precision", "filter-recall", "filter-removed-benign")
HEADINGS = ("AUROC", "Average precision", "Precision", "Recall", "Removed of clean", "Removed from twin")

_NAMED = 8
"""With more filters and rows than this they are counted."""
_SAID = {
    "chance": ("At chance, as far as the interval of the AUROC can tell", "at chance"),
    "below": ("Worse than chance, poisoned images are the less suspicious ones", "worse than chance"),
    "above": ("Better than chance", "better than chance"),
}
"""What is said by name, and what counted."""

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Recall and precision, by rising recall."""


@dataclass(frozen=True)
class Line:
    """A row of the table: one filter on the training sets of one row of the study."""

    row: RowView
    method: str
    use: str
    """What was done with its answer."""
    numbers: tuple[TableCell, ...]
    """As `HEADINGS`."""
    chance: str
    """Share of the training set that is poisoned."""


@dataclass(frozen=True)
class Plot:
    """The precision and recall of one filter."""

    row: RowView
    method: str
    picture: svg.Drawing
    seeds: str


def context(view: View) -> Mapping[str, Any] | None:
    """A table over rows and filters, and a curve each; nothing where there is no filter."""
    uses = _uses(view)
    if not uses:
        return None
    poisoned = [(part, use) for part, use in uses if any(_poisoned(one) for one in part.models.values())]
    return {
        "headings": HEADINGS,
        "lines": [_line(part, use) for part, use in uses],
        "sentences": [*_sentences([part for part, _ in poisoned]), *_unknown(uses)],
        "plots": [_plot(place, part) for place, (part, _) in enumerate(poisoned[:_PLOTS])],
        "rest": len(poisoned[_PLOTS:]),
        "methods": list(dict.fromkeys(part.method for part, _ in uses)),
    }


def _uses(view: View) -> list[tuple[Evidence, str]]:
    """What filters said, row by row: of a row's own training set, or only asked."""
    own: dict[int, str] = {}
    made = []
    for key, place, what in (
        (FILTERED, ("filter",), "retrained without"),
        (ISOLATED, ("train", "objective"), "isolated in training"),
    ):
        for row in merge(view.rows, partial(_named, place)):
            if (part := at(row, key, _at(place, row))) is not None:
                made.append(part)
                own[id(part)] = what
    parts = in_order(view, made + evidence(view, "inspect"))
    unknown = _unknown_sets(view)
    return [
        (_without_truth(part) if id(part.row.cells) in unknown else part, use)
        for part in parts
        if part.having("score")
        for use in [own.get(id(part), "only asked")]
    ]


def _named(place: Sequence[str], row: RowView) -> str:
    return setting(_at(place, row))


def _at(place: Sequence[str], row: RowView) -> Mapping[str, Any]:
    """The component at this place of a row's settings; empty where there is none."""
    found: Any = row.result.settings
    for name in place:
        found = (found or {}).get(name)
    return found or {}


def _unknown_sets(view: View) -> set[int]:
    """Of rows, by their cells: those of which nobody knows whether their training set is poisoned.

    What a model was trained on elsewhere, unless its poison is told, and the sets that an audit judges.
    """
    audits = [run for run in view.runs if notes_of(run.plan.text) is not None]
    rows = [row for run in audits for row in run.rows]
    rows += [row for row in view.rows if came_as_it_is(row.result.settings)]
    return {id(row.cells) for row in rows if row.poison is None}


def _without_truth(part: Evidence) -> Evidence:
    """Its record says of no image that it is poisoned, which here does not mean that none is."""
    models = {
        seed: Finding({name: values for name, values in one.arrays.items() if name != "poisoned"}, one.info)
        for seed, one in part.models.items()
    }
    return replace(part, models=models)


def _poisoned(finding: Finding) -> bool:
    return "poisoned" in finding.arrays and bool(finding.arrays["poisoned"].any())


def _unknown(uses: Sequence[tuple[Evidence, str]]) -> list[str]:
    """Where filters rank images and nobody knows which are poisoned."""
    rows = dict.fromkeys(
        part.row.name for part, _ in uses if any("poisoned" not in one.arrays for one in part.models.values())
    )
    return [f"Nobody says which training images of {joined(list(rows))} are poisoned: not measured."] if rows else []


def _judgements(findings: Mapping[int, Finding]) -> list[Judgement]:
    return [
        judgement_of(finding)
        for finding in findings.values()
        if {"score", "removed", "poisoned"} <= finding.arrays.keys()
    ]


# --- the table -------------------------------------------------------------------------------------------------------


def _line(part: Evidence, use: str) -> Line:
    own, twins = _judgements(part.models), _judgements(part.twins)
    measures = [measure_of(metric, judgement=own) for metric in _METRICS]
    measures.append(measure_of("filter-removed-benign", judgement=twins))
    rates = [float(one.poisoned.mean()) for one in own if len(one.poisoned)]
    chance = f"{100 * float(np.mean(rates)):.1f}" if rates else UNKNOWN
    numbers = tuple(table_cell(measure) for measure in measures)
    return Line(part.row, part.name, use, numbers, chance)


def _sentences(parts: Sequence[Evidence]) -> list[str]:
    """Which filters can tell poison from the rest: by name, or counted where there are many."""
    kinds: dict[str, list[Evidence]] = {kind: [] for kind in _SAID}
    for part in parts:
        auroc = measure_of("filter-auroc", judgement=_judgements(part.models))
        if auroc.low is not None and auroc.high is not None:
            kinds["above" if auroc.low > 0.5 else "below" if auroc.high < 0.5 else "chance"].append(part)
    if len(parts) > _NAMED:
        return [_counted(name, kinds) for name in dict.fromkeys(part.name for part in parts)]
    return [
        f"{words}: {joined([f'{part.name} on {part.row.name}' for part in kinds[kind]])}."
        for kind, (words, _) in _SAID.items()
        if kinds[kind]
    ]


def _counted(name: str, kinds: Mapping[str, Sequence[Evidence]]) -> str:
    """`strip, on 8 rows: at chance on 2 and better than chance on 6.`"""
    counts = {kind: sum(part.name == name for part in parts) for kind, parts in kinds.items()}
    said = [f"{_SAID[kind][1]} on {number}" for kind, number in counts.items() if number]
    return f"{name}, on {count(sum(counts.values()), 'row')}: {joined(said) or 'not known'}."


# --- the pictures ----------------------------------------------------------------------------------------------------


def _plot(place: int, part: Evidence) -> Plot:
    judgements = [one for one in _judgements(part.models) if one.poisoned.any()]
    with svg.drawing():
        axes = svg.shared_axes("filters", _axes)
        chance = float(np.mean([one.poisoned.mean() for one in judgements]))
        axes.axhline(100 * chance, color=svg.INK, linewidth=1, linestyle=(0, (4, 3)))
        for one in judgements:
            recall, precision = _thinned(curve(one))
            axes.plot(
                100 * recall, 100 * precision, color=part.row.mark.colour, linewidth=1.25, drawstyle="steps-pre",
                clip_on=False,
            )  # fmt: skip
        for one in judgements:
            if one.removed.any():
                point = one.poisoned[one.removed].mean(), one.removed[one.poisoned].mean()
                axes.plot(
                    [100 * point[1]], [100 * point[0]], marker=part.row.mark.shape, markersize=8, zorder=3,
                    markerfacecolor=part.row.mark.colour, markeredgecolor=svg.INK, markeredgewidth=0.75,
                    linestyle="none", clip_on=False,
                )  # fmt: skip
        label = _spoken(part, measure_of("filter-average-precision", judgement=judgements), chance)
        picture = svg.svg(axes, name=f"filter-{place}", label=label)
    return Plot(part.row, part.name, picture, count(len(judgements), "seed"))


def _axes() -> Axes:
    axes = svg.axes_of(_WIDTH, _HEIGHT, left=48, right=10, top=10, bottom=46)
    axes.set(xlim=(-4, 104), ylim=(-4, 104), xticks=range(0, 101, 25), yticks=range(0, 101, 25))
    axes.set(xlabel="recall, %", ylabel="precision, %")
    return axes


def curve(judgement: Judgement) -> Curve:
    """Precision and recall at every cut of the score, equal scores together; unknown scores come last."""
    score = np.nan_to_num(judgement.score.astype(np.float64), nan=-np.inf)
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(judgement.poisoned[order])
    last = np.append(score[order][1:] != score[order][:-1], True)
    hit, seen = hits[last], np.flatnonzero(last) + 1
    return hit / max(1, hits[-1]), hit / seen


def _thinned(whole: Curve) -> Curve:
    """The curve with a point for each gain in recall, and not more than can be seen."""
    recall, precision = whole
    gains = np.flatnonzero(np.diff(recall, prepend=0) > 0)
    kept = gains[np.unique(np.linspace(0, len(gains) - 1, min(_POINTS, len(gains))).round().astype(int))]
    first = precision[kept[:1]]
    return np.concatenate([[0.0], recall[kept]]), np.concatenate([first, precision[kept]])


def _spoken(part: Evidence, average: Measure, chance: float) -> str:
    mean = "unknown" if average.value is None else percent(average.value)
    return (
        f"Precision by recall of {part.name} on {part.row.name}: average precision {mean}, chance {percent(chance, 1)}."
    ).replace(SPACE, " ")
