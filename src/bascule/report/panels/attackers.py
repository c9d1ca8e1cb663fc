"""Recipes against attackers: one table, coloured by who holds, and a sentence on each recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bascule.core.grid import TableCell
from bascule.report.compare.attackers import Bout, Contest, contests_of, in_the_worst_case, sentences
from bascule.report.tables.attackers import OPEN, robust_cell, taken_cell
from bascule.report.tables.tables import ONE_IN_TWENTY
from bascule.report.view import View

TITLE = "Recipes against attackers"
PLACE = 36


@dataclass(frozen=True)
class Meeting:
    """What is shown of one recipe and one attacker."""

    end: str
    taken: TableCell
    robust: TableCell


@dataclass(frozen=True)
class Chart:
    """One contest."""

    name: str
    recipes: list[str]
    lines: list[tuple[str, list[Meeting]]]
    finding: str
    """Who is not beaten in the worst case; empty where that cannot be said."""
    sentences: list[str]


def context(view: View) -> Mapping[str, Any] | None:
    """All contests; nothing where no poison varies under names."""
    contests = contests_of([row.result for row in view.rows])
    if not contests:
        return None
    return {"charts": [_chart(contest) for contest in contests], "open": OPEN, "one_in_twenty": ONE_IN_TWENTY}


def _chart(contest: Contest) -> Chart:
    worst = list(in_the_worst_case(contest))
    return Chart(
        name=contest.name,
        recipes=[standing.recipe for standing in contest.standings],
        lines=[
            (attacker, [_meeting(standing.bouts.get(attacker)) for standing in contest.standings])
            for attacker in contest.attackers
        ],
        finding=next(iter(worst), ""),
        sentences=sentences(contest, worst),
    )


def _meeting(bout: Bout | None) -> Meeting:
    return Meeting("open" if bout is None else bout.end, taken_cell(bout), robust_cell(bout))
