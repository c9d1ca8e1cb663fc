"""The first screen: what each row does to both ends, in plain words, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bascule.metrics.interval import CONFIDENCE
from bascule.record.audited import notes_of
from bascule.record.rows import RowResult
from bascule.report.compare.comparable import apart, groups_of
from bascule.report.compare.pairwise import Comparison, before, between, compare, end_metrics
from bascule.report.compare.same_models import distinct
from bascule.report.compare.sentences import Statement, describe, describe_alone
from bascule.report.view import RowView, View
from bascule.report.words import SPACE, percent

TITLE = "In short"
PLACE = 10

_MANY = 4
"""With more sentences than this they are set smaller."""
_UNFOLDED = 6
"""Most sentences that are not folded."""
_NOUNS = ("seed", "test image")
_MEANING = {
    "robust_accuracy": "Robust accuracy is the share of test images that a model still gets right under attack: "
    "higher is safer.",
    "certified_accuracy": "Certified accuracy is the share of test images that are right and proved to stay so: "
    "higher is safer.",
    "asr": "ASR, the attack success rate, is the share of images with the trigger that are taken for the attacker's "
    "class: lower is safer.",
}


@dataclass(frozen=True)
class Entry:
    """A row and what is said of it."""

    row: RowView
    statement: Statement
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Group:
    """Rows that are compared with one reference; without one, rows that stand alone."""

    reference: RowView | None
    entries: list[Entry]
    what: str = ""
    """What the reference is to them."""


def context(view: View) -> Mapping[str, Any] | None:
    """What matters most, and the rest: rows that may be compared beside the first of them, others alone.

    Nothing of one audit, whose rows are about one model and whose verdict says all that.
    """
    if len(view.runs) == 1 and notes_of(view.runs[0].plan.text) is not None:
        return None
    rows = distinct(view.rows)
    views = {id(row.result): row for row in rows}
    results = [row.result for row in rows]
    groups = _groups(results, views)
    entries = sorted((entry for group in groups for entry in group.entries), key=_importance, reverse=True)
    first, rest = entries[:_UNFOLDED], entries[_UNFOLDED:]
    names = dict.fromkeys(name for row in results for name in end_metrics(row) if name in row.metrics)
    return {
        "groups": _grouped(groups, first),
        "folded": _grouped(groups, rest),
        "rest": len(rest),
        "compact": len(first) > _MANY,
        "apart": apart(results),
        "meanings": [_MEANING[name] for name in names if name in _MEANING],
        "basis": _basis([entry.comparison for entry in entries if entry.comparison is not None]),
    }


def clear_sentences(view: View) -> list[str]:
    """What is clear of the rows that matter most, as the panel says it, each beside what it is compared with."""
    if len(view.runs) == 1 and notes_of(view.runs[0].plan.text) is not None:
        return []
    rows = distinct(view.rows)
    groups = _groups([row.result for row in rows], {id(row.result): row for row in rows})
    clear = [
        (entry, group.reference)
        for group in groups
        for entry in group.entries
        if group.reference is not None and entry.statement.meaning
    ]
    clear.sort(key=lambda pair: _importance(pair[0]), reverse=True)
    return [
        f"{entry.row.result.label} against {reference.result.label}: {entry.statement.text}".replace(SPACE, " ")
        for entry, reference in clear[:_UNFOLDED]
        if reference is not None
    ]


def _groups(rows: Sequence[RowResult], views: Mapping[int, RowView]) -> list[Group]:
    """Repaired and filtered rows beside the same models before; the others beside the first of those like them."""
    made = before(rows)
    remade = {id(one.row) for one in made}
    kinds = groups_of([row for row in rows if id(row) not in remade])
    groups = []
    for reference, *others in kinds:
        entries = [Entry(views[id(one.row)], describe(one), one) for one in (compare(reference, row) for row in others)]
        if entries:
            what = "the first row" if len(kinds) == 1 else "the first row of its kind"
            groups.append(Group(views[id(reference)], entries, what))
        elif all(one.reference is not reference for one in made):
            groups.append(Group(None, [Entry(views[id(reference)], describe_alone(reference))]))
    for reference in {id(one.reference): one.reference for one in made}.values():
        entries = [Entry(views[id(one.row)], describe(one), one) for one in made if one.reference is reference]
        groups.append(Group(views[id(reference)], entries, "the same models before"))
    return groups


def _importance(entry: Entry) -> tuple[bool, bool, float]:
    """What a reader must know first sorts highest.

    Trade-offs, since one end alone would hide them; then what is compared with anything at all; among each the larger
    change, counted by the ends of the intervals nearest to 0: a large change that may be none is no news.
    """
    if entry.comparison is None:
        return False, False, 0.0
    both = end_metrics(entry.comparison.row)
    differences = [entry.comparison.differences[name] for name in both if name in entry.comparison.differences]
    sure = [one for one in differences if one.change in ("up", "down")]
    size = sum(min(abs(one.low or 0.0), abs(one.high or 0.0)) for one in sure)
    return {one.outcome for one in sure} == {"better", "worse"}, True, size


def _grouped(groups: Sequence[Group], entries: Sequence[Entry]) -> list[Group]:
    """The entries beside their references, in their order; a group comes where its first entry does."""
    wanted = {id(entry): place for place, entry in enumerate(entries)}
    kept = []
    for group in groups:
        inside = sorted((one for one in group.entries if id(one) in wanted), key=lambda one: wanted[id(one)])
        if inside:
            kept.append(Group(group.reference, inside, group.what))
    kept.sort(key=lambda group: wanted[id(group.entries[0])])
    return kept


def _basis(comparisons: Sequence[Comparison]) -> str:
    """On what the comparisons rest; empty when there are none."""
    named = [[each.differences.get(name) for name in ("accuracy", *end_metrics(each.row))] for each in comparisons]
    counts = [max((one.n or 0 for one in each if one is not None), default=0) for each in named]
    known = [(each.seeds, images) for each, images in zip(comparisons, counts, strict=True) if images]
    if not known:
        return ""
    seeds, images = (between(numbers, noun) for numbers, noun in zip(zip(*known, strict=True), _NOUNS, strict=True))
    return f"In brackets: the {percent(CONFIDENCE)} interval of the change, over {seeds} and {images}."
