"""Whether test-time detectors tell inputs of attackers from clean ones, and what is left when suspects are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from bascule.core.catalog import build
from bascule.core.grid import TableCell
from bascule.metrics.contract import Measure, Outcomes
from bascule.metrics.detection import REFUSING, SORTS, Detection
from bascule.metrics.interval import summarise
from bascule.metrics.refusing import inputs_of, working
from bascule.metrics.wording import table_cell
from bascule.report.drawing import svg
from bascule.report.evidence import Evidence, evidence
from bascule.report.view import RowView, View
from bascule.report.words import SPACE, count, joined, percent

TITLE = "Detectors at the door"
PLACE = 105

HEADINGS = (
    (("AUROC", ("triggered", "adversarial", "both")), ("False alarms", ("set to 1 %", "set to 5 %"))),
    (
        ("Accuracy", ("alone", "refusing")),
        ("ASR", ("alone", "refusing", "evaded")),
        ("Robust accuracy", ("alone", "refusing", "evaded")),
    ),
)
"""Of both tables the groups of columns, and the columns of each."""
_NAMES = {
    "benign": "benign", "triggered": "triggered", "adversarial": "adversarial", "both": "both",
    "evading": "adversarial, evading", "both_evading": "triggered, evading",
}  # fmt: skip
"""Of the sorts of inputs, for people."""
_WIDTH, _LEFT, _LINE, _BOTTOM = 330, 138, 26, 46
"""Pixels: the picture, names at its left, a sort of inputs, what is below."""
_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
_PLOTS = 24
"""Rows with a picture; more are in the table alone."""
_NAMED = 8
"""With more rows than this they are counted."""
_TOLD = {"above": "better than chance", "chance": "at chance", "below": "worse than chance"}


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    row: RowView
    method: str
    tables: tuple[tuple[TableCell, ...], ...]
    """The numbers of both tables, as `HEADINGS`."""


@dataclass(frozen=True)
class Plot:
    """The suspicions of all sorts of inputs of one model."""

    row: RowView
    picture: svg.Drawing
    seed: int


def context(view: View) -> Mapping[str, Any] | None:
    """Two tables over rows and a picture each; nothing where no detector was asked."""
    parts = [part for one in evidence(view, "detect") if (part := one.having("benign_suspicion")) is not None]
    known = [(part, found) for part in parts if (found := list(_detected(part).values()))]
    if not known:
        return None
    drawn = [part for part, outcomes in known if _shown(outcomes[0])]
    return {
        "headings": HEADINGS,
        "lines": [_line(part, outcomes) for part, outcomes in known],
        "sentences": _sentences([(f"{part.name} on {part.row.name}", outcomes) for part, outcomes in known]),
        "plots": [_plot(place, part) for place, part in enumerate(drawn[:_PLOTS])],
        "rest": len(drawn[_PLOTS:]),
        "methods": list(dict.fromkeys(part.method for part, _ in known)),
        "evading": any("evading" in _detection(one).sorts for _, outcomes in known for one in outcomes),
    }


def _detected(part: Evidence) -> dict[int, Outcomes]:
    """The outcomes of the row's seeds whose detector answered."""
    found = part.row.result.outcomes
    return {seed: found[seed] for seed in part.models if seed in found and found[seed].detection is not None}


def _detection(outcomes: Outcomes) -> Detection:
    assert outcomes.detection is not None
    return outcomes.detection


# --- the table -------------------------------------------------------------------------------------------------------


def _measure(name: str, outcomes: Sequence[Outcomes]) -> Measure:
    return summarise(build("measure", name), outcomes)


def _line(part: Evidence, outcomes: Sequence[Outcomes]) -> Line:
    aurocs = [_measure(f"detect-auroc-{sort}", outcomes) for sort in ("triggered", "adversarial", "both")]
    alarms = [_measure("detect-false-alarms", _strictly(outcomes)), _measure("detect-false-alarms", outcomes)]
    accuracies = [_measure(name, outcomes) for name in ("accuracy", "accuracy-accepted")]
    asrs = [_measure(name, outcomes) for name in ("asr", "asr-undetected", "asr-evaded")]
    robust = [_measure("robust-accuracy", [_under_the_first(one) for one in outcomes])]
    robust += [_measure(name, outcomes) for name in ("robust-accuracy-detected", "robust-accuracy-evaded")]
    tables = ([*aurocs, *alarms], [*accuracies, *asrs, *robust])
    return Line(part.row, part.name, tuple(tuple(map(table_cell, measures)) for measures in tables))


def _strictly(outcomes: Sequence[Outcomes]) -> list[Outcomes]:
    """With the threshold for 1 % false alarms in place of that for 5 %, where it refuses anything."""
    found = [(one, _detection(one)) for one in outcomes]
    return [
        replace(one, detection=replace(detection, thresholds=detection.thresholds[[0, 0]]))
        for one, detection in found
        if np.isfinite(detection.thresholds[0])
    ]


def _under_the_first(outcomes: Outcomes) -> Outcomes:
    """The images whose adversarial inputs the detector met, under that attack alone."""
    inputs = inputs_of(outcomes, "adversarial")
    if inputs is None:
        return replace(outcomes, adversarial=(), attacks=0)
    return replace(outcomes, adversarial=[inputs.prediction], attacks=1).at(inputs.made)


# --- in words --------------------------------------------------------------------------------------------------------


