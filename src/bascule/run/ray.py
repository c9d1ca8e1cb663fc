"""Cells on a Ray cluster, or on several processes of one machine. Needs the extra `bascule[ray]`."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bascule.core import catalog
from bascule.core.catalog import describe
from bascule.core.errors import RequestError
from bascule.core.progress import Progress
from bascule.plan.plan import Cell
from bascule.record.run import RunRecord
from bascule.run.cell import Failure, is_done, record_failure, try_cell
from bascule.run.context import RunContext

_SHARED = "must be on storage that every node shares, at the same place"
_PATIENCE = 5.0
"""Seconds that a record may take from one node to another over a network drive."""


def run_cells(cells: Sequence[Cell], run: RunContext) -> list[Failure]:
    """One Ray task per cell, on one core or one GPU each; the run folder must be on storage that every node shares.

    A cell is done when its record can be seen from here. One whose worker is lost has failed; the others go on.

    Raises:
        RequestError: Ray is not installed or cannot be reached, or a cell found that the request is wrong.
    """
    ray = _started()
    there = _Workplace.of(run)

    @ray.remote(num_cpus=1, num_gpus=1 if run.device.type == "cuda" else 0, max_retries=2)  # type: ignore[untyped-decorator]
    def work(content: bytes, code: Mapping[str, str], *needed: object) -> tuple[str | None, float]:
        began = time.monotonic()
        return there.do(content, code), time.monotonic() - began

    # A cell's task waits for those of the cells it needs, whose answers it is given.
    tasks: dict[str, Any] = {}
    for cell in cells:
        needed = [tasks[other.fingerprint] for other in cell.needs if other.fingerprint in tasks]
        tasks[cell.fingerprint] = work.remote(pickle.dumps(cell), _code_of(cell), *needed)
    waiting = {tasks[cell.fingerprint]: cell for cell in cells}
    failures = []
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        cell = waiting.pop(ready)
        message, seconds = _answer(ray, ready, cell, run)
        run.progress.end(cell.label, seconds, message)
        if message is not None:
            failures.append(Failure(cell.label, message))
    return failures


def _started() -> Any:
    """Ray, connected to the cluster that RAY_ADDRESS names, or else to one of its own on this machine."""
    try:
        import ray
    except ImportError as error:
        raise RequestError("Ray is not installed: pip install 'bascule[ray]'", place=("engine",)) from error
    if not ray.is_initialized():
        _check_address(os.environ.get("RAY_ADDRESS", ""))
        try:
            ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
        except Exception as error:  # refused connections, other versions, no room: each has a type of its own
            address = os.environ.get("RAY_ADDRESS")
            where = f"no Ray cluster can be reached at {address} (RAY_ADDRESS)" if address else "Ray cannot be started"
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise RequestError(f"{where}: {reason}", place=("engine",)) from error
    return ray


def _check_address(address: str) -> None:
    """Knock at the cluster's door: Ray itself tries for minutes.

    Raises:
        RequestError: Nobody is there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return  # none, or a word such as `auto`
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except (OSError, OverflowError, UnicodeError) as error:
        problem = f"no Ray cluster can be reached at {address} (RAY_ADDRESS): {error}. Start one, or unset it"
        raise RequestError(problem, place=("engine",)) from error


def _answer(ray: Any, ready: Any, cell: Cell, run: RunContext) -> tuple[str | None, float]:
    """What keeps the cell from being done, None if nothing does, and the seconds it took."""
    try:
        message, seconds = ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        # A wrong request stops the run here as it does without Ray.
        if isinstance(error.cause, RequestError):
            raise error.cause from None
        return _failed(cell, run, error.cause or error), 0.0
    except ray.exceptions.RayError as error:
        return _failed(cell, run, error, "its worker was lost: "), 0.0
    if message is None and not _visible(cell, run):
        message = f"its record cannot be seen here: the run folder {run.record.path} {_SHARED}"
    return message, seconds


def _failed(cell: Cell, run: RunContext, error: BaseException, what: str = "") -> str:
    """Record the failure of a cell that could not do so itself."""
    first = str(error).strip().partition("\n")[0] or "no reason given"
    message = f"{what}{type(error).__name__}: {first}"
    record_failure(cell, run, type(error).__name__, message)
    return message


def _visible(cell: Cell, run: RunContext) -> bool:
    """Whether the record says here that the cell is done, perhaps after a while."""
    until = time.monotonic() + _PATIENCE
    while not is_done(cell, run.record.cell(cell.fingerprint)):
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


def _code_of(cell: Cell) -> dict[str, str]:
    """The user's code that a cell needs: its names, with what identifies each."""
    names = dict.fromkeys(_names(describe(cell.setup)))
    return {name: catalog.code_of(catalog.load("models", name), name) for name in names}


def _names(settings: Any) -> Iterator[str]:
    """Names `module:attribute` among the settings."""
    if isinstance(settings, Mapping):
        name = settings.get("name")
        if isinstance(name, str) and ":" in name:
            yield name
        for value in settings.values():
            yield from _names(value)
    elif isinstance(settings, list):
        for value in settings:
            yield from _names(value)


@dataclass(frozen=True)
class _Workplace:
    """What a worker, wherever it runs, needs to work like this process: nothing depends on the folder it started in."""

    run: RunContext
    home: str
    """The current folder of this process, which relative paths in a study start from."""

    @classmethod
    def of(cls, run: RunContext) -> _Workplace:
        """That of this process; data and progress stay here."""
        shared = replace(
            run,
            record=RunRecord(run.record.path.absolute()),
            roots=tuple(root.absolute() for root in run.roots),
            progress=Progress(),
            _splits=None,
            _held_out=None,
            _key="",
        )
        return cls(shared, str(Path.cwd()))

    def do(self, content: bytes, code: Mapping[str, str]) -> str | None:
        """Do the cell in `content`; the reason if it fails.

        Args:
            content: The cell, still packed: its classes may be those of the user's code.
            code: That code's names, with what identifies each.
        """
        with contextlib.suppress(OSError):  # a node without this folder can do what names no file in it
            os.chdir(self.home)
        for name, identity in code.items():
            try:
                same = catalog.code_of(catalog.load("models", name), name) == identity
            except RequestError as error:
                return f"its code cannot be read on a worker ({error}): it {_SHARED}"
            if not same:
                return f"{name} is another one on a worker: it {_SHARED}"
        return try_cell(pickle.loads(content), replace(self.run))
