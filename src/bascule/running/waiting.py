"""Cells that wait to be done, and which of them can be begun."""

from __future__ import annotations

from collections.abc import Sequence

from bascule.plan.plan import Cell
from bascule.running.cell import Failure


class Waiting:
    """The cells of a run in the plan's order; one that needs another's model waits for that one."""

    pause: float | None = None
    """Seconds after which to look again when no cell can be begun; None where only one that ends helps."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.failures: list[Failure] = []
        self._cells = list(cells)
        self._begun: dict[str, Cell] = {}

    def __len__(self) -> int:
        return len(self._cells)

    def begin(self) -> Cell | None:
        """The first cell that can be begun, which then waits no more; None where there is none now."""
        for cell in list(self._cells):
            if not self._needs_another(cell) and self._is_free(cell):
                self._cells.remove(cell)
                self._begun[cell.fingerprint] = cell
                return cell
        return None

    def end(self, cell: Cell, failure: str | None) -> None:
        """A cell that was begun has ended."""
        del self._begun[cell.fingerprint]
        self._note(cell, failure)

    def _note(self, cell: Cell, failure: str | None) -> None:
        if failure is not None:
            self.failures.append(Failure(cell.label, failure))

    def _needs_another(self, cell: Cell) -> bool:
        open_ones = {*self._begun, *(other.fingerprint for other in self._cells)}
        return any(other.fingerprint in open_ones for other in cell.needs)

    def _is_free(self, cell: Cell) -> bool:
        """Whether nobody else is at it, or was and has ended."""
        return True
