"""A measure in words, the same in every table, message and picture."""

from __future__ import annotations

from collections.abc import Sequence

from bascule.core.grid import TableCell
from bascule.metrics.contract import Measure, Metric

ARROWS = {"higher": "↑", "lower": "↓"}
UNKNOWN = "—"


def table_cell(measure: Measure) -> TableCell:
    """The value and its interval for people."""
    return TableCell(value_text(measure), interval_text(measure))


def metric_line(metric: Metric, measures: Sequence[Measure], hint: str, *more: TableCell) -> list[TableCell]:
    """A line of a table: a metric of one model in one state or several, and what is made of them.

    Args:
        metric: Which one.
        measures: Its values.
        hint: What to say where it was not measured.
        more: Further cells, where it was.
    """
    unit = "%" if metric.unit == "fraction" else metric.unit
    heading = TableCell(f"{metric.title} {unit} {ARROWS[metric.better]}")
    if measures[0].value is None:
        return [heading, TableCell(hint), *(TableCell("") for _ in (*measures[1:], *more))]
    return [heading, *map(table_cell, measures), *more]


def value_text(measure: Measure) -> str:
    """The value for people: fractions in percent with one decimal, other units as they are."""
    if measure.value is None:
        return UNKNOWN
    return f"{100 * measure.value:.1f}" if measure.unit == "fraction" else f"{measure.value:.3g}"


def interval_text(measure: Measure) -> str:
    """The interval in the same unit as `value_text`, or nothing."""
    if measure.low is None or measure.high is None:
        return ""
    if measure.unit == "fraction":
        return f"{100 * measure.low:.1f}–{100 * measure.high:.1f}"  # noqa: RUF001
    return f"{measure.low:.3g}–{measure.high:.3g}"  # noqa: RUF001