def _sentences(rows: Sequence[tuple[str, Sequence[Outcomes]]]) -> list[str]:
    """In which rows inputs of each sort are told from clean ones."""
    sentences = []
    for sort, words in (("triggered", "Triggered"), ("adversarial", "Adversarial")):
        kinds: dict[str, list[str]] = {kind: [] for kind in _TOLD}
        for name, outcomes in rows:
            auroc = _measure(f"detect-auroc-{sort}", outcomes)
            if auroc.low is not None and auroc.high is not None:
                kinds["above" if auroc.low > 0.5 else "below" if auroc.high < 0.5 else "chance"].append(name)
        said = [
            f"{_TOLD[kind]} by {joined(names) if len(rows) <= _NAMED else count(len(names), 'detector')}"
            for kind, names in kinds.items()
            if names
        ]
        if said:
            sentences.append(f"{words} inputs that work are told from clean ones {'; '.join(said)}.")
    return [*sentences, *_evaded(rows)]


def _evaded(rows: Sequence[tuple[str, Sequence[Outcomes]]]) -> list[str]:
    """Where somebody who knows the detector gets past it with the trigger, clearly more often than others."""
    past, known = [], 0
    for name, outcomes in rows:
        plain, evading = (_measure(metric, outcomes) for metric in ("asr-undetected", "asr-evaded"))
        known += evading.value is not None
        if evading.low is not None and plain.high is not None and evading.low > plain.high:
            past.append(f"{name} (ASR {percent(evading.value or 0.0)})")
    if not known:
        return []
    whom = count(len(past), "detector") if len(rows) > _NAMED else joined(past) or "none of them"
    return [f"Who knows the detector, and may perturb, gets the trigger past {whom}."]


# --- the pictures ----------------------------------------------------------------------------------------------------


def _shown(outcomes: Outcomes) -> dict[str, NDArray[np.float64]]:
    """The suspicions of the benign inputs, and of those of other sorts that work; none of an empty sort."""
    shown = {}
    sorts = _detection(outcomes).sorts
    for sort, inputs in ((sort, sorts[sort]) for sort in SORTS if sort in sorts):
        chosen = inputs.made if sort == "benign" else working(outcomes, sort)
        if chosen is not None and chosen.any():
            shown[sort] = inputs.suspicion[chosen].astype(np.float64)
    return shown


def _plot(place: int, part: Evidence) -> Plot:
    row, (seed, outcomes) = part.row, next(iter(_detected(part).items()))
    shown, threshold = _shown(outcomes), float(_detection(outcomes).thresholds[-1])
    with svg.drawing():
        height = _LINE * len(shown) + _BOTTOM + 8
        axes = svg.axes_of(_WIDTH, height, left=_LEFT, right=14, top=8, bottom=_BOTTOM)
        axes.set(ylim=(len(shown) - 0.5, -0.5), xlabel="suspicion")
        axes.set_yticks(range(len(shown)), labels=[_NAMES[sort] for sort in shown])
        axes.margins(x=0.04)
        axes.locator_params(axis="x", nbins=5)
        titles: dict[str, str] = {}
        for number, (sort, values) in enumerate(shown.items()):
            titles |= _draw(axes, number, sort, values, row, outcomes)
        if np.isfinite(threshold):
            axes.axvline(threshold, color=svg.INK, linewidth=1, linestyle=(0, (4, 3)))
        label = _spoken(row, shown, outcomes)
        return Plot(row, svg.svg(axes, name=f"detector-{place}", label=label, titles=titles), seed)


def _draw(
    axes: Axes, number: int, sort: str, values: NDArray[np.float64], row: RowView, outcomes: Outcomes
) -> dict[str, str]:
    """From the 5 % to the 95 % quantile, thicker between the quarters, a mark at the median."""
    ends = np.quantile(values, _SHARES)
    colour = svg.INK if sort == "benign" else row.mark.colour
    for outer, width, alpha in ((0, 3, 0.35), (1, 9, 0.35)):
        band = [ends[outer], ends[-1 - outer]]
        axes.plot(band, [number] * 2, color=colour, linewidth=width, alpha=alpha, solid_capstyle="butt", zorder=2)
    axes.plot(
        [ends[2]], [number], marker="|", markersize=14, markeredgewidth=2, color=colour, linestyle="none", zorder=3,
        gid=sort,
    )  # fmt: skip
    refused = f", {percent(_refused(outcomes, sort))} refused" if _refuses(outcomes) else ""
    return {sort: f"{_NAMES[sort]}, {count(len(values), 'input')}: median {ends[2]:.3g}{refused}".replace(SPACE, " ")}


def _refuses(outcomes: Outcomes) -> bool:
    return bool(np.isfinite(_detection(outcomes).thresholds[-1]))


def _refused(outcomes: Outcomes, sort: str) -> float:
    """Share of the inputs shown that are refused."""
    chosen = _detection(outcomes).sorts[sort].made if sort == "benign" else working(outcomes, sort)
    return float(_detection(outcomes).refused(sort)[chosen].mean())


def _spoken(row: RowView, shown: Mapping[str, NDArray[np.float64]], outcomes: Outcomes) -> str:
    parts = [f"{_NAMES[sort]} {percent(_refused(outcomes, sort))}" for sort in shown]
    what = f"refused at {percent(REFUSING)} false alarms: {', '.join(parts)}"
    return f"Suspicion of inputs by sort, {row.name}; {what}.".replace(SPACE, " ")
