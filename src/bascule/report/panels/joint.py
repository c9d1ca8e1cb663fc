"""The joint table: every metric of every row with its interval, and what may not be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bascule.metrics.contract import Measure, Metric
from bascule.metrics.wording import ARROWS, table_cell
from bascule.report.compare.asked import asked_of
from bascule.report.compare.comparable import apart
from bascule.report.compare.pairwise import unseparated
from bascule.report.compare.same_models import distinct
from bascule.report.view import RowView, View
from bascule.report.words import setting

TITLE = "The joint table"
PLACE = 30

_GAP = "An empty place: the run of this row does not ask for the metric"


@dataclass(frozen=True)
class Heading:
    """The heading of a metric."""

    title: str
    unit: str
    better: str
    best: str
    """What is at the top when the table is sorted by it: the `highest` or `lowest` value."""
    arrow: str
    n: str
    """Images that counted, when it is the same number in all rows; else each cell says it."""


@dataclass(frozen=True)
class MetricCell:
    """A cell; all empty but `value` when it could not be computed, and that too when it is not asked for."""

    value: str
    interval: str
    n: str
    raw: float | None
    """What the table is sorted by."""
    published: str = ""
    """What the publication reports, where it does."""
    printed: str = ""
    """What it prints, where that is known to be wrong."""


def context(view: View) -> Mapping[str, Any]:
    """Headings and cells as text."""
    results = [row.result for row in view.rows]
    measures = {name: [row.metrics[name] for row in results if name in row.metrics] for name in view.metrics}
    headings = {name: _heading(metric, measures[name]) for name, metric in view.metrics.items()}
    varied = list(dict.fromkeys(path for row in view.rows for path in row.result.vary))
    rows = [
        {
            "row": row,
            "vary": [_varied(row.result.vary[path]) if path in row.result.vary else ("", "") for path in varied],
            "note": "" if row.result.published is None else row.result.published.note,
            "numbers": [_number(row, name, heading) for name, heading in headings.items()],
        }
        for row in view.rows
    ]
    once = [row.result for row in distinct(view.rows)]
    gaps = any(name not in row.metrics for row in results for name in view.metrics)
    return {
        "several": len(view.runs) > 1,
        "varied": varied,
        "headings": list(headings.values()),
        "rows": rows,
        "notes": [*asked_of(once), *unseparated(once), *apart(once), *([_GAP] if gaps else [])],
    }


def _varied(value: Any) -> tuple[str, str]:
    """A setting in words, and what it is sorted by: a number in full, or the words."""
    words = setting(value)
    return words, str(value) if isinstance(value, (int, float)) else words


def _heading(metric: Metric, measures: Sequence[Measure]) -> Heading:
    counts = {measure.n for measure in measures} - {None}
    return Heading(
        title=metric.title,
        unit="%" if metric.unit == "fraction" else metric.unit,
        better=metric.better,
        best={"higher": "highest", "lower": "lowest"}[metric.better],
        arrow=ARROWS[metric.better],
        n=f"{counts.pop():,}" if len(counts) == 1 else "",
    )


def _number(row: RowView, name: str, heading: Heading) -> MetricCell:
    measure = row.result.metrics.get(name)
    if measure is None:
        return MetricCell("", "", "", None)
    n = "" if heading.n or measure.n is None else f"{measure.n:,}"
    known = row.result.published
    published, printed = (
        f"{100 * values[name]:.1f}" if name in values else ""
        for values in ((known.metrics, known.printed) if known is not None else ({}, {}))
    )
    return MetricCell(*table_cell(measure), n, measure.value, published, printed)
