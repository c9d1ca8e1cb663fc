"""What the work on cells tells whoever listens: hooks, in the process that holds the run."""

from __future__ import annotations

from collections.abc import Mapping

from bascule.plan.plan import Cell


class Telling:
    """Tells nobody."""

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        self.names = names
        """Who is told, for the record."""

    def begun(self, cell: Cell) -> None:
        """Work on a cell begins."""

    def epoch(self, cell: Cell, values: Mapping[str, float]) -> None:
        """An epoch of its training has ended, with this point of its curve."""

    def ended(self, cell: Cell, seconds: float, failure: str | None) -> None:
        """The work on it has ended."""
