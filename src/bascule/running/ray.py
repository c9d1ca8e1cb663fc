"""Cells on a Ray cluster, or on several processes of one machine. Needs the extra `bascule[ray]`."""

from __future__ import annotations

import contextlib
import errno
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import torch

from bascule.core.errors import RequestError
from bascule.plan.plan import Cell
from bascule.record.sums import DamagedError
from bascule.running.cell import Failure, record_failure
from bascule.running.cluster import Head, connected, nodes_of, token_in
from bascule.running.context import RunContext
from bascule.running.mirror import Changes
from bascule.running.pool import failure_of, passed_on, run_by
from bascule.running.ray_worker import Full, Here, RayWorker
from bascule.running.resources import Resources
from bascule.running.sent import Sending
from bascule.running.waiting import Waiting
from bascule.running.worker import Refused
from bascule.running.workplace import SHARED, Workplace

_PATIENCE = 5.0
"""Seconds that a record may take from one node to another over a network drive, and a worker to end."""
_EVERY = 2.0
"""Seconds between two looks at what the cluster has."""
_TRIES = 3
"""How often a cell is begun whose workers are lost, and a worker is started before any has come."""
_STARTS = 10
"""How often a worker may fail to start."""
_GONE = 60.0
"""Seconds without a node that could do a cell before the run ends."""
_OPTIONS = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
"""Ray's arguments for its own resources."""


def run_cells(cells: Sequence[Cell], run: RunContext, wanted: Resources) -> list[Failure]:
    """Cells by workers of a Ray cluster, one at a time each; in the plan's order, those that need others after these.

    A worker keeps the data it has. Where the run's folder is on storage that its node shares, it writes there; else
    what it writes comes back as it is written, and is put in place here. A cell whose worker is lost is begun anew by
    another one, from what is here of it, and has failed when that has happened three times.

    Raises:
        RequestError: Ray is not installed or cannot be reached, no node has what is wanted, or a cell found that the
            request is wrong.
        OSError: What comes back cannot be written here.
    """
    with connected() as ray, token_in(run.record.path) as token:
        nodes = nodes_of(ray)
        wanted = wanted.on(node for node, _ in nodes.values())
        wanted.check({f"{name} ({key[:8]})": node for key, (node, name) in nodes.items()})
        waiting = Waiting(cells, run)
        return run_by(_Pool(ray, run, wanted, token, waiting), waiting, run)


_Ended = tuple[Cell, float, str | None]
"""A cell that has ended, after how many seconds, and how it failed."""


@dataclass
class _Hired:
    """A worker, as it is seen from here."""

    actor: Any
    heard: Any
    """What will be its next words; None while it is idle, or put aside."""
    here: Here | None = None
    aside: bool = False
    """Its disk is full; it only keeps the place, so that no other one is started there."""
    cell: Cell | None = None
    began: float = 0.0

    @property
    def idle(self) -> bool:
        return self.here is not None and self.cell is None and not self.aside


