"""The page of a run that goes on. Another process writes it, so that the run neither waits for it nor fails with it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

from bascule.record.lock import is_locked, parts_at_work
from bascule.record.run import RunRecord
from bascule.report.page.page import Live, write_page

PAUSE = 30.0
"""Least seconds between two pages, and between two looks of the browser."""
_SHARE = 9
"""A pause is at least this many times as long as the page before it took: pages take a tenth of one core at most."""


class LivePage:
    """Keeps `output` current while `run` is worked on. Whatever goes wrong is a warning, once."""

    def __init__(self, run: RunRecord, output: Path, *, warn: Callable[[str], object], pause: float = PAUSE) -> None:
        self._run, self._output, self._warn, self._pause = run, output, warn, pause
        self._warned = False
        self._news, self._over = Event(), Event()
        self._follower = Thread(target=self._follow, daemon=True)

    def changed(self) -> None:
        """The record holds something new: a page follows, at once or when the pause after the last one is over."""
        self._news.set()
        if self._follower.ident is None:
            self._follower.start()

    def close(self) -> None:
        """Write the last page, after the one that is being written: of a run that goes on no more, but for other parts
        of it."""
        self._over.set()
        self._news.set()
        if self._follower.ident is not None:
            self._follower.join()
        # Refused before it began, perhaps because another process works on it, which keeps its page current itself.
        if not self._run.plan_file.is_file() or is_locked(self._run.path):
            return
        try:
            while not self._written_as_it_is():
                pass
        except Exception as error:  # what the run has found is there, whatever keeps its page from being written
            self._complain(f"{error}" or type(error).__name__)

    def _written_as_it_is(self) -> bool:
        """Write the page; whether no other part has ended meanwhile, which then has left the last page to this one."""
        goes_on = bool(parts_at_work(self._run.path))
        write_page([self._run], self._output, live=_live(self._pause) if goes_on else None)
        return not goes_on or bool(parts_at_work(self._run.path))

    def _follow(self) -> None:
        pause = 0.0
        while self._news.wait() and not self._over.wait(pause):
            self._news.clear()
            began = time.monotonic()
            self._write_elsewhere()
            pause = max(self._pause, _SHARE * (time.monotonic() - began))

    def _write_elsewhere(self) -> None:
        words = [sys.executable, "-P", "-m", "bascule.report.page.live", str(self._run.path)]
        words += [str(self._output), str(self._pause)]
        try:
            # In a session of its own: Ctrl-C is for the run.
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, start_new_session=True
            )
        except OSError as error:
            self._complain(str(error))
        else:
            if done.returncode:
                self._complain(next(iter(done.stderr.splitlines()[-1:]), f"exit code {done.returncode}"))

    def _complain(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(f"the report {self._output} was not written: {why}")


def _live(pause: float) -> Live:
    return Live(written=datetime.now(UTC), every=max(1, round(pause)))


def main() -> None:
    """Write a page once: RUN OUTPUT SECONDS. To be run by `LivePage`."""
    run, output, every = sys.argv[1:]
    if hasattr(os, "nice"):
        os.nice(19)  # the run comes first
    write_page([RunRecord(Path(run))], Path(output), live=_live(float(every)))


if __name__ == "__main__":
    main()
