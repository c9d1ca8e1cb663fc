"""What repairs, and filters before another training, did to both ends: the same models before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bascule.report.compare.pairwise import NAMES, Comparison, before, ends
from bascule.report.evidence import Number, number
from bascule.report.tables.tables import ARROWS, shown_change
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
    numbers: tuple[Number, ...]
    """What each metric is now, and in place of its interval the paired change."""


@dataclass(frozen=True)
class Group:
    """What was made from the models of one row."""

    reference: RowView
    numbers: tuple[Number, ...]
    lines: tuple[Line, ...]
    sentences: tuple[str, ...]


def context(view: View) -> Mapping[str, Any] | None:
    """A part of the table for every row that others were made from; nothing where there is none."""
    views = {id(row.result): row for row in view.rows}
    found = before([row.result for row in view.rows])
    if not found:
        return None
    metrics = [name for name in _METRICS if any(name in one.differences for one in found)]
    references = {id(one.reference): views[id(one.reference)] for one in found}
    return {
        "headings": [_heading(found, name) for name in metrics],
        "groups": [
            _group(row, [one for one in found if id(one.reference) == key], views, metrics)
            for key, row in references.items()
        ],
    }


def _heading(found: Sequence[Comparison], name: str) -> tuple[str, str, str]:
    """Title, arrow, and which is better."""
    metric = next(one.row.kinds[name] for one in found if name in one.row.kinds)
    return metric.title, ARROWS[metric.better], metric.better


def _group(
    reference: RowView, found: Sequence[Comparison], views: Mapping[int, RowView], metrics: Sequence[str]
) -> Group:
    return Group(
        reference,
        tuple(number(reference.result.metrics[name]) for name in metrics),
        tuple(_line(views[id(one.row)], reference, one, metrics) for one in found),
        tuple(_sentences(reference, found, views)),
    )


def _line(row: RowView, reference: RowView, found: Comparison, metrics: Sequence[str]) -> Line:
    return Line(row, _short(row, reference), tuple(_number(found, name) for name in metrics))


def _number(found: Comparison, name: str) -> Number:
    now, difference = found.row.metrics.get(name), found.differences.get(name)
    if now is None:
        return Number("")
    change, interval = ("", "") if difference is None else shown_change(difference)
    return Number(number(now).value, f"{change} ({interval})" if interval else change)


def _sentences(reference: RowView, found: Sequence[Comparison], views: Mapping[int, RowView]) -> list[str]:
    """Who clearly weakens the backdoor, at what price at the other end; who does harm at either end for nothing."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for one in found:
        other, asr = (one.differences[name].outcome if name in one.differences else "missing" for name in ends(one.row))
        kinds.setdefault((other, asr), []).append(_short(views[id(one.row)], reference))
    robust = NAMES[ends(reference.result)[0]]
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
