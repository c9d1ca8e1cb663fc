"""Progress of long work: what is told, and how it is shown on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def nothing() -> None:
    """For those who need not know."""


class Silent:
    """Shows nothing: for scripts, logs and tests. Calls `ended` whenever a cell has ended, well or not."""

    def __init__(self, ended: Callable[[], object] = nothing) -> None:
        self._ended = ended

    @contextmanager
    def cell(self, label: str) -> Iterator[None]:
        """Work on one cell."""
        yield
        self._ended()

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[None]:
        """One part of the work on a cell, in `total` steps."""
        yield

    def update(self, done: int, note: str = "") -> None:
        """Steps of the current stage that are done, and what to say beside them."""


class Bars(Silent):
    """Two bars on a terminal: cells, and the stage of the current one."""

    def __init__(self, progress: Progress, cells: int, ended: Callable[[], object]) -> None:
        super().__init__(ended)
        self._progress = progress
        self._cells = progress.add_task("cells", total=cells, note="")
        self._stage = progress.add_task("", total=1, note="", visible=False)

    @contextmanager
    def cell(self, label: str) -> Iterator[None]:
        self._progress.update(self._cells, note=label)
        with super().cell(label):
            yield
        self._progress.advance(self._cells)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[None]:
        self._progress.reset(self._stage, total=total, visible=True, description=name, note="")
        yield
        self._progress.update(self._stage, visible=False)

    def update(self, done: int, note: str = "") -> None:
        self._progress.update(self._stage, completed=done, note=note)


@contextmanager
def shown(console: Console, cells: int, ended: Callable[[], object] = nothing) -> Iterator[Silent]:
    """Bars on `console` while the block runs, or silence when it is no terminal."""
    if not console.is_terminal:
        yield Silent(ended)
        return
    columns = (
        TextColumn("{task.description:>8}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bars(progress, cells, ended)
