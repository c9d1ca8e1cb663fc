"""Several cells at the same time, done by a pool of workers, wherever these are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bascule.plan.plan import Cell
from bascule.running.cell import Failure
from bascule.running.context import RunContext


class Pool(Protocol):
    """Workers that do cells."""

    @property
    def busy(self) -> list[Cell]:
        """The cells that are being done."""

    @property
    def has_room(self) -> bool:
        """Whether another cell can be given."""

    def give(self, cell: Cell) -> None:
        """Let one of them do this cell."""

    def listen(self) -> tuple[Cell, float, str | None] | None:
        """Wait for a word of one of them; if a cell has ended, which, after how many seconds, how it failed."""

    def stop(self) -> None:
        """End all of them."""


def run_by(pool: Pool, cells: Sequence[Cell], run: RunContext) -> list[Failure]:
    """The cells in the plan's order, as many at the same time as the pool has room for; one that needs another's model
    waits for that one. The others go on when one fails. In the end the pool is stopped.

    Raises:
        RequestError: A cell, or the pool, found that the request is wrong.
    """
    waiting, failures = list(cells), []
    try:
        while waiting or pool.busy:
            while pool.has_room and (cell := _ready(waiting, pool.busy)) is not None:
                waiting.remove(cell)
                run.progress.begin(cell.label)
                run.telling.begun(cell)
                run.progress.told(cell.label, "starting", 1, 0, "")  # a worker takes seconds to say its first word
                pool.give(cell)
            ended = pool.listen()
            if ended is None:
                continue
            cell, seconds, message = ended
            run.progress.end(cell.label, seconds, message)
            run.telling.ended(cell, seconds, message)
            if message is not None:
                failures.append(Failure(cell.label, message))
    finally:
        pool.stop()
    return failures


def _ready(waiting: Sequence[Cell], busy: Sequence[Cell]) -> Cell | None:
    """The first cell that waits for none of the others."""
    open_ones = {cell.fingerprint for cell in (*waiting, *busy)}
    return next((cell for cell in waiting if not open_ones & {other.fingerprint for other in cell.needs}), None)
