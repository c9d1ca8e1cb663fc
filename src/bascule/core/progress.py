"""Progress of long work: what is told of it. How it is shown is the business of whoever shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


def nothing() -> None:
    """For those who need not know."""


class Progress:
    """Shows nothing. Calls `ended` whenever a cell has ended, well or not."""

    def __init__(self, ended: Callable[[], object] = nothing) -> None:
        self._ended = ended

    def begin(self, label: str) -> None:
        """Work on a cell begins."""

    def end(self, label: str, seconds: float, failure: str | None) -> None:
        """A cell has ended, after so long, well or with this failure."""
        self._ended()

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[None]:
        """One part of the work on a cell, in `total` steps."""
        yield

    def update(self, done: int, note: str = "") -> None:
        """Steps of the current stage that are done, and what to say beside them."""

    def told(self, label: str, stage: str, total: int, done: int, note: str) -> None:
        """How far another process is with a cell that has begun: its stage, none for now if empty, as in `update`."""

    def waits(self, what: str) -> None:
        """Nothing can be done before this has happened elsewhere."""
