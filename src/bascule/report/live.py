"""The page of a run that goes on. Another process writes it, so that the run neither waits for it nor fails with it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

from bascule.report.page import Live, write_page
from bascule.study.record import RunRecord

PAUSE = 30.0
"""Least seconds between two pages, and between two looks of the browser."""
_SHARE = 9
"""A pause is at least this many times as long as the page before it took: pages take a tenth of one core at most."""


class LivePage:
    """Keeps `output` current while `run` is worked on. Whatever goes wrong is a warning, once."""

    def __init__(self, run: RunRecord, output: Path, *, warn: Callable[[str], object], pause: float = PAUSE) -> None:
        self._run, self._output, self._warn, self._pause = run, output, warn, pause
        self._warned = False
        self._writer: Thread | None = None
        self._next = time.monotonic()

    def changed(self) -> None:
        """Begin a new page, unless one is being written or the last one is younger than the pause."""
        busy = self._writer is not None and self._writer.is_alive()
        if not busy and time.monotonic() >= self._next:
            self._writer = Thread(target=self._write_elsewhere, daemon=True)
            self._writer.start()

    def close(self) -> None:
        """Write the last page, of a run that goes on no more, after the one that is being written."""
        if self._writer is not None:
            self._writer.join()
        if not self._run.plan_file.is_file():  # the run was refused before it began
            return
        try:
            write_page([self._run], self._output)
        except Exception as error:  # what the run has found is there, whatever keeps its page from being written
            self._complain(f"{error}" or type(error).__name__)

    def _write_elsewhere(self) -> None:
        words = [sys.executable, "-P", "-m", "bascule.report.live", str(self._run.path)]
        words += [str(self._output), str(self._pause)]
        began = time.monotonic()
        try:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        except OSError as error:
            self._complain(str(error))
        else:
            if done.returncode:
                self._complain(next(iter(done.stderr.splitlines()[-1:]), f"exit code {done.returncode}"))
        self._next = time.monotonic() + max(self._pause, _SHARE * (time.monotonic() - began))

    def _complain(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(f"the report {self._output} was not written: {why}")


def main() -> None:
    """Write a page once: RUN OUTPUT SECONDS. To be run by `LivePage`."""
    run, output, every = sys.argv[1:]
    if hasattr(os, "nice"):
        os.nice(19)  # the run comes first
    live = Live(written=datetime.now(UTC), every=max(1, round(float(every))))
    write_page([RunRecord(Path(run))], Path(output), live=live)


if __name__ == "__main__":
    main()
