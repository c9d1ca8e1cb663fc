"""What repairs, and filters before another training, did to both ends: the same models before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bascule.core.grid import TableCell
from bascule.metrics.wording import ARROWS, table_cell
from bascule.report.compare.pairwise import NAMES, Comparison, before, end_metrics
from bascule.report.tables.tables import change_cell
from bascule.report.view import RowView, View
from bascule.report.words import joined

TITLE = "Before and after"
PLACE = 90

_METRICS = ("accuracy", "robust_accuracy", "certified_accuracy", "asr", "accuracy_twin", "asr_twin")


@dataclass(frozen=True)
class Line:
    """A row after it was repaired, or filtered and trained again."""

    row: RowView
    name: str
    """Without what it shares with the name of the row before."""
    numbers: tuple[TableCell, ...]
    """What each metric is now, and in place of its interval the paired change."""


@dataclass(frozen=True)
class Group:
    """What was made from the models of one row."""

    reference: RowView
    numbers: tuple[TableCell, ...]
    lines: tuple[Line, ...]
    sentences: tuple[str, ...]


def context(view: View) -> Mapping[str, Any] | None:
    """A part of the table for every row that others were made from; nothing where there is none."""
    views = {id(row.result): row for row in view.rows}
    comparisons = before([row.result for row in view.rows])
    if not comparisons:
        return None
    metrics = [name for name in _METRICS if any(name in one.differences for one in comparisons)]
    references = {id(one.reference): views[id(one.reference)] for one in comparisons}
    return {
        "headings": [_heading(comparisons, name) for name in metrics],
        "groups": [
            _group(row, [one for one in comparisons if id(one.reference) == key], views, metrics)
            for key, row in references.items()
        ],
    }


def _heading(comparisons: Sequence[Comparison], name: str) -> tuple[str, str, str]:
    """Title, arrow, and which is better."""
    metric = next(one.row.kinds[name] for one in comparisons if name in one.row.kinds)
    return metric.title, ARROWS[metric.better], metric.better


def _group(
    reference: RowView, comparisons: Sequence[Comparison], views: Mapping[int, RowView], metrics: Sequence[str]
) -> Group:
    return Group(
        reference,
        tuple(table_cell(reference.result.metrics[name]) for name in metrics),
        tuple(_line(views[id(one.row)], reference, one, metrics) for one in comparisons),
        tuple(_sentences(reference, comparisons, views)),
    )


def _line(row: RowView, reference: RowView, comparison: Comparison, metrics: Sequence[str]) -> Line:
    return Line(row, _short(row, reference), tuple(_number(comparison, name) for name in metrics))


def _number(comparison: Comparison, name: str) -> TableCell:
    now, difference = comparison.row.metrics.get(name), comparison.differences.get(name)
    if now is None:
        return TableCell("")
    change, interval = ("", "") if difference is None else change_cell(difference)
    return TableCell(table_cell(now).value, f"{change} ({interval})" if interval else change)


def _sentences(reference: RowView, comparisons: Sequence[Comparison], views: Mapping[int, RowView]) -> list[str]:
    """Who clearly weakens the backdoor, at what price at the other end; who does harm at either end for nothing."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for one in comparisons:
        other, asr = (
            one.differences[name].outcome if name in one.differences else "missing" for name in end_metrics(one.row)
        )
        kinds.setdefault((other, asr), []).append(_short(views[id(one.row)], reference))
    robust = NAMES[end_metrics(reference.result)[0]]
    prices = {
        "better": f"which also raises {robust}",
        "unclear": f"with no clear change of {robust}",
        "worse": f"at the price of {robust}",
        "missing": f"where {robust} is not measured",
    }
    gains = [
        f"after {joined(kinds[how, 'better'])}, {price}" for how, price in prices.items() if (how, "better") in kinds
    ]
    sentences = [f"ASR falls clearly {'; '.join(gains)}." if gains else "Nothing clearly lowers ASR."]
    worse = [name for (_, asr), names in kinds.items() if asr == "worse" for name in names]
    if worse:
        sentences.append(f"ASR rises clearly after {joined(worse)}.")
    for_nothing = [
        name for (other, asr), names in kinds.items() if other == "worse" and asr != "better" for name in names
    ]
    if for_nothing:
        sentences.append(f"{robust.capitalize()} falls clearly, and ASR does not, after {joined(for_nothing)}.")
    return sentences


def _short(row: RowView, reference: RowView) -> str:
    """What of the row's name is not in that of the row it was made from: what varies, or what follows."""
    if row.vary and row.result.name == reference.result.name:
        return row.vary
    return row.name.removeprefix(f"{reference.name}, ")
