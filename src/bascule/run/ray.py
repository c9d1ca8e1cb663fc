"""Cells on a Ray cluster, or on several processes of one machine. Needs the extra `bascule[ray]`."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from bascule.core.errors import RequestError
from bascule.plan.plan import Cell
from bascule.run.cell import Failure, try_cell
from bascule.run.context import RunContext


def run_cells(cells: Sequence[Cell], run: RunContext) -> list[Failure]:
    """One Ray task per cell, on one core or one GPU each; the run folder must be on storage that every node shares.

    Raises:
        RequestError: Ray is not installed, or a cell found that the request is wrong.
    """
    try:
        import ray
    except ImportError as error:
        raise RequestError("Ray is not installed: pip install 'bascule[ray]'", place=("engine",)) from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    # What the tasks need of the run; data and progress stay here.
    shared = {name: getattr(run, name) for name in ("record", "device", "roots", "compile_passes", "command")}

    @ray.remote(num_cpus=1, num_gpus=1 if run.device.type == "cuda" else 0, max_retries=2)
    def work(cell: Cell, *needed: object) -> tuple[str | None, float]:
        began = time.monotonic()
        return try_cell(cell, RunContext(**shared)), time.monotonic() - began

    # A cell's task waits for those of the cells it needs, whose answers it is given.
    tasks: dict[str, Any] = {}
    for cell in cells:
        needed = [tasks[other.fingerprint] for other in cell.needs if other.fingerprint in tasks]
        tasks[cell.fingerprint] = work.remote(cell, *needed)
    waiting = {tasks[cell.fingerprint]: cell for cell in cells}
    failures = []
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        cell = waiting.pop(ready)
        try:
            message, seconds = ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            # A wrong request stops the run here as it does without Ray.
            raise error.cause if isinstance(error.cause, RequestError) else error from None
        run.progress.end(cell.label, seconds, message)
        if message is not None:
            failures.append(Failure(cell.label, message))
    return failures
