"""Recipes against attackers as tables of text, and below them who holds against whom."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from bascule.core import grid
from bascule.core.errors import RequestError
from bascule.core.grid import Grid, TableCell
from bascule.core.text import csv_field, json_text
from bascule.metrics.contract import Measure
from bascule.metrics.wording import UNKNOWN, table_cell
from bascule.record.rows import RowResult
from bascule.report.compare.asked import asked_of
from bascule.report.compare.attackers import Bout, Contest, contests_of, sentences
from bascule.report.tables.tables import LEGEND, ONE_IN_TWENTY, PAIRED, Format, change_cell

OPEN = "A question mark: whether it is within 2 points of the twin's is not clear, or there is one seed."


def taken_cell(bout: Bout | None) -> TableCell:
    """ASR less that of the twin; a question mark after what is neither clearly within the margin nor clearly above."""
    if bout is None or bout.taken.value is None:
        return TableCell(UNKNOWN)
    cell = change_cell(bout.taken)
    return cell._replace(value=f"{cell.value}?") if bout.end == "open" else cell


def robust_cell(bout: Bout | None) -> TableCell:
    """Robust accuracy."""
    measure = None if bout is None else bout.row.metrics.get("robust_accuracy")
    return TableCell(UNKNOWN) if measure is None else table_cell(measure)


def render_attackers(
    rows: Sequence[RowResult], form: Format, against: str | None = None, *, width: int | None = None
) -> str:
    """All contests of recipes and attackers, in one of the formats, ending with a line break.

    Args:
        rows: Of one run or of several.
        form: What to write. CSV has one line for each recipe and attacker.
        against: The recipe whose robust accuracy the others are compared with; by default the first that is hardened
            and has neither filter nor repair.
        width: Most columns of a line of text.

    Raises:
        RequestError: Nothing about the poison varies under names, or no row has the name in `against`.
    """
    contests = contests_of(rows, against)
    if not contests:
        raise RequestError(
            "no attackers: they are values with names of something about the poison that a study varies, as in "
            "`vary: {poison: {Sticker: {...}, Wave: {...}}}`, and ASR must be measured, with twins"
        )
    if form == "json":
        return json_text(json.dumps([_as_dict(contest) for contest in contests], indent=1, allow_nan=False)) + "\n"
    if form == "csv":
        return _csv(contests)
    grids, below = [], []
    for contest in contests:
        name = f" · {contest.name}" if contest.name else ""
        grids += [_grid(contest, f"ASR less that of the twin, points{name}", taken_cell)]
        grids += [_grid(contest, f"Robust accuracy %{name}", robust_cell)]
        below += [[OPEN], ["", *sentences(contest)]]
    below[-1] += ["", *asked_of(rows), LEGEND, PAIRED, ONE_IN_TWENTY]
    return grid.render(grids, below, form, width=width)


def _grid(contest: Contest, title: str, cell: Any) -> Grid:
    recipes = [standing.recipe for standing in contest.standings]
    lines = [
        [TableCell(attacker), *(cell(standing.bouts.get(attacker)) for standing in contest.standings)]
        for attacker in contest.attackers
    ]
    return Grid([title], recipes, lines)


def _as_dict(contest: Contest) -> dict[str, Any]:
    return {
        "name": contest.name,
        "reference": contest.reference,
        "recipes": {
            standing.recipe: {
                attacker: {
                    "end": bout.end,
                    "asr_less_twin": bout.taken.as_dict(),
                    "robust_accuracy": _number(bout.row.metrics.get("robust_accuracy")),
                    "robust_accuracy_less_reference": None if bout.cost is None else bout.cost.as_dict(),
                }
                for attacker, bout in standing.bouts.items()
            }
            for standing in contest.standings
        },
        "sentences": sentences(contest),
    }


def _number(measure: Measure | None) -> dict[str, Any] | None:
    return None if measure is None else measure.as_dict()


_PARTS = ("value", "low", "high")


def _csv(contests: Sequence[Contest]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    quantities = ("asr_less_twin", "robust_accuracy", "robust_accuracy_less_reference")
    columns = [f"{quantity}_{part}" for quantity in quantities for part in _PARTS]
    writer.writerow(["contest", "recipe", "attacker", "end", *columns])
    for contest in contests:
        for recipe, bouts in _as_dict(contest)["recipes"].items():
            for attacker, bout in bouts.items():
                known = [bout[quantity] or {} for quantity in quantities]
                numbers = [number.get(part) for number in known for part in _PARTS]
                writer.writerow(map(csv_field, [contest.name, recipe, attacker, bout["end"], *numbers]))
    return out.getvalue()