class _Pool:
    """The workers of a run: as many as the cluster has room for and there are cells."""

    def __init__(self, ray: Any, run: RunContext, wanted: Resources, token: tuple[str, str], waiting: Waiting) -> None:
        self._ray, self._run, self._wanted, self._token, self._waiting = ray, run, wanted, token, waiting
        self._place = Workplace.of(replace(run, device=torch.device(wanted.device)))
        self._head = Head(ray)
        stores = [node.get("object_store_memory", 0.0) for node, _ in nodes_of(ray).values()]
        self._sending = Sending(ray, run, min(filter(None, stores), default=0.0) / 2)
        self._workers: list[_Hired] = []
        self._lost: Counter[str] = Counter()
        self._full: set[str] = set()
        self._failed, self._came = 0, False
        self._looked = self._seen = time.monotonic()
        self._fill()

    @property
    def busy(self) -> list[Cell]:
        """The cells that are being done."""
        return [worker.cell for worker in self._workers if worker.cell is not None]

    @property
    def has_room(self) -> bool:
        """Whether another cell can be given."""
        return any(worker.idle for worker in self._workers)

    def give(self, cell: Cell) -> None:
        """Let an idle worker do this cell."""
        worker = next(worker for worker in self._workers if worker.idle)
        assert worker.here is not None
        worker.cell, worker.began = cell, time.monotonic()
        worker.heard = worker.actor.do.remote(self._sending.of(cell, files=not worker.here.shared))

    def listen(self, patience: float | None = None) -> _Ended | None:
        """Wait for the next words of a worker, and not for long; if a cell has ended, which, after how many seconds,
        how it failed.

        Raises:
            RequestError: A cell found that the request is wrong, or no worker can be had.
            OSError: What a worker has written cannot be written here, or every worker's disk is full.
        """
        if time.monotonic() - self._looked > _EVERY:
            self._fill()
        waiting = {worker.heard: worker for worker in self._workers if worker.heard is not None}
        if not waiting:
            time.sleep(_EVERY / 4)
            return None
        heard, _ = self._ray.wait(
            list(waiting), num_returns=1, timeout=_EVERY if patience is None else min(patience, _EVERY)
        )
        return self._hear(waiting[heard[0]]) if heard else None

    def stop(self) -> None:
        """End all of them; what a busy one has not sent is lost."""
        for worker in list(self._workers):
            self._dismiss(worker)
        ends = [worker.heard for worker in self._workers if worker.heard is not None]
        self._workers.clear()
        if ends:  # or they would write when nobody holds the run
            self._ray.wait(ends, num_returns=len(ends), timeout=_PATIENCE)

    # --- workers -----------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Start workers where there is room for more, let those go that have nothing to do any more or have gone."""
        self._looked = time.monotonic()
        if not self._head.answers():
            return
        nodes = nodes_of(self._ray)
        for worker in [one for one in self._workers if one.cell is None and one.here is not None]:
            if worker.here is not None and worker.here.node_id not in nodes:
                self._dismiss(worker)
        places = sum(self._wanted.places(node) for node, _ in nodes.values())
        aside = [worker for worker in self._workers if worker.aside]
        if places:
            self._seen = self._looked
        elif self._looked - self._seen > _GONE:
            raise RequestError("no node that could do a cell is left in the cluster", place=("engine",))
        if places and len(aside) >= places:
            raise OSError(errno.ENOSPC, f"the disk of every worker is full ({', '.join(sorted(self._full))})")
        size = min(places, len(self._waiting) + len(self.busy) + len(aside))
        for worker in [one for one in self._workers if one.idle][: max(0, len(self._workers) - size)]:
            self._dismiss(worker)
        while len(self._workers) < size and self._failed < _STARTS:
            self._workers.append(self._hired())

    def _hired(self) -> _Hired:
        amounts = self._wanted.named()
        options = {name: amounts.pop(key, 0) for name, key in _OPTIONS.items()}
        work = self._ray.remote(RayWorker).options(
            **options, resources=amounts, max_restarts=0, scheduling_strategy="SPREAD"
        )
        actor = work.remote(self._place, self._token, version("bascule"), self._wanted.threads)
        return _Hired(actor, actor.arrive.remote())

    def _dismiss(self, worker: _Hired) -> None:
        """End a worker: one that is busy at once."""
        if worker.heard is None and worker.here is not None:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.wait([worker.actor.leave.remote()], timeout=_PATIENCE)
        self._ray.kill(worker.actor, no_restart=True)
        if worker.heard is None:
            self._workers.remove(worker)

    # --- what they say -----------------------------------------------------------------------------------------------

    def _hear(self, worker: _Hired) -> _Ended | None:
        errors = self._ray.exceptions
        try:
            words = self._ray.get(worker.heard)
        except errors.RayTaskError as error:
            return self._broken(worker, error.cause or error)
        except errors.RayError as error:
            return self._gone(worker, error)
        worker.heard = None
        if worker.here is None:
            self._greet(worker, words)
            return None
        for word in words:
            try:
                ended = self._take(worker, word)
            except DamagedError as error:
                return self._gone(worker, error)
            if ended is not None:
                return ended
        if worker.cell is not None:
            worker.heard = worker.actor.listen.remote()
        return None

    def _greet(self, worker: _Hired, word: Here | Full | Refused) -> None:
        if isinstance(word, Refused):
            raise word.error
        worker.here = word.here if isinstance(word, Full) else word
        self._came = True
        if isinstance(word, Full):
            self._put_aside(worker, word)
            warnings.warn(f"the disk of a worker is full ({word}); it is given no cell", stacklevel=2)

    def _take(self, worker: _Hired, word: Any) -> _Ended | None:
        cell = worker.cell
        assert cell is not None
        if passed_on(word, cell, self._run):
            return None
        if isinstance(word, Changes):
            word.carry_out(self._run.record.cell(cell.fingerprint).path)
        elif isinstance(word, Full):
            worker.cell = None
            self._put_aside(worker, word)
            return self._once_more(cell, worker.began, f"the disk of its worker is full: {word}")
        else:
            worker.cell = None
            shared = worker.here is not None and worker.here.shared
            where = f"the run folder {self._run.record.path} {SHARED}" if shared else "it did not come back whole"
            unseen = f"its record cannot be seen here: {where}"
            return cell, word.seconds, failure_of(word, cell, self._run, unseen, _PATIENCE)
        return None

    def _put_aside(self, worker: _Hired, full: Full) -> None:
        worker.aside = True
        self._full.add(str(full))

    def _broken(self, worker: _Hired, error: BaseException) -> _Ended | None:
        """Something that no worker should do."""
        if worker.cell is None:
            return self._gone(worker, error)
        cell, began, worker.cell = worker.cell, worker.began, None
        worker.heard = None
        self._dismiss(worker)
        message = f"{type(error).__name__}: {_reason(error)}"
        record_failure(cell, self._run, type(error).__name__, message)
        return cell, time.monotonic() - began, message

    def _gone(self, worker: _Hired, error: BaseException) -> _Ended | None:
        """It was killed, or its node; or it could not even start."""
        self._workers.remove(worker)
        self._ray.kill(worker.actor, no_restart=True)  # which may only have been out of reach
        if worker.cell is None:
            self._failed += 1
            if self._failed >= (_STARTS if self._came else _TRIES) and all(one.aside for one in self._workers):
                what = "no worker can be started on the cluster. Is bascule installed on every node?"
                raise RequestError(f"{what} {_reason(error)}", place=("engine",)) from error
            return None
        self._looked = 0.0  # there may be room for another one
        node = "" if worker.here is None else f" on {worker.here.node}"
        return self._once_more(
            worker.cell, worker.began, f"its worker{node} was lost: {type(error).__name__}: {_reason(error)}"
        )

    def _once_more(self, cell: Cell, began: float, why: str) -> _Ended | None:
        """Another worker takes the cell, unless it has had its share of them."""
        self._lost[cell.fingerprint] += 1
        if self._lost[cell.fingerprint] < _TRIES:
            warnings.warn(f"{cell.label}: {why}; it is given to another one", stacklevel=2)
            self._waiting.again(cell)
            return None
        message = f"{why} (tried {_TRIES} times)"
        record_failure(cell, self._run, "LostWorker", message)
        return cell, time.monotonic() - began, message


def _reason(error: BaseException) -> str:
    """The first and the last line of what Ray says, which may be a page."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
    return " ... ".join(dict.fromkeys((lines[0], lines[-1])))[:500]
