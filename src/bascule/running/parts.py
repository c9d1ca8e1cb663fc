"""One part of a run: its own cells, those that they need, and what other parts do of them in the meantime."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence

from bascule.core.errors import RequestError
from bascule.plan.plan import Cell, Plan
from bascule.record.cell import CellRecord
from bascule.record.lock import Part, is_cell_locked, parts_at_work, refusal
from bascule.record.plan import RecordedPlan
from bascule.record.reading import Seen, seen
from bascule.record.run import RunRecord
from bascule.record.sums import DamagedError
from bascule.running.cell import is_done
from bascule.running.context import RunContext
from bascule.running.provenance import own_command
from bascule.running.waiting import Waiting

_LOOK = 1.0
"""Seconds between two looks at what other parts have done."""


def cells_of_part(plan: Plan, part: Part) -> list[Cell]:
    """The cells that are a part's own, in the plan's order; every cell of the plan is one part's own.

    They are dealt out recipe by recipe, whatever is done already: cells that differ by seed alone take alike long.
    """
    cells = plan.cells()
    recipes: dict[str, list[Cell]] = {}
    for cell in cells:
        recipes.setdefault(json.dumps(cell.given, sort_keys=True, default=str), []).append(cell)
    dealt = [cell.fingerprint for alike in recipes.values() for cell in alike]
    own = set(dealt[part.number - 1 :: part.of])
    return [cell for cell in cells if cell.fingerprint in own]


def open_cells(own: Sequence[Cell], plan: Plan, run: RunRecord, mend: Callable[[CellRecord], object]) -> list[Cell]:
    """What a part has to do, in the plan's order: its own unfinished cells, and the unfinished ones that these need.

    Args:
        own: Its own cells.
        plan: The plan.
        run: Its run.
        mend: Called with each cell's record before it is read.
    """
    cells = {cell.fingerprint: cell for cell in plan.cells()}
    is_open: dict[str, bool] = {}

    def look(name: str) -> None:
        if name in is_open:
            return
        record = run.cell(name)
        mend(record)
        is_open[name] = not is_done(cells[name], record)
        if is_open[name]:
            for needed in cells[name].needs:
                look(needed.fingerprint)

    for cell in own:
        look(cell.fingerprint)
    return [cell for name, cell in cells.items() if is_open.get(name)]


def refuse_other_plan(plan: Plan, run: RunRecord, part: Part) -> None:
    """See that the parts at work beside this one do the same.

    Raises:
        RequestError: They do not; names both.
    """
    try:
        if not run.plan_file.is_file() or _asked(run.plan()) == _asked(plan.recorded()):
            return
    except DamagedError:
        return  # is made again
    if others := parts_at_work(run.path, lambda other: other != part):
        raise RequestError(
            f"{part} ({own_command()}) is to make other models, or to ask other things of them, than those that are "
            f"at work: study, settings, data and code must be the same for all. {refusal(others, run.path)}"
        )


def _asked(plan: RecordedPlan) -> object:
    rows = [(row.row, json.dumps(row.vary, default=str), row.seeds) for row in plan.rows]
    return plan.metrics, rows


class Shared(Waiting):
    """The cells of a part, some of which other parts may do.

    One that somebody else is at waits until that process has done it or has ended. One that somebody else has tried
    since this part began, and failed, has failed here too.
    """

    pause = _LOOK

    def __init__(self, cells: Sequence[Cell], run: RunContext) -> None:
        super().__init__(cells, run)
        self._before: Mapping[str, Seen | None] = {cell.fingerprint: self._told_of(cell) for cell in cells}
        self._held: dict[str, float] = {}

    def begin(self) -> Cell | None:
        cell = super().begin()
        held = [other.label for other in self._cells if other.fingerprint in self._held]
        if cell is None and held and not self._begun:
            self._run.progress.waits(f"another part does {held[0]}")
        return cell

    def _is_free(self, cell: Cell) -> bool:
        record = self._run.record.cell(cell.fingerprint)
        now = time.monotonic()
        if is_cell_locked(record.path):
            self._held.setdefault(cell.fingerprint, now)
            return False
        waited = now - self._held.pop(cell.fingerprint, now)
        done, failure = is_done(cell, record), record.failure()
        if not done and (failure is None or self._told_of(cell) == self._before[cell.fingerprint]):
            return True
        self._cells.remove(cell)
        self._note(cell, f"{cell.label}, by another part", waited, None if done else failure)
        return False

    def _told_of(self, cell: Cell) -> Seen | None:
        """What changes when somebody writes down how the work on a cell ended."""
        return seen(self._run.record.cell(cell.fingerprint).info_file)
