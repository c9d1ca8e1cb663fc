"""Cells in several processes of this machine, with one torch thread each; on CUDA they share the device."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any

from bascule.core.errors import RequestError
from bascule.plan.plan import Cell
from bascule.record.lock import clear_lock
from bascule.running.cell import Failure, record_failure
from bascule.running.context import RunContext
from bascule.running.pool import failure_of, passed_on, run_by
from bascule.running.waiting import Waiting
from bascule.running.worker import Ended, Order
from bascule.running.workplace import Workplace, code_of_cell

_PROGRAM = """\
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from bascule.core.host import settle
settle()
from bascule.running.worker import serve
serve()
"""
"""A worker. A program of its own: `multiprocessing` would run the caller's main module again in each process."""

_PATIENCE = 5.0
"""Seconds that a worker may take to end when it is told to."""
_MOMENT = 0.5
"""Seconds after which this process has heard of a signal that was sent to all."""


def run_cells(waiting: Waiting, run: RunContext, jobs: int) -> list[Failure]:
    """Up to `jobs` cells at the same time.

    Each worker does one cell after another and keeps the data it has read. A cell is done when its record says so. One
    whose worker is lost (killed by the system) has failed; the others go on, with another worker.

    Raises:
        RequestError: No process can be started, or a cell found that the request is wrong.
    """
    return run_by(_Team(run, min(jobs, len(waiting))), waiting, run)


class _Worker:
    """A process that does cells, and the thread that hears of it."""

    def __init__(self) -> None:
        self.cell: Cell | None = None
        self.began = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, place: Workplace, heard: SimpleQueue[tuple[_Worker, Any]]) -> None:
        """Start it; what it says is put into `heard`, None when it has gone.

        Raises:
            RequestError: The system starts no process.
        """
        path = json.dumps([str(entry) for entry in sys.path])
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        try:
            with _ctrl_c_held_back():
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM, path],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env={**os.environ, **threads},
                )
        except OSError as error:
            raise RequestError(f"no further process can be started: {error}", place=("jobs",)) from error
        threading.Thread(target=self._listen, args=(self._process, heard), daemon=True).start()
        self._send(place)

    def give(self, cell: Cell) -> None:
        """Let it do this cell."""
        self.cell, self.began = cell, time.monotonic()
        self._send(Order(pickle.dumps(cell), code_of_cell(cell)))

    @property
    def was_told_to_end(self) -> bool:
        """Whether somebody has ended it by SIGTERM."""
        return self._process is not None and self._process.returncode == -signal.SIGTERM

    def loss(self) -> str:
        """How it ended, after `wait`."""
        assert self._process is not None
        code = self._process.returncode
        if code >= 0:
            return f"its worker was lost: it ended with exit code {code}"
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            why = ", perhaps for want of memory" if name == "SIGKILL" else ""
            return f"its worker was lost: it was killed by {name}{why}"
        return f"its worker was lost: it was killed by signal {-code}"

    def stop(self) -> None:
        """Let it end at once: what it keeps is written whole."""
        if self._process is not None:
            self._process.terminate()

    def wait(self) -> None:
        """Wait until it has ended."""
        if self._process is None:
            return
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(OSError):  # what it was sent and did not read
            self._process.stdin.close()  # type: ignore[union-attr]

    def _send(self, thing: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it is heard of that it has gone
            pickle.dump(thing, self._process.stdin)
            self._process.stdin.flush()

    def _listen(self, process: subprocess.Popen[bytes], heard: SimpleQueue[tuple[_Worker, Any]]) -> None:
        assert process.stdout is not None
        with contextlib.suppress(Exception), process.stdout as answers:  # killed, it may leave half a word
            while True:
                heard.put((self, pickle.load(answers)))
        heard.put((self, None))


class _Team:
    """The workers of a run: at most so many, started when there is something to do."""

    def __init__(self, run: RunContext, size: int) -> None:
        self._run, self._size = run, size
        self._place = Workplace.of(run)
        self._workers: list[_Worker] = []
        self._heard: SimpleQueue[tuple[_Worker, Any]] = SimpleQueue()

    @property
    def busy(self) -> list[Cell]:
        """The cells that are being done."""
        return [worker.cell for worker in self._workers if worker.cell is not None]

    @property
    def has_room(self) -> bool:
        """Whether another cell can be given."""
        return len(self.busy) < self._size

    def give(self, cell: Cell) -> None:
        """Let a worker do this cell, a new one if nobody is idle."""
        worker = next((worker for worker in self._workers if worker.cell is None), None)
        if worker is None:
            worker = _Worker()
            self._workers.append(worker)
            worker.cell = cell
            worker.start(self._place, self._heard)
        worker.give(cell)

    def listen(self, patience: float | None) -> tuple[Cell, float, str | None] | None:
        """Wait for the next word of a worker, at most so many seconds; if a cell has ended, which, after how many
        seconds, how it failed.

        Raises:
            RequestError: A cell found that the request is wrong.
        """
        try:
            worker, word = self._heard.get(timeout=patience)
        except Empty:
            return None
        cell = worker.cell
        if word is None:
            self._workers.remove(worker)
            worker.wait()
        if cell is None:
            return None
        if passed_on(word, cell, self._run):
            return None
        worker.cell = None
        if worker.was_told_to_end:
            time.sleep(_MOMENT)  # a queue tells all processes of a job: then this one ends too, and nothing has failed
        if isinstance(word, Ended):
            unseen = "it has ended, but its record does not say that it is done"
            return cell, word.seconds, failure_of(word, cell, self._run, unseen)
        message = worker.loss()
        record_failure(cell, self._run, "LostWorker", message)
        return cell, time.monotonic() - worker.began, message

    def stop(self) -> None:
        """End all of them."""
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.wait()
        for cell in self.busy:
            clear_lock(self._run.record.cell(cell.fingerprint).path)


@contextlib.contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """A process started inside the block never sees Ctrl-C, which a terminal sends to all: this one stops it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
