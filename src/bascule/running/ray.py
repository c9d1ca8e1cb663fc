"""Cells on a Ray cluster, or on several processes of one machine. Needs the extra `bascule[ray]`."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bascule.core.errors import RequestError
from bascule.plan.plan import Cell
from bascule.running.cell import Failure, is_done, record_failure
from bascule.running.context import RunContext
from bascule.running.workplace import SHARED, Workplace, code_of_cell

_PATIENCE = 5.0
"""Seconds that a record may take from one node to another over a network drive."""


def run_cells(cells: Sequence[Cell], run: RunContext) -> list[Failure]:
    """One Ray task per cell, on one core or one GPU each; the run folder must be on storage that every node shares.

    A cell is done when its record can be seen from here. One whose worker is lost has failed; the others go on.

    Raises:
        RequestError: Ray is not installed or cannot be reached, or a cell found that the request is wrong.
    """
    ray = _started()
    there = Workplace.of(run)

    @ray.remote(num_cpus=1, num_gpus=1 if run.device.type == "cuda" else 0, max_retries=2)  # type: ignore[untyped-decorator]
    def work(content: bytes, code: Mapping[str, str], *needed: object) -> tuple[str | None, float]:
        began = time.monotonic()
        return there.do(content, code), time.monotonic() - began

    # A cell's task waits for those of the cells it needs, whose answers it is given.
    tasks: dict[str, Any] = {}
    for cell in cells:
        needed = [tasks[other.fingerprint] for other in cell.needs if other.fingerprint in tasks]
        tasks[cell.fingerprint] = work.remote(pickle.dumps(cell), code_of_cell(cell), *needed)
    waiting = {tasks[cell.fingerprint]: cell for cell in cells}
    failures = []
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        cell = waiting.pop(ready)
        message, seconds = _answer(ray, ready, cell, run)
        run.progress.end(cell.label, seconds, message)
        run.telling.ended(cell, seconds, message)
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
        message = f"its record cannot be seen here: the run folder {run.record.path} {SHARED}"
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
