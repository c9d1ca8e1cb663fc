"""Which rows are beaten at every metric by another row, and which are not: the Pareto set, with its doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bascule.metrics.contract import Metric
from bascule.metrics.paired import Difference, Seeds, difference


@dataclass(frozen=True)
class Rivals:
    """Rows that beat a row, by their place."""

    clearly: tuple[int, ...] = ()
    """Better at every metric, and every interval of the paired differences says so, at two common seeds or more."""
    perhaps: tuple[int, ...] = ()
    """At no metric worse and at one better in value, but not clearly."""


def rivals_of(rows: Sequence[Seeds], metrics: Sequence[Metric]) -> list[Rivals | None]:
    """For each row, who beats it in all `metrics`; None for a row that cannot be compared with any other.

    A row that nobody beats clearly cannot be struck out; one that nobody beats at all is in the Pareto set of what was
    measured. Each interval stands for itself: with many rows some pair is called clear by chance (docs/statistics.md).
    """
    rivals: list[Rivals | None] = []
    for place, row in enumerate(rows):
        differences_to = {
            other: [difference(metric, row, rival) for metric in metrics]
            for other, rival in enumerate(rows)
            if other != place
        }
        known = {
            other: differences for other, differences in differences_to.items() if all(map(_is_known, differences))
        }
        clearly = tuple(
            other for other, differences in known.items() if all(d.outcome == "better" for d in differences)
        )
        perhaps = tuple(other for other, differences in known.items() if other not in clearly and _ahead(differences))
        rivals.append(Rivals(clearly, perhaps) if known else None)
    return rivals


def _is_known(difference: Difference) -> bool:
    return difference.value is not None


def _ahead(differences: Sequence[Difference]) -> bool:
    """At no metric worse and at one better, in value."""
    gains = [d.value if d.better == "higher" else -d.value for d in differences if d.value is not None]
    return min(gains) >= 0 and max(gains) > 0
