"""Cells that wait to be done, and which of them can be begun; whoever follows the run is told of each here."""

from __future__ import annotations

from collections.abc import Sequence

from bascule.plan.plan import Cell
from bascule.running.cell import Failure
from bascule.running.context import RunContext


class Waiting:
    """The cells of a run in the plan's order; one that needs another's model waits for that one."""

    pause: float | None = None
    """Seconds after which to look again when no cell can be begun; None where only one that ends helps."""

    def __init__(self, cells: Sequence[Cell], run: RunContext) -> None:
        self.failures: list[Failure] = []
        self._run = run
        self._cells = list(cells)
        self._begun: dict[str, Cell] = {}
        self._again: set[str] = set()

    def __len__(self) -> int:
        return len(self._cells)

    def begin(self) -> Cell | None:
        """The first cell that can be begun, which then waits no more; None where there is none now."""
        for cell in list(self._cells):
            if not self._needs_another(cell) and self._is_free(cell):
                self._cells.remove(cell)
                self._begun[cell.fingerprint] = cell
                if cell.fingerprint not in self._again:
                    self._run.progress.begin(cell.label)
                self._run.telling.begun(cell)
                return cell
        return None

    def again(self, cell: Cell) -> None:
        """A cell that was begun, and not ended, is to be begun again before all others."""
        self._cells.insert(0, self._begun.pop(cell.fingerprint))
        self._again.add(cell.fingerprint)
        self._run.progress.told(cell.label, "starting", 1, 0, "again")

    def end(self, cell: Cell, seconds: float, failure: str | None) -> None:
        """A cell that was begun has ended."""
        del self._begun[cell.fingerprint]
        self._note(cell, cell.label, seconds, failure)
        self._run.telling.ended(cell, seconds, failure)

    def _note(self, cell: Cell, label: str, seconds: float, failure: str | None) -> None:
        self._run.progress.end(label, seconds, failure)
        if failure is not None:
            self.failures.append(Failure(cell.label, failure))

    def _needs_another(self, cell: Cell) -> bool:
        open_ones = {*self._begun, *(other.fingerprint for other in self._cells)}
        return any(other.fingerprint in open_ones for other in cell.needs)

    def _is_free(self, cell: Cell) -> bool:
        """Whether nobody else is at it, or was and has ended."""
        return True
