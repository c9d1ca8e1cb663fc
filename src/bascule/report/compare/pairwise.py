"""Rows beside each other: what changes from one to the other, which are not separated, which are beaten."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from bascule.core.errors import RequestError, unknown
from bascule.metrics.paired import Difference, difference
from bascule.metrics.pareto import Rivals, rivals_of
from bascule.record.rows import RowResult
from bascule.report.compare.comparable import groups_of
from bascule.report.words import count, joined

NAMES = {
    "accuracy": "accuracy",
    "robust_accuracy": "robust accuracy",
    "certified_accuracy": "certified accuracy",
    "asr": "ASR",
}
_PAIRS = 6
"""Pairs of rows that a note names."""


@dataclass(frozen=True)
class Comparison:
    """One row against another, metric by metric."""

    reference: RowResult
    row: RowResult
    differences: dict[str, Difference]
    """The row's metrics less the reference's."""

    @property
    def seeds(self) -> int:
        """Seeds that both have."""
        return max((difference.seeds for difference in self.differences.values()), default=0)

    @property
    def too_few_seeds(self) -> bool:
        """Whether all that is known is known at fewer seeds than make a difference clear."""
        known = [difference for difference in self.differences.values() if difference.seeds]
        return bool(known) and all(difference.too_few_seeds for difference in known)


def compare(reference: RowResult, row: RowResult) -> Comparison:
    """All metrics that both rows have, paired."""
    shared = [name for name in row.metrics if name in reference.metrics]
    differences = {name: difference(row.kinds[name], reference.outcomes, row.outcomes) for name in shared}
    return Comparison(reference, row, differences)


def against(rows: Sequence[RowResult], name: str) -> list[Comparison]:
    """Every row against the row `name` that it may be compared with: of its own run, or else the first.

    Args:
        rows: Of one run or of several.
        name: Of a row, with its run (`None · digits`) or without; where something varies, all with the same value are
            compared, or with the value (`None · a.pth`) all rows with that one.

    Raises:
        RequestError: No row has this name, or several of a run have.
    """
    by_name = any(name in (row.row, row.name) for row in rows)
    named = [row for row in rows if name in ((row.row, row.name) if by_name else row.called)]
    if not named:
        known = dict.fromkeys(part for row in rows for part in (row.row, row.name, row.label))
        raise RequestError(unknown("row", name, known))
    same = [row.label for row in named if row.run == named[0].run]
    if len(same) > 1 and not by_name:
        raise RequestError(f"{name!r} may be {' or '.join(same)}: give the whole name")
    comparisons = []
    # Who names a row wants to see it beside all others.
    for group in groups_of(rows, poison=False, vary=by_name):
        references = [row for row in group if any(row is one for one in named)]
        for row in group:
            reference = next((one for one in references if one.run == row.run), next(iter(references), row))
            if reference is not row:
                comparisons.append(compare(reference, row))
    return comparisons


def before(rows: Sequence[RowResult]) -> list[Comparison]:
    """Every repaired row, or filtered one, against the row of the same models before, where there is one."""
    models = {(row.run, tuple(seed.cell.fingerprint for seed in row.planned)): row for row in reversed(rows)}
    pairs = [(models.get((row.run, row.made_from)), row) for row in rows if row.made_from]
    return [compare(reference, row) for reference, row in pairs if reference is not None]


def end_metrics(row: RowResult) -> tuple[str, str]:
    """The metrics of both ends; certified accuracy stands in where no robust accuracy is measured."""
    certified = "robust_accuracy" not in row.metrics and "certified_accuracy" in row.metrics
    return ("certified_accuracy" if certified else "robust_accuracy"), "asr"


def unseparated(rows: Sequence[RowResult]) -> list[str]:
    """What is measured at both ends but does not tell two rows apart; one note for each metric and group of rows."""
    notes = []
    both = [(group, name) for group in groups_of(rows) for name in end_metrics(group[0])]
    for group, name in both:
        names = _names(group)
        pairs = {
            f"{one} and {other}": difference(second.kinds[name], first.outcomes, second.outcomes)
            for (one, first), (other, second) in itertools.combinations(zip(names, group, strict=True), 2)
            if name in first.metrics and name in second.metrics
        }
        unclear = {pair: paired for pair, paired in pairs.items() if paired.change == "unclear"}
        if unclear:
            named = [*itertools.islice(unclear, _PAIRS), *(["…"] if len(unclear) > _PAIRS else [])]
            by = f"{between([paired.seeds for paired in unclear.values()], 'seed')} and "
            by += between([paired.n or 0 for paired in unclear.values()], "image")
            many = f" ({len(unclear)} of {count(len(pairs), 'pair')})" if len(pairs) > 1 else ""
            alone = any(paired.too_few_seeds for paired in unclear.values())
            why = "; one seed has no interval over seeds" if alone else ""
            notes.append(f"Not separated by {by}{_where(group)}: {NAMES[name]} of {', '.join(named)}{many}{why}")
    return notes


def between(numbers: Sequence[int], noun: str) -> str:
    """The least and the most of some counts: `5 seeds`, `2 to 3 seeds`."""
    least, most = min(numbers), max(numbers)
    return count(most, noun) if least == most else f"{least:,} to {count(most, noun)}"


def rivals_by_row(rows: Sequence[RowResult]) -> dict[int, Rivals]:
    """By the place of a row: who beats it at both ends, as places among all rows."""
    by_row = {}
    places = {id(row): place for place, row in enumerate(rows)}
    for group in groups_of(rows):
        names = end_metrics(group[0])
        known = [row for row in group if all(name in row.metrics for name in names)]
        if not known:
            continue
        metrics = [known[0].kinds[name] for name in names]
        for row, rivals in zip(known, rivals_of([row.outcomes for row in known], metrics), strict=True):
            if rivals is not None:
                clearly, perhaps = (
                    tuple(places[id(known[rival])] for rival in some) for some in (rivals.clearly, rivals.perhaps)
                )
                by_row[places[id(row)]] = Rivals(clearly, perhaps)
    return by_row


def pareto(rows: Sequence[RowResult]) -> list[tuple[str, list[str]]]:
    """For each group of rows, in sentences: which of them no other one beats at both ends; and who beats the others."""
    by_row = rivals_by_row(rows)
    places = {id(row): place for place, row in enumerate(rows)}
    notes = []
    for group in groups_of(rows):
        names = {places[id(row)]: name for row, name in zip(group, _names(group), strict=True)}
        known = {place: by_row[place] for place in names if place in by_row}
        if not known:
            continue
        free = [names[place] for place, rivals in known.items() if not rivals.clearly and not rivals.perhaps]
        perhaps = [
            f"{names[place]} (by {joined([names[rival] for rival in rivals.perhaps])})"
            for place, rivals in known.items()
            if rivals.perhaps and not rivals.clearly
        ]
        clearly = [
            f"{names[place]} (by {joined([names[rival] for rival in rivals.clearly])})"
            for place, rivals in known.items()
            if rivals.clearly
        ]
        about = f"{' and '.join(NAMES[name] for name in end_metrics(group[0]))}{_where(group)}"
        beaten = [f"Perhaps beaten, but not clearly: {', '.join(perhaps)}"] if perhaps else []
        beaten += [f"Clearly beaten at both ends: {', '.join(clearly)}"] if clearly else []
        notes.append((f"Not beaten at both ends ({about}): {', '.join(free) or 'none'}", beaten))
    return notes


def _names(group: Sequence[RowResult]) -> list[str]:
    """What each row is called among these: its run too where the others are not all of it."""
    alone = len({row.run for row in group}) == 1
    return [row.row if alone else row.name for row in group]


def _where(group: Sequence[RowResult]) -> str:
    """What the rows have in common: their run where there are others, and what varies elsewhere."""
    runs = {row.run for row in group} - {""}
    vary = [f"{path} {value}" for path, value in group[0].vary.items()]
    return "".join(f", {part}" for part in ([*runs] if len(runs) == 1 else []) + vary)
