"""Progress as it is shown: bars on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from bascule.core.progress import Progress, nothing

EVERY = 60.0
"""Seconds without a line in a log after which one says how far the work is."""


class Bars(Progress):
    """Two bars on a terminal: cells, and the stage of the current one."""

    def __init__(self, progress: RichProgress, cells: int, ended: Callable[[], object]) -> None:
        super().__init__(ended)
        self._progress = progress
        self._cells = progress.add_task("cells", total=cells, note="")
        self._stage = progress.add_task("", total=1, note="", visible=False)

    def begin(self, label: str) -> None:
        self._progress.update(self._cells, note=label)

    def end(self, label: str, seconds: float, failure: str | None) -> None:
        super().end(label, seconds, failure)
        self._progress.update(self._cells, advance=1, note=label)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[None]:
        self._progress.reset(self._stage, total=total, visible=True, description=name, note="")
        yield
        self._progress.update(self._stage, visible=False)

    def update(self, done: int, note: str = "") -> None:
        self._progress.update(self._stage, completed=done, note=note)


class Lines(Progress):
    """Plain lines for a log: one for each cell that has ended, and one after every `every` seconds without any."""

    def __init__(
        self, console: Console, cells: int, ended: Callable[[], object] = nothing, *, every: float = EVERY
    ) -> None:
        super().__init__(ended)
        self._console, self._cells, self._every = console, cells, every
        self._done = 0
        self._label, self._stage, self._steps, self._note = "", "", "", ""
        self._total = 0
        self._began = self._told = time.monotonic()
        self._over = Event()

    def begin(self, label: str) -> None:
        self._label, self._began = label, time.monotonic()
        self._stage = self._steps = self._note = ""  # a failed cell leaves its stage open

    def end(self, label: str, seconds: float, failure: str | None) -> None:
        super().end(label, seconds, failure)
        self._done, self._label = self._done + 1, ""
        how = f"{seconds:.1f} s" if failure is None else f"failed after {seconds:.1f} s: {failure}"
        self._tell(f"{self._done} of {self._cells} cells: {label}: {how}")

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[None]:
        self._stage, self._total, self._steps, self._note = name, total, "", ""
        yield
        self._stage = self._steps = self._note = ""

    def update(self, done: int, note: str = "") -> None:
        self._steps, self._note = f"{done}/{self._total}", note

    @contextmanager
    def kept_up(self) -> Iterator[None]:
        """Say now and then how far the work is while the block runs, from a thread: some steps are long."""
        follower = Thread(target=self._follow, daemon=True)
        follower.start()
        try:
            yield
        finally:
            self._over.set()
            follower.join()

    def _follow(self) -> None:
        while not self._over.wait(max(0.0, self._told + self._every - time.monotonic())):
            if time.monotonic() - self._told >= self._every:
                self._tell(f"{self._done} of {self._cells} cells done; {self._doing()}")

    def _doing(self) -> str:
        where = " ".join(filter(None, (self._stage, self._steps, *self._note.split())))
        what = ": ".join(filter(None, (self._label, where))) or "working"
        return f"{what}, {time.monotonic() - self._began:.0f} s so far"

    def _tell(self, text: str) -> None:
        self._told = time.monotonic()
        try:
            self._console.file.write(f"bascule: {' '.join(text.split())}\n")
            self._console.file.flush()
        except OSError:
            pass  # nobody reads the log any more; the work goes on


@contextmanager
def console_progress(console: Console, cells: int, ended: Callable[[], object] = nothing) -> Iterator[Progress]:
    """Bars on `console` while the block runs, or plain lines when it is no terminal."""
    if not console.is_terminal:
        lines = Lines(console, cells, ended)
        with lines.kept_up():
            yield lines
        return
    columns = (
        TextColumn("{task.description:>8}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),  # names are no markup
    )
    with RichProgress(*columns, console=console, transient=True) as progress:
        yield Bars(progress, cells, ended)
