"""Telling hooks what happens in a run: in the process that holds it, each with data of its own."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from bascule.core.errors import RequestError, say_where
from bascule.core.text import quote
from bascule.hooks.announced import made_hooks
from bascule.hooks.contract import CellEnd, CellFacts, Hook, RunEnd, RunFacts
from bascule.plan.plan import Cell, Plan, Row
from bascule.record.rows import measures_of_cell, read_rows
from bascule.record.run import RunRecord
from bascule.running.cell import Failure, is_done
from bascule.running.provenance import own_command
from bascule.running.telling import Telling


def hooks_of(given: Sequence[Hook]) -> dict[str, Hook]:
    """The installed hooks that act, and those given, each under what it is called.

    Raises:
        RequestError: Something else was given than hooks.
    """
    if isinstance(given, Hook) or not isinstance(given, Iterable):
        raise RequestError(f"expected a list of hooks, got {quote(given)}", place=("hooks",))
    for one in given:
        if not isinstance(one, Hook):
            what = f"the class {one.__name__}: make one of it" if isinstance(one, type) else repr(one)
            raise RequestError(f"expected instances of bascule.hooks.Hook, got {what}", place=("hooks",))
    hooks = made_hooks()
    for one in given:
        name = f"{type(one).__module__}:{type(one).__qualname__}"
        hooks[name if name not in hooks else f"{name} {len(hooks)}"] = one
    return hooks


@contextmanager
def telling(
    hooks: Mapping[str, Hook],
    plan: Plan,
    run: RunRecord,
    pending: Sequence[Cell],
    warn: Callable[[str], object],
) -> Iterator[tuple[Telling, list[Failure]]]:
    """Hooks are told that a run begins, of its table and that it ends; what the block tells of its cells they hear too.

    Yields:
        Whom to tell, and a list for the failures.
    """
    failures: list[Failure] = []
    if not hooks:
        yield Telling(), failures
        return
    told = _Hooks(hooks, plan, run, warn)
    told.run_begun(pending)
    stopped: str | None = None
    try:
        yield told, failures
    except BaseException as error:
        stopped = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
        raise
    finally:
        told.run_ended(len(pending), failures, stopped)


class _Hooks(Telling):
    """The hooks of one run."""

    def __init__(self, hooks: Mapping[str, Hook], plan: Plan, run: RunRecord, warn: Callable[[str], object]) -> None:
        super().__init__(tuple(hooks))
        self._hooks, self._plan, self._run, self._warn = dict(hooks), plan, run, warn
        self._facts: dict[str, CellFacts] = {}
        self._epochs: dict[str, int] = {}

    def run_begun(self, pending: Sequence[Cell]) -> None:
        """The first call."""
        rows = _rows_of(self._plan)
        for cell in pending:
            trained = self._run.cell(cell.fingerprint).trained
            self._facts[cell.fingerprint] = _facts(cell, self._plan.name, rows.get(cell.fingerprint, []), trained)
        self._call(
            "run_begun",
            RunFacts(
                study=self._plan.name,
                title=self._plan.title,
                folder=str(self._run.path.absolute()),
                command=own_command(),
                metrics=(self._run.asked() or self._run.plan()).metrics,
                cells=tuple(self._facts.values()),
                done=tuple(
                    one.fingerprint for one in self._plan.cells() if is_done(one, self._run.cell(one.fingerprint))
                ),
            ),
        )

    def begun(self, cell: Cell) -> None:
        self._epochs[cell.fingerprint] = 0
        self._call("cell_begun", self._facts[cell.fingerprint])

    def epoch(self, cell: Cell, values: Mapping[str, float]) -> None:
        epoch = int(values["epoch"])
        self._epochs[cell.fingerprint] = epoch
        self._call("epoch", self._facts[cell.fingerprint], epoch, dict(values))

    def ended(self, cell: Cell, seconds: float, failure: str | None) -> None:
        facts, record = self._facts[cell.fingerprint], self._run.cell(cell.fingerprint)
        if cell.fingerprint not in self._epochs:  # nobody knew when another machine began
            self.begun(cell)
        if not facts.trained and record.trained:  # what was not heard of while it happened
            for entry in record.curve()[self._epochs[cell.fingerprint] :]:
                self.epoch(cell, entry)
        measures = {} if failure is not None else self._measures(cell.fingerprint)
        self._call("cell_ended", facts, CellEnd(seconds=seconds, failure=failure, measures=measures))

    def run_ended(self, cells: int, failures: Sequence[Failure], stopped: str | None) -> None:
        """The last calls."""
        if stopped is None and self._hooks:
            rows = self._read(lambda: [row.as_dict() for row in read_rows(self._run)])
            if rows is not None:
                self._call("table", rows)
        told = {failure.label: failure.message for failure in failures}
        self._call("run_ended", RunEnd(cells=cells, failures=told, stopped=stopped))

    def _measures(self, fingerprint: str) -> dict[str, dict[str, Any]]:
        if not self._hooks:
            return {}
        found = self._read(lambda: measures_of_cell(self._run, fingerprint)) or {}
        return {name: measure.as_dict() for name, measure in found.items()}

    def _read(self, read: Callable[[], Any]) -> Any:
        """What the record says; None where it cannot be read just now, which is for the run to say."""
        try:
            return read()
        except RequestError as error:
            self._warn(f"hooks are not told all: {error}")
            return None

    def _call(self, method: str, *told: Any) -> None:
        for name, hook in list(self._hooks.items()):
            try:
                with _as_it_was():
                    getattr(hook, method)(*copy.deepcopy(told))
            except (Exception, SystemExit) as error:  # whatever somebody's package does
                del self._hooks[name]
                reason = say_where(error, called=getattr(type(hook), method))
                self._warn(f"the hook {name} failed at {method} and is switched off for this run: {reason}")


@contextmanager
def _as_it_was() -> Iterator[None]:
    """What the block draws from the global generators and sets in torch does not last: a run goes by both."""
    ours, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002  (whatever a hook draws from)
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    try:
        with torch.random.fork_rng(devices=devices), torch.set_grad_enabled(torch.is_grad_enabled()):
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)  # noqa: NPY002
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(device)


def _rows_of(plan: Plan) -> dict[str, list[tuple[Row, bool]]]:
    """The rows that each cell belongs to, by fingerprint, and whether it is a twin there."""
    rows: dict[str, list[tuple[Row, bool]]] = {}
    for twin in (False, True):
        for row in plan.rows:
            for cell in row.twins if twin else row.cells:
                rows.setdefault(cell.fingerprint, []).append((row, twin))
    return rows


def _facts(cell: Cell, study: str, rows: Sequence[tuple[Row, bool]], trained: bool) -> CellFacts:
    names = tuple(dict.fromkeys(row.label for row, _ in rows))
    return CellFacts(
        study=study,
        label=cell.label,
        row=names[0] if names else cell.label,
        rows=names,
        seed=cell.seed,
        twin=bool(rows) and all(twin for _, twin in rows),
        fingerprint=cell.fingerprint,
        settings=cell.settings(),
        trained=trained,
    )
