"""Several cells at the same time, done by a pool of workers, wherever these are."""

from __future__ import annotations

import time
from typing import Any, Protocol

from bascule.plan.plan import Cell
from bascule.running.cell import Failure, is_done, record_failure
from bascule.running.context import RunContext
from bascule.running.waiting import Waiting
from bascule.running.worker import Ended, Epoch, Reached, Refused


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

    def listen(self, patience: float | None) -> tuple[Cell, float, str | None] | None:
        """Wait for a word of one of them, at most so many seconds; if a cell has ended, which, after how many seconds,
        how it failed."""

    def stop(self) -> None:
        """End all of them."""


def run_by(pool: Pool, waiting: Waiting, run: RunContext) -> list[Failure]:
    """The cells that wait, as many at the same time as the pool has room for. The others go on when one fails. In the
    end the pool is stopped.

    Raises:
        RequestError: A cell, or the pool, found that the request is wrong.
    """
    try:
        while waiting or pool.busy:
            while pool.has_room and (cell := waiting.begin()) is not None:
                run.progress.told(cell.label, "starting", 1, 0, "")  # a worker takes seconds to say its first word
                pool.give(cell)
            if (ended := pool.listen(waiting.pause)) is not None:
                waiting.end(*ended)
    finally:
        pool.stop()
    return waiting.failures


def passed_on(word: Any, cell: Cell, run: RunContext) -> bool:
    """Tell whoever follows the run what a worker says on its way through a cell; whether it was such a word.

    Raises:
        RequestError: It found that the request is wrong.
    """
    if isinstance(word, Refused):
        raise word.error
    if isinstance(word, Reached):
        run.progress.told(cell.label, word.stage, word.total, word.done, word.note)
    elif isinstance(word, Epoch):
        run.telling.epoch(cell, word.values)
    else:
        return False
    return True


def failure_of(word: Ended, cell: Cell, run: RunContext, unseen: str, patience: float = 0.0) -> str | None:
    """What keeps a cell from being done that a worker has ended, None if nothing does.

    Args:
        word: What the worker says.
        cell: The cell.
        run: Its record is told of a failure that the worker could not record.
        unseen: What to say where the worker has done it, and the record does not say so.
        patience: Seconds that the record may take to say so.
    """
    if word.kind:
        record_failure(cell, run, word.kind, word.failure or word.kind)
    elif word.failure is None:
        until = time.monotonic() + patience
        while not is_done(cell, run.record.cell(cell.fingerprint)):
            if time.monotonic() > until:
                return unseen
            time.sleep(0.5)
    return word.failure
