"""Progress as it is shown: bars on a terminal, plain lines in a log."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from bascule.core.progress import Progress, nothing
from bascule.core.text import count

EVERY = 60.0
"""Seconds without a line in a log after which one says how far the work is."""


class Bars(Progress):
    """Bars on a terminal: one for the cells, and one for each cell that is being worked on."""

    def __init__(self, progress: RichProgress, cells: int, ended: Callable[[], object]) -> None:
        super().__init__(ended)
        self._progress = progress
        self._cells = progress.add_task("cells", total=cells, note="")
        self._stages: dict[str, TaskID] = {}
        self._label = ""

    def begin(self, label: str) -> None:
        self._label = label
        self._progress.update(self._cells, note="" if self._stages else label)  # each of several has its own bar
        self._stages[label] = self._progress.add_task("", total=1, note="", visible=False)

    def end(self, label: str, seconds: float, failure: str | None) -> None:
        super().end(label, seconds, failure)
        if label in self._stages:
            self._progress.remove_task(self._stages.pop(label))
        self._progress.update(self._cells, advance=1, note="" if self._stages else label)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[None]:
        bar = self._stages[self._label]
        self._progress.reset(bar, total=total, visible=True, description=name, note="")
        yield
        self._progress.update(bar, visible=False)

    def update(self, done: int, note: str = "") -> None:
        self._progress.update(self._stages[self._label], completed=done, note=note)

    def told(self, label: str, stage: str, total: int, done: int, note: str) -> None:
        bar, note = self._stages[label], f"{label}  {note}"
        if self._progress.tasks[self._progress.task_ids.index(bar)].description != stage:
            self._progress.reset(bar, visible=True)
        self._progress.update(bar, description=stage, total=total, completed=done, note=note)

    def waits(self, what: str) -> None:
        self._progress.update(self._cells, note=f"waiting: {what}")


@dataclass
class _Doing:
    """A cell that is being worked on, and how far it is."""

    label: str
    began: float = field(default_factory=time.monotonic)
    stage: str = ""
    total: int = 0
    steps: str = ""
    note: str = ""

    def at(self, stage: str, total: int, steps: str = "", note: str = "") -> None:
        self.stage, self.total, self.steps, self.note = stage, total, steps, note

    def told(self, *, with_note: bool) -> str:
        """The cell, where it is and since when."""
        note = self.note.split() if with_note else ()
        where = " ".join(filter(None, (self.stage, self.steps, *note)))
        what = ": ".join(filter(None, (self.label, where))) or "working"
        return f"{what}, {time.monotonic() - self.began:.0f} s so far"


class Lines(Progress):
    """Plain lines for a log: one for each cell that has ended, and one after every `every` seconds without any."""

    def __init__(
        self, console: Console, cells: int, ended: Callable[[], object] = nothing, *, every: float = EVERY
    ) -> None:
        super().__init__(ended)
        self._console, self._cells, self._every = console, cells, every
        self._done = 0
        self._current = _Doing("")
        self._open: dict[str, _Doing] = {}
        self._told = time.monotonic()
        self._over = Event()

    def begin(self, label: str) -> None:
        self._open[label] = self._current = _Doing(label)  # a failed cell leaves its stage open

    def end(self, label: str, seconds: float, failure: str | None) -> None:
        super().end(label, seconds, failure)
        self._done += 1
        ended = self._open.pop(label, None)
        if ended is self._current:
            self._current = _Doing("", ended.began)
        how = f"{seconds:.1f} s" if failure is None else f"failed after {seconds:.1f} s: {failure}"
        self._tell(f"{self._done} of {count(self._cells, 'cell')}: {label}: {how}")

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[None]:
        self._current.at(name, total)
        yield
        self._current.at("", 0)

    def update(self, done: int, note: str = "") -> None:
        doing = self._current
        doing.steps, doing.note = f"{done}/{doing.total}", note

    def told(self, label: str, stage: str, total: int, done: int, note: str) -> None:
        self._open[label].at(stage, total, f"{done}/{total}" if done else "", note)

    def waits(self, what: str) -> None:
        what = f"waiting: {what}"
        if self._current.label != what:
            self._current = _Doing(what)

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
                self._tell(f"{self._done} of {count(self._cells, 'cell')} done; {self._doing()}")

    def _doing(self) -> str:
        doing = list(self._open.values()) or [self._current]
        return "; ".join(one.told(with_note=len(doing) == 1) for one in doing)

    def _tell(self, text: str) -> None:
        self._told = time.monotonic()
        try:
            self._console.file.write(f"bascule: {' '.join(text.split())}\n")
            self._console.file.flush()
        except OSError:
            pass  # nobody reads the log any more; the work goes on


def silent() -> Console:
    """A console that nobody sees."""
    return Console(file=io.StringIO(), force_terminal=False, force_jupyter=False)


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
